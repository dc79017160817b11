//! Numbers and sentences about fusion.

use nemo_ir::plan::Phase;

use crate::fuse::ProgramReport;
use crate::saturate::{BlockReport, Totals};

/// A size in the largest unit that leaves a number above 1, with two decimals.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.2} {}", units[unit]) }
}

/// Microseconds, in four digits or more.
pub fn micros(seconds: f64) -> String {
    let us = seconds * 1e6;
    let decimals = if us >= 1000.0 {
        0
    } else if us >= 100.0 {
        1
    } else {
        2
    };
    format!("{us:.decimals$}")
}

/// Milliseconds.
pub fn millis(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

/// Billions of operations.
pub fn gflop(flops: u64) -> String {
    format!("{:.3}", flops as f64 / 1e9)
}

/// A part of a whole.
pub fn share(part: f64, whole: f64) -> String {
    format!("{:.1} %", if whole > 0.0 { 100.0 * part / whole } else { 0.0 })
}

/// A number of things.
pub fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// The steps that a program serves, and those that its costs are of: `decode of 2 to 8 sequences, costs at 8`.
pub fn steps(program: &ProgramReport) -> String {
    let (first, last, tokens) = (program.first_tokens, program.last_tokens, program.tokens);
    let things = match program.phase {
        Phase::Decode => "sequence",
        Phase::Prefill => "token",
    };
    let range = if first == last {
        count(first as usize, things)
    } else {
        format!("{first} to {last} {things}s, costs at {tokens}")
    };
    format!("{} of {range}", program.phase.name())
}

/// What the kernels of a step are counted by: a step of decode gives each of its sequences a token.
pub fn per(phase: Phase) -> &'static str {
    match phase {
        Phase::Decode => "token",
        Phase::Prefill => "chunk",
    }
}

/// `rms_norm + linear ×3`.
pub fn sum_of(ops: &[String]) -> String {
    runs(ops).join(" + ")
}

/// Names in order, with a factor where one repeats.
pub fn runs(ops: &[String]) -> Vec<String> {
    let run = |run: &[String]| match run {
        [one] => one.clone(),
        many => format!("{} ×{}", many[0], many.len()),
    };
    ops.chunk_by(|a, b| a == b).map(run).collect()
}

/// The e-graphs of a program in one line.
pub fn egraphs(program: &ProgramReport) -> String {
    let grown = program.blocks.iter().filter_map(|(_, block)| Some((block.name.as_str(), block.saturation?)));
    let grown: Vec<_> = grown.collect();
    if grown.is_empty() {
        return "no e-graphs were built".to_owned();
    }
    let nodes: usize = grown.iter().map(|(_, size)| size.nodes).sum();
    let classes: usize = grown.iter().map(|(_, size)| size.classes).sum();
    let rounds = grown.iter().map(|(_, size)| size.rounds).max().unwrap_or(0);
    let limited: Vec<&str> = grown.iter().filter(|(_, size)| size.limited).map(|(name, _)| *name).collect();
    let limit = match limited.as_slice() {
        [] => "no limit reached".to_owned(),
        names => format!("limit reached in {}", names.join(", ")),
    };
    format!(
        "{}: {nodes} nodes in {classes} classes, at most {}, {limit}",
        count(grown.len(), "e-graph"),
        count(rounds, "round")
    )
}

/// What the chosen form of a block saves, a sentence or two against each other way.
pub fn verdict(block: &BlockReport, launch_us: f64) -> Vec<String> {
    let mut said = Vec::new();
    for (name, other) in [("off", block.off), ("greedy", block.greedy)] {
        said.push(saved(name, &other, &block.chosen));
        said.extend(still_pays(name, &other, &block.chosen, launch_us));
    }
    said
}

fn saved(name: &str, other: &Totals, chosen: &Totals) -> String {
    if (other.kernels, other.bytes) == (chosen.kernels, chosen.bytes) && same(other.seconds, chosen.seconds) {
        return format!("Against {name}: as many kernels, as many bytes, as much time.");
    }
    let word = |more: bool| if more { "added" } else { "saved" };
    let kernels = count(other.kernels.abs_diff(chosen.kernels), "kernel");
    let time = micros((other.seconds - chosen.seconds).abs());
    format!(
        "Against {name}: {kernels} {}, {} {}, {time} µs {} ({}).",
        word(chosen.kernels > other.kernels),
        bytes(other.bytes.abs_diff(chosen.bytes)),
        word(chosen.bytes > other.bytes),
        word(chosen.seconds > other.seconds),
        share((other.seconds - chosen.seconds).abs(), other.seconds)
    )
}

/// Why a form is worth the bytes that it moves beyond those of another.
fn still_pays(name: &str, other: &Totals, chosen: &Totals, launch_us: f64) -> Option<String> {
    let gain = other.seconds - chosen.seconds;
    if chosen.bytes <= other.bytes || gain <= 0.0 || same(other.seconds, chosen.seconds) {
        return None;
    }
    let more = bytes(chosen.bytes - other.bytes);
    let launches = other.kernels.saturating_sub(chosen.kernels);
    if launches == 0 {
        return Some(format!(
            "It moves {more} more than {name} and takes less time all the same: it repeats less work or fills the \
             device better."
        ));
    }
    let bought = launches as f64 * launch_us * 1e-6;
    let rest = if bought > gain {
        format!("of which the extra bytes and repeated work take back {} µs", micros(bought - gain))
    } else {
        format!("and its kernels together take {} µs less besides", micros(gain - bought))
    };
    Some(format!(
        "It moves {more} more than {name} and still pays: {} saved × {launch_us} µs = {} µs, {rest}.",
        if launches == 1 { "1 launch".to_owned() } else { format!("{launches} launches") },
        micros(bought)
    ))
}

/// Whether two times are the same but for the order of their sums.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bytes_are_explained() {
        let totals = |kernels, bytes, us: f64| Totals { kernels, bytes, flops: 0, seconds: us * 1e-6 };
        let mut block = BlockReport {
            name: "b".to_owned(),
            kernels: Vec::new(),
            off: totals(5, 1024, 20.0),
            greedy: totals(2, 2048, 14.0),
            chosen: totals(2, 2048, 14.0),
            saturation: None,
        };
        assert_eq!(
            verdict(&block, 2.5),
            [
                "Against off: 3 kernels saved, 1.00 KiB added, 6.00 µs saved (30.0 %).",
                "It moves 1.00 KiB more than off and still pays: 3 launches saved × 2.5 µs = 7.50 µs, of which the \
                 extra bytes and repeated work take back 1.50 µs.",
                "Against greedy: as many kernels, as many bytes, as much time.",
            ]
        );
        block.greedy = totals(1, 1024, 15.0);
        assert_eq!(
            verdict(&block, 2.5)[2..],
            [
                "Against greedy: 1 kernel added, 1.00 KiB added, 1.00 µs saved (6.7 %).",
                "It moves 1.00 KiB more than greedy and takes less time all the same: it repeats less work or fills \
                 the device better.",
            ]
        );
    }
}
