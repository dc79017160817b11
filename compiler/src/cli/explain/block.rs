//! One block: its kernels, where they come from, and what they save.

use nemoc::explain::same_form;
use nemoc::explain::words::{count, gflop, micros, share, steps, sum_of, verdict};
use nemoc::fuse::Explanation;
use nemoc::saturate::{BlockReport, KernelReport, Totals};

use super::super::table::{bytes, table};
use super::summary::header;

/// Chains of laws are broken before this column.
const WIDTH: usize = 100;

/// The forms of a block, each one once.
pub(super) fn block(explanation: &Explanation, name: &str) -> String {
    let mut text = header(explanation);
    for (index, program) in explanation.programs.iter().enumerate() {
        let Some((calls, report)) = program.blocks.iter().find(|(_, report)| report.name == name) else {
            continue;
        };
        text.push_str(&format!("\nblock {name}, {} in {}\n", count(*calls as usize, "call"), steps(program)));
        match same_form(explanation, index, name) {
            Some(before) => text.push_str(&format!(
                "the form of {}: {}, {}, {} µs\n",
                before.label(),
                count(report.chosen.kernels, "kernel"),
                bytes(report.chosen.bytes),
                micros(report.chosen.seconds)
            )),
            None => text.push_str(&form(report)),
        }
        for sentence in verdict(report, explanation.launch_us) {
            text.push_str(&sentence);
            text.push('\n');
        }
    }
    text
}

fn form(report: &BlockReport) -> String {
    let header = ["kernel", "class", "bytes", "GFLOP", "µs", "share"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(report.kernels.iter().enumerate().map(|(n, kernel)| row(n, kernel, report.chosen.seconds)));
    for (name, totals) in [("chosen", report.chosen), ("greedy", report.greedy), ("off", report.off)] {
        rows.push(total(name, &totals));
    }
    let lines = table(&rows);
    let mut text = String::new();
    for (n, line) in lines.lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        // Below each kernel where it comes from; the first line is the table's header.
        if let Some(kernel) = n.checked_sub(1).and_then(|n| report.kernels.get(n)) {
            text.push_str(&origin(kernel));
        }
    }
    text
}

fn row(n: usize, kernel: &KernelReport, whole: f64) -> Vec<String> {
    vec![
        format!("{} {}", n + 1, kernel.title()),
        kernel.class.name().to_owned(),
        bytes(kernel.bytes),
        gflop(kernel.flops),
        micros(kernel.seconds),
        share(kernel.seconds, whole),
    ]
}

fn total(name: &str, totals: &Totals) -> Vec<String> {
    vec![
        format!("{name}: {}", count(totals.kernels, "kernel")),
        String::new(),
        bytes(totals.bytes),
        gflop(totals.flops),
        micros(totals.seconds),
    ]
}

/// The operations that a kernel replaces, and the laws that led to it; nothing for an operation as it was lowered.
fn origin(kernel: &KernelReport) -> String {
    let mut text = String::new();
    if kernel.replaces.len() > 1 {
        text.push_str(&format!("    replaces {}\n", sum_of(&kernel.replaces)));
    }
    let mut line = String::from("    by");
    for (n, law) in kernel.laws.iter().enumerate() {
        let arrow = if n == 0 { " " } else { " → " };
        if line.chars().count() + arrow.chars().count() + law.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("      ");
        }
        line.push_str(arrow);
        line.push_str(law);
    }
    if !kernel.laws.is_empty() {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
