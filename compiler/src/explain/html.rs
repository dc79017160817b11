//! One static page: what fusion did, with a picture of each block before and after.
//!
//! It loads nothing, and the same explanation gives the same bytes.

use std::fmt::Write;

use nemo_ir::graph::Block;
use nemo_ir::ops::Family;
use petgraph::graph::NodeIndex;

use super::drawing::{Drawing, drawing};
use super::svg::{Mark, escape, svg};
use super::words::{bytes, count, egraphs, gflop, micros, millis, per, share, steps, sum_of, verdict};
use super::{Replay, find, replaced, same_form};
use crate::fuse::{Explanation, ProgramReport};
use crate::saturate::BlockReport;

/// The whole page.
pub fn page(replay: &Replay) -> String {
    let Explanation { model, target, .. } = &replay.explanation;
    let title = escape(&format!("{model} for {target}"));
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}: fusion</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        include_str!("page.css")
    );
    text.push_str(&facts(&replay.explanation));
    text.push_str(&legend());
    for (index, program) in replay.explanation.programs.iter().enumerate() {
        add(&mut text, format_args!("<section>\n<h2>{}</h2>\n", escape(&steps(program))));
        text.push_str(&table(program));
        for (calls, block) in &program.blocks {
            text.push_str(&section(replay, index, *calls, block));
        }
        text.push_str("</section>\n");
    }
    add(&mut text, format_args!("<script>\n{}</script>\n</body>\n</html>\n", include_str!("page.js")));
    text
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

fn facts(explanation: &Explanation) -> String {
    let Explanation { device, launch_us, rules, numerics, .. } = explanation;
    let facts = [
        ("device", device.clone()),
        ("launch", format!("{launch_us} µs")),
        ("rules", rules.name().to_owned()),
        ("numerics", numerics.name().to_owned()),
    ];
    let items = facts.map(|(name, value)| format!("<li>{name} <b>{}</b></li>\n", escape(&value)));
    format!(
        "<p>Which kernels each block became, by which laws, and what that saves as the cost model predicts it.</p>\n\
         <ul class=\"facts\">\n{}</ul>\n",
        items.concat()
    )
}

fn legend() -> String {
    let families = Family::ALL.map(|family| {
        let name = family.name();
        format!("<span><i class=\"{name}\"></i>{name}</span>\n")
    });
    format!(
        "<div class=\"legend\">\n{}<span>dashed box: a view, no kernel</span>\n<span>@ weight</span>\n\
         <span>&amp; state, ⟳ written in place</span>\n<span>a number: the fused kernel that an op goes into</span>\n\
         </div>\n<svg class=\"definitions\" aria-hidden=\"true\"><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" \
         refY=\"4\" markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#77818c\"/>\
         </marker></defs></svg>\n",
        families.concat()
    )
}

/// The summary of a program.
fn table(program: &ProgramReport) -> String {
    let mut text =
        "<table>\n<tr><th>block</th><th class=\"n\">calls</th><th class=\"n\">kernels off → greedy → chosen\
                    </th><th class=\"n\">bytes</th><th class=\"n\">µs off</th><th class=\"n\">greedy</th>\
                    <th class=\"n\">chosen</th></tr>\n"
            .to_owned();
    for (calls, block) in &program.blocks {
        let kernels = [block.off.kernels, block.greedy.kernels, block.chosen.kernels];
        let seconds = [block.off.seconds, block.greedy.seconds, block.chosen.seconds];
        text.push_str(&row("", &block.name, *calls, kernels, block.chosen.bytes, seconds));
    }
    let totals = program.totals();
    let calls = program.blocks.iter().map(|(calls, _)| calls).sum();
    let kernels = [totals.off.kernels, totals.greedy.kernels, totals.chosen.kernels];
    let seconds = [totals.off.seconds, totals.greedy.seconds, totals.chosen.seconds];
    text.push_str(&row(" class=\"sum\"", "all calls", calls, kernels, totals.chosen.bytes, seconds));
    // A page about one block says so little of the whole step that it must not look like it.
    let scope = if program.blocks.len() == 1 { " in all calls of this block" } else { "" };
    add(
        &mut text,
        format_args!(
            "</table>\n<p><b>{} a {}</b>{scope}, predicted <b>{} ms</b>. {}.</p>\n",
            count(totals.chosen.kernels, "kernel"),
            per(program.phase),
            millis(totals.chosen.seconds),
            escape(&egraphs(program))
        ),
    );
    text
}

fn row(class: &str, name: &str, calls: u64, kernels: [usize; 3], moved: u64, seconds: [f64; 3]) -> String {
    let [off, greedy, chosen] = kernels;
    let name = escape(name);
    let times = seconds.map(|seconds| format!("<td class=\"n\">{}</td>", micros(seconds)));
    format!(
        "<tr{class}><td>{name}</td><td class=\"n\">{calls}</td><td class=\"n\">{off} → {greedy} → {chosen}</td>\
         <td class=\"n\">{}</td>{}</tr>\n",
        bytes(moved),
        times.concat()
    )
}

