//! All blocks, a line each.

use nemoc::explain::words::{count, egraphs, micros, millis, per, steps};
use nemoc::fuse::{Explanation, ProgramReport};
use nemoc::saturate::Totals;

use super::super::table::{bytes, table};

/// A table per program, below a line of what all have in common.
pub(super) fn summary(explanation: &Explanation) -> String {
    let mut text = header(explanation);
    for program in &explanation.programs {
        text.push('\n');
        text.push_str(&of_program(program));
    }
    text
}

/// What was fused for what, and how.
pub(super) fn header(explanation: &Explanation) -> String {
    let Explanation { model, target, device, launch_us, rules, numerics, .. } = explanation;
    format!(
        "{model} for {target}: device {device} (a launch takes {launch_us} µs), rules {}, numerics {}\n",
        rules.name(),
        numerics.name()
    )
}

fn of_program(program: &ProgramReport) -> String {
    let header = ["block", "calls", "kernels off → greedy → chosen", "bytes", "µs off", "greedy", "chosen"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (calls, block) in &program.blocks {
        rows.push(row(&block.name, *calls, [&block.off, &block.greedy, &block.chosen]));
    }
    let totals = program.totals();
    let calls = program.blocks.iter().map(|(calls, _)| calls).sum();
    rows.push(row("all calls", calls, [&totals.off, &totals.greedy, &totals.chosen]));
    let per = per(program.phase);
    let ways = |totals: &Totals, name| format!("{name} {}, {} ms", totals.kernels, millis(totals.seconds));
    format!(
        "{}\n{}{} a {per}, predicted {} ms ({}; {})\n{}\n",
        steps(program),
        table(&rows),
        count(totals.chosen.kernels, "kernel"),
        millis(totals.chosen.seconds),
        ways(&totals.off, "off"),
        ways(&totals.greedy, "greedy"),
        egraphs(program)
    )
}

fn row(name: &str, calls: u64, [off, greedy, chosen]: [&Totals; 3]) -> Vec<String> {
    vec![
        name.to_owned(),
        calls.to_string(),
        format!("{} → {} → {}", off.kernels, greedy.kernels, chosen.kernels),
        bytes(chosen.bytes),
        micros(off.seconds),
        micros(greedy.seconds),
        micros(chosen.seconds),
    ]
}
