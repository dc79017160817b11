//! `nemoc explain` as a user runs it, and the page that it writes.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nemo_ir::artifact::{Contents, Needs, TargetContents, to_bytes};
use nemo_ir::graph::Node;
use nemo_ir::types::Dtype;
use nemo_kernels::target::Target;
use nemo_models::{Model, builtin_names};
use nemoc::explain::{Replay, html, replaced};
use nemoc::fuse::Explanation;
use nemoc::{CompileOptions, PlannedModel, plan_for};
use tempfile::TempDir;

const TARGET: &str = "x86-64-v3";

fn planned(model: &Model, target: &str) -> PlannedModel {
    let options = CompileOptions::new(vec![Target::parse(target).unwrap()]);
    plan_for(model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// An artifact of the tiny model without machine code, which explaining it does not need.
fn artifact(explained: bool, edit: fn(String) -> String) -> Vec<u8> {
    let model = common::tiny();
    let planned = planned(&model, TARGET);
    let target = &planned.targets[0];
    let fused = target.programs.iter().map(|ranged| (ranged.label(), edit(ranged.program.to_string())));
    to_bytes(&Contents {
        model: model.name.clone(),
        compiler: "test".to_owned(),
        weights: Dtype::Bf16,
        activations: planned.activations,
        model_toml: model.to_toml(),
        targets: vec![TargetContents {
            name: TARGET.to_owned(),
            needs: Needs::Host { cpu_features: Vec::new() },
            cubin: None,
            plan: target.planned.plan.clone(),
            object: vec![0],
            fused: fused.collect(),
            explain: explained.then(|| serde_json::to_string_pretty(&target.explanation).unwrap()),
        }],
    })
    .unwrap()
}

/// A directory with the tiny model, an artifact of it, and files that are neither.
fn scratch() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("tiny.toml", common::TINY.as_bytes());
    write("tiny.nemo", &artifact(true, |text| text));
    write("silent.nemo", &artifact(false, |text| text));
    write(
        "other.nemo",
        &artifact(true, |text| text.replace("block feed(", "block fed(").replace(" feed 1", " fed 1")),
    );
    write("wrong.nemo", &artifact(true, |text| text.replace("return x = ", "return y = ")));
    write("text.nemo", b"text");
    write("noise", &[0xff, 0xfe, 0]);
    dir
}

fn run(dir: &Path, line: &str) -> Output {
    let nemoc = env!("CARGO_BIN_EXE_nemoc");
    Command::new(nemoc).current_dir(dir).args(line.split(' ')).output().expect("nemoc starts")
}

fn succeeds(dir: &Path, line: &str) -> String {
    let output = run(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn summaries() {
    let dir = scratch();
    insta::assert_snapshot!("summary_tiny", succeeds(dir.path(), "explain tiny.toml --target sm_86"));
    let nano = succeeds(dir.path(), "explain nemotron-nano-9b-v2 --target sm_86");
    insta::assert_snapshot!("summary_nano", nano);
    let line =
        nano.lines().find(|line| line.contains(" kernels a token")).expect("the first program is decode");
    let kernels: usize = line.split(' ').next().unwrap().parse().unwrap();
    assert!(kernels <= 173 && line.contains("(off 378, "), "{line}");
}

#[test]
fn blocks() {
    let dir = scratch();
    insta::assert_snapshot!("block_tiny", succeeds(dir.path(), "explain tiny.toml both --target sm_86"));
    insta::assert_snapshot!(
        "block_scan",
        succeeds(dir.path(), "explain tiny.toml scan --target sm_90 --max-seqs 1")
    );
}

#[test]
fn an_artifact_says_what_its_model_says() {
    let dir = scratch();
    for rest in ["", " both", " --json", " feed --json"] {
        let of_artifact = succeeds(dir.path(), &format!("explain tiny.nemo{rest}"));
        let of_model = succeeds(dir.path(), &format!("explain tiny.toml{rest} --target {TARGET}"));
        assert_eq!(of_artifact, of_model, "{rest}");
    }
    let target = format!("explain tiny.nemo --target {TARGET}");
    assert_eq!(succeeds(dir.path(), &target), succeeds(dir.path(), "explain tiny.nemo"));
    let page = |line: &str| {
        assert_eq!(succeeds(dir.path(), line), "");
        fs::read_to_string(dir.path().join("page.html")).unwrap()
    };
    let of_artifact = page("explain tiny.nemo --html page.html");
    assert_eq!(of_artifact, page(&format!("explain tiny.toml --target {TARGET} --html page.html")));
}

#[test]
fn json_is_the_explanation() {
    let dir = scratch();
    let json = succeeds(dir.path(), "explain tiny.toml --target sm_86 --json");
    let read: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(read, planned(&common::tiny(), "sm_86").targets[0].explanation);
    let json = succeeds(dir.path(), "explain tiny.toml scan --target sm_86 --json");
    let one: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(one.programs.len(), read.programs.len());
    assert!(
        one.programs.iter().all(|program| program.blocks.len() == 1 && program.blocks[0].1.name == "scan")
    );
}

#[test]
fn the_plan_launches_what_is_explained() {
    let dir = scratch();
    let planned = planned(&common::tiny(), TARGET);
    let totals = planned.targets[0].explanation.programs[0].totals();
    let inspected = succeeds(dir.path(), "inspect tiny.nemo");
    let wanted = format!("{} a token in decode of 1 sequence", totals.chosen.kernels);
    assert!(inspected.contains(&wanted), "{wanted}\n{inspected}");
}

#[test]
fn errors() {
    let dir = scratch();
    let mut review = String::new();
    for line in [
        "explain tiny.toml nothing --target x86-64-v3",
        "explain tiny.nemo nothing",
        "explain tiny.nemo --rules off",
        "explain tiny.nemo --max-seqs 4 --chunk 64",
        "explain tiny.nemo --device a10g",
        "explain tiny.nemo --target sm_86",
        "explain tiny.toml --target arm",
        "explain silent.nemo",
        "explain other.nemo",
        "explain wrong.nemo",
        "explain text.nemo",
        "explain absent.nemo",
        "explain noise",
        "explain nothing",
        "explain tiny.toml --target sm_86 --device h100",
        "explain tiny.toml --target sm_86 --html no/such/page.html",
    ] {
        let output = run(dir.path(), line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(output.stdout.is_empty() && said.trim_end().lines().count() == 1, "{line}: {said}");
        review.push_str(&format!("$ nemoc {line}\n{said}\n"));
    }
    insta::assert_snapshot!(review.trim_end());
}

fn replay(model: &Model, target: &str) -> Replay {
    let PlannedModel { programs, mut targets, .. } = planned(model, target);
    let target = targets.remove(0);
    let fused = target.programs.into_iter().map(|ranged| ranged.program).collect();
    Replay::new(target.explanation, programs, fused).unwrap()
}

#[test]
fn every_op_goes_into_the_kernels_that_say_so() {
    for (name, target) in builtin_names().into_iter().flat_map(|name| [(name, "sm_86"), (name, "x86-64-v4")])
    {
        let replay = replay(&Model::builtin(name).unwrap(), target);
        for after in &replay.fused {
            let before = replay.lowered.iter().find(|program| program.phase == after.phase).unwrap();
            for (before, after) in before.blocks.iter().zip(&after.blocks) {
                let traced = replaced(before, after);
                for node in before.graph.node_indices() {
                    let Node::Op { op, .. } = &before.graph[node] else { continue };
                    let found = traced.iter().any(|(_, made)| made.contains(&node));
                    // A view may be gone: its reader finds the columns by layout.
                    assert!(found || op.name == "slice", "{name}, {}: {}", before.name, op.name);
                }
            }
        }
    }
}

/// The names of elements in the order of their ends.
///
/// # Panics
/// When tags do not balance, or text has what must be escaped.
fn well_formed(page: &str) -> Vec<String> {
    let (mut open, mut closed): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document");
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        let raw = open.last().is_some_and(|name| ["style", "script"].contains(name));
        assert!(raw || !text.contains('>'), "{text}");
        for entity in text.split('&').skip(1).filter(|_| !raw) {
            let name = entity.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "&{name}");
        }
        let end = rest[start..].find('>').expect("a tag ends") + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
            closed.push(name.to_owned());
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).next().unwrap();
        if !tag.ends_with('/') && name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    closed
}

#[test]
fn pages_are_whole_and_repeat() {
    let nano = Model::builtin("nemotron-nano-9b-v2").unwrap();
    for (model, target) in [(common::tiny(), "sm_86"), (common::tiny(), TARGET), (nano, "sm_90")] {
        let shown = replay(&model, target);
        let page = html::page(&shown);
        assert_eq!(page, html::page(&replay(&model, target)));
        let elements = well_formed(&page);
        assert!(elements.iter().filter(|name| *name == "svg").count() > 2 * shown.fused[0].blocks.len());
        for outside in ["http", "src=", "href=", "@import", "url(h"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for (_, block) in shown.explanation.programs.iter().flat_map(|program| &program.blocks) {
            assert!(page.contains(&format!("<h3><code>{}</code>", block.name)), "{}", block.name);
            for law in block.kernels.iter().flat_map(|kernel| &kernel.laws) {
                assert!(page.contains(law.as_str()), "{law}");
            }
        }
        let values = |attribute: &str| -> Vec<&str> {
            page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
        };
        let ids = values(" id=\"");
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len());
        let referred = values(" data-ops=\"");
        assert!(!referred.is_empty());
        assert!(referred.iter().flat_map(|ops| ops.split(' ')).all(|op| unique.contains(op)));
    }
}

#[test]
fn names_are_escaped() {
    let mut model = common::tiny();
    model.name = "<script>alert(1)</script> & \"co\"".to_owned();
    let page = html::page(&replay(&model, "sm_86"));
    well_formed(&page);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"));
}
