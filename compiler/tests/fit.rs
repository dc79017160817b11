//! `nemoc fit`: tables, verdicts, JSON and errors, as a user gets them.

mod common;

use std::fs;
use std::process::Command;

use nemo_models::Model;
use nemoc::device::Device;
use nemoc::fit::{FitOptions, fit};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with the tiny model, a device of 1 MB, and a wrong one.
fn scratch() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), common::TINY).unwrap();
    let small = Device { memory_bytes: Some(1_000_000), ..Device::builtin("x86-64-v3").unwrap() };
    fs::write(dir.path().join("small.toml"), Device { name: "small".to_owned(), ..small }.to_toml()).unwrap();
    fs::write(dir.path().join("wrong.toml"), "name = \"wrong\"\nunits = -1\n").unwrap();
    dir
}

/// Exit code, standard output and standard error of a command.
fn nemoc(dir: &TempDir, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemoc"));
    let output = command.current_dir(dir.path()).args(line.split(' ')).output().expect("nemoc starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What commands said, for a snapshot.
fn review(lines: &[&str]) -> String {
    let dir = scratch();
    let mut said = String::new();
    for line in lines {
        let (code, stdout, stderr) = nemoc(&dir, line);
        said.push_str(&format!("$ nemoc {line}\n{stdout}{stderr}[exit {}]\n\n", code.unwrap()));
        let error = stderr.lines().count();
        assert_eq!((code, error), if error == 0 { (Some(0), 0) } else { (Some(1), 1) }, "{said}");
    }
    said
}

#[test]
fn tables_and_verdicts() {
    insta::assert_snapshot!(review(&[
        "fit nemotron-nano-12b-v2 --device a10g",
        "fit nemotron-nano-9b-v2 --device a10g --context 131072 --reserve 2.4",
        "fit llama-3.3-nemotron-super-49b-v1 --device h100",
        "fit llama-3.1-nemotron-ultra-253b-v1 --device h100",
        "fit llama-3.1-nemotron-ultra-253b-v1 --device a10g --reserve 22",
        "fit nemotron-nano-12b-v2 --device h200 --seqs 32 --context 65 --chunk 64",
        "fit tiny.toml --device small.toml --chunk 16 --context 64",
        "fit tiny.toml --device small.toml --chunk 2048",
    ]));
}

#[test]
fn json_says_the_same() {
    insta::assert_snapshot!(review(&[
        "fit nemotron-nano-12b-v2 --device a10g --context 4096 --reserve 1.3 --json",
        "fit nemotron-nano-9b-v2 --device h100 --seqs 4 --json",
    ]));
}

#[test]
fn absurd_questions_get_one_sentence() {
    insta::assert_snapshot!(review(&[
        "fit tiny.toml --device a10",
        "fit tiny.toml --device tpu",
        "fit tiny.toml --device wrong.toml",
        "fit tiny.toml --device absent.toml",
        "fit tinny --device a10g",
        "fit tiny.toml --device a10g --context 0",
        "fit tiny.toml --device a10g --context 257",
        "fit tiny.toml --device a10g --seqs 0",
        "fit tiny.toml --device a10g --seqs 257",
        "fit tiny.toml --device a10g --seqs 16 --chunk 8",
        "fit tiny.toml --device a10g --chunk 9000",
        "fit tiny.toml --device a10g --reserve -1",
        "fit tiny.toml --device a10g --reserve NaN",
        "fit tiny.toml --device a10g --reserve inf",
        "fit tiny.toml --device a10g --reserve 1e300",
    ]));
}

#[test]
fn wrong_usage_exits_with_2() {
    let dir = scratch();
    for (line, wanted) in [
        ("fit tiny.toml", "--device"),
        ("fit tiny.toml --device a10g --seqs -1", "no whole number"),
        ("fit tiny.toml --device a10g --context many", "no whole number"),
        ("fit tiny.toml --device a10g --reserve much", "invalid float"),
    ] {
        let (code, stdout, stderr) = nemoc(&dir, line);
        assert!(code == Some(2) && stdout.is_empty() && stderr.contains(wanted), "{line}: {stderr}");
    }
}

#[test]
fn host_is_this_machine() {
    let dir = scratch();
    let (code, stdout, stderr) = nemoc(&dir, "fit tiny.toml --device host --json");
    if Device::host().is_ok() {
        assert_eq!(code, Some(0), "{stderr}");
        let json: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(json["device"], "host");
        assert_eq!(json["memory_bytes"].as_u64(), nemoc::device::machine_memory());
    }
}

#[test]
fn a_device_without_memory_has_the_machines() {
    let (model, device) = (common::tiny(), Device::builtin("x86-64-v4").unwrap());
    let answer = |machine| fit(&model, &device, FitOptions::default(), machine);
    assert_eq!(answer(Some(5)).unwrap().memory, 5);
    let said = answer(None).unwrap_err().to_string();
    assert!(said.starts_with("device `x86-64-v4` does not say how much memory it has"), "{said}");
}

#[test]
fn caches_are_those_of_the_counts() {
    let device = Device::builtin("h200").unwrap();
    for name in nemo_models::builtin_names() {
        let model = Model::builtin(name).unwrap();
        let counts = model.counts();
        let options = FitOptions { seqs: 3, context: Some(1000), ..FitOptions::default() };
        let need = fit(&model, &device, options, None).unwrap().need;
        assert_eq!(need.weights, counts.bytes, "{name}");
        assert_eq!(need.kv, counts.kv_bytes_per_token * 1024 * 3, "{name}");
        assert_eq!(need.state, (counts.ssm_state_bytes + counts.conv_state_bytes) * 3, "{name}");
    }
}

proptest! {
    #[test]
    fn more_devices_hold_more(model in common::any_model(), seqs in 1u64..8, memory in 1u64..1 << 24) {
        let device = Device { memory_bytes: Some(memory), ..Device::builtin("a10g").unwrap() };
        let options = FitOptions { seqs, ..FitOptions::default() };
        let answer = fit(&model, &device, options, None).unwrap();
        prop_assert_eq!(answer.fits(), answer.devices == Some(1));
        match answer.devices {
            Some(devices) => {
                prop_assert!(answer.need.on_each_of(devices) <= memory);
                prop_assert!(devices == 1 || answer.need.on_each_of(devices / 2) > memory);
            }
            None => prop_assert!(answer.need.on_each_of(64) > memory),
        }
    }
}
