//! `nemoc calibrate`: what it writes is a device; how fast the machine is, is not tested.

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nemo_kernels::target::HostTarget;
use nemoc::device::{Device, Kind, machine_memory};

fn nemoc(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nemoc")).current_dir(dir).args(args).output().expect("nemoc starts")
}

#[test]
fn what_is_written_is_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let output = nemoc(dir.path(), &["calibrate", "--threads", "1", "--write", "mine.toml"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let Ok(host) = HostTarget::detect() else {
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        return;
    };
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    let text = fs::read_to_string(dir.path().join("mine.toml")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    // Reading it checks that every figure is finite and above 0.
    let device = Device::read(&dir.path().join("mine.toml")).unwrap();
    let level = Device::for_target(host.level().name()).unwrap();
    assert_eq!((device.name.as_str(), device.kind, device.units), ("calibrated", Kind::Cpu, 1));
    assert_eq!((&device.target, device.efficiency), (&level.target, level.efficiency));
    assert_eq!(device.memory_bytes, machine_memory());
    for figure in ["bandwidth_gb_s", "cache_bandwidth_gb_s", "f32", "vector_gflop_s", "launch_us"] {
        let line = text.lines().find(|line| line.starts_with(figure)).unwrap();
        assert!(line.contains("; 9 rounds, ") && line.contains(" to "), "{line}");
    }
    let output = nemoc(dir.path(), &["fit", "qwen3-8b", "--device", "mine.toml", "--json"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"device\": \"calibrated\""));
}

#[test]
fn errors_are_one_sentence_and_measure_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (args, wanted) in [
        (["--threads", "0"], "error: --threads is 0; it must be 1 to "),
        (["--threads", "1000000"], "error: --threads is 1000000; it must be 1 to "),
        (["--write", "no/such/dir.toml"], "error: cannot write `no/such/dir.toml`: "),
    ] {
        let output = nemoc(dir.path(), &[&["calibrate"], &args[..]].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{args:?}: {stderr}");
        assert!(stderr.starts_with(wanted) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}