/// One block of one program.
fn section(replay: &Replay, index: usize, calls: u64, report: &BlockReport) -> String {
    let explanation = &replay.explanation;
    let program = &explanation.programs[index];
    let name = escape(&report.name);
    let mut text = format!("<h3><code>{name}</code>, {}</h3>\n", count(calls as usize, "call"));
    if let Some(before) = same_form(explanation, index, &report.name) {
        add(&mut text, format_args!("<p>The form of {}.</p>\n", escape(&before.label())));
    } else {
        let before = replay.before(program.phase, &report.name);
        if let (Some(before), Some(after)) = (before, find(&replay.fused[index], &report.name)) {
            let id = format!("{}-{}", program.label(), report.name);
            text.push_str(&pictures(&id, report, before, after));
        }
    }
    text.push_str(&kernels(report));
    for sentence in verdict(report, explanation.launch_us) {
        add(&mut text, format_args!("<p>{}</p>\n", escape(&sentence)));
    }
    text
}

/// The block before and after, side by side.
fn pictures(id: &str, report: &BlockReport, before: &Block, after: &Block) -> String {
    let name = &report.name;
    let op_id = |node: NodeIndex| format!("{}-{}", escape(id), node.index());
    let (left, right) = (drawing(before), drawing(after));
    let traced = replaced(before, after);
    let made_of = |node: NodeIndex| {
        traced.iter().find(|(fused, _)| *fused == node).map_or(&[][..], |(_, made)| &made[..])
    };
    let numbers = numbers(report, after, &right);
    let before_marks = left.boxes.iter().map(|drawn| {
        let Some(node) = drawn.node else { return Mark::default() };
        let into = numbers.iter().filter(|(fused, _)| made_of(*fused).contains(&node));
        Mark {
            id: Some(op_id(node)),
            numbers: into.map(|(_, kernel)| kernel + 1).collect(),
            ..Mark::default()
        }
    });
    let after_marks = right.boxes.iter().map(|drawn| {
        let Some(node) = drawn.node else { return Mark::default() };
        let stands_for = made_of(node).iter().map(|node| op_id(*node)).collect();
        let Some((_, kernel)) = numbers.iter().find(|(fused, _)| *fused == node) else {
            return Mark { stands_for, ..Mark::default() };
        };
        let costs = report.kernels.get(*kernel).map(|kernel| {
            format!("{} µs, {}", micros(kernel.seconds), share(kernel.seconds, report.chosen.seconds))
        });
        Mark { stands_for, numbers: vec![kernel + 1], costs, ..Mark::default() }
    });
    let figure = |class: &str, word: &str, kernels: usize, drawing: &Drawing, marks: Vec<Mark>| {
        format!(
            "<figure class=\"{class}\"><figcaption>{word}: {}</figcaption>\n{}</figure>\n",
            count(kernels, "kernel"),
            svg(drawing, &marks, &format!("block {name} {word}"))
        )
    };
    format!(
        "<div class=\"replay\">\n{}{}</div>\n",
        figure("before", "as lowered", report.off.kernels, &left, before_marks.collect()),
        figure("after", "as chosen", report.chosen.kernels, &right, after_marks.collect())
    )
}

/// For each kernel of the fused block, in order, its node and its index in the report.
fn numbers(report: &BlockReport, after: &Block, right: &Drawing) -> Vec<(NodeIndex, usize)> {
    let mut left: Vec<usize> = (0..report.kernels.len()).collect();
    let mut numbers = Vec::new();
    for node in right.boxes.iter().filter_map(|drawn| drawn.node) {
        let nemo_ir::graph::Node::Op { op, .. } = &after.graph[node] else { continue };
        // Both lists are orders of one graph; equal ops that may change places cost the same.
        if let Some(place) = left.iter().position(|kernel| report.kernels[*kernel].op == op.name) {
            numbers.push((node, left.remove(place)));
        }
    }
    numbers
}

fn kernels(report: &BlockReport) -> String {
    let mut text = "<table>\n<tr><th class=\"n\">#</th><th>kernel</th><th>replaces</th><th>laws, in order</th><th>class</th>\
                    <th class=\"n\">bytes</th><th class=\"n\">GFLOP</th><th class=\"n\">µs</th><th class=\"n\">share</th></tr>\n"
        .to_owned();
    for (n, kernel) in report.kernels.iter().enumerate() {
        let laws = kernel.laws.iter().map(|law| escape(law)).collect::<Vec<_>>().join(" → ");
        add(
            &mut text,
            format_args!(
                "<tr><td class=\"n\">{}</td><td><code>{}</code>{}</td><td>{}</td><td class=\"chain\">{laws}</td><td>{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                n + 1,
                escape(&kernel.op),
                kernel.form.map_or_else(String::new, |form| format!(", {form}")),
                if kernel.replaces.len() > 1 { escape(&sum_of(&kernel.replaces)) } else { String::new() },
                kernel.class.name(),
                bytes(kernel.bytes),
                gflop(kernel.flops),
                micros(kernel.seconds),
                share(kernel.seconds, report.chosen.seconds)
            ),
        );
    }
    text.push_str("</table>\n");
    text
}
