//! The command, as a user runs it.

use std::process::{Command, Output};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ptx/reduce.ptx");

fn ptx_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptx-sim")).args(arguments).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn lists_kernels() {
    let output = ptx_sim(&[FILE]);
    assert!(output.status.success());
    let listing = text(&output.stdout);
    assert!(listing.starts_with("PTX 7.1 for sm_86"), "{listing}");
    assert!(listing.contains("param reduce_param_2: 4 bytes at 16"), "{listing}");
    assert!(listing.contains("8 fma.rn.f32"), "{listing}");
    let json: serde_json::Value = serde_json::from_slice(&ptx_sim(&[FILE, "--json"]).stdout).expect("JSON");
    assert_eq!(json["kernels"][1]["static_shared_bytes"], 1024);
}

#[test]
fn runs_a_kernel() {
    let arguments = [
        FILE,
        "--kernel",
        "reduce",
        "--block",
        "128",
        "--param",
        "buf=4096:random:3",
        "--param",
        "buf=2",
        "--param",
        "u32=2",
    ];
    let output = ptx_sim(&[&arguments[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["unique_load_sectors"], 128);
    assert_eq!(json["thread_instructions"]["fma"], 2 * 8 * 128);
    let table = ptx_sim(&arguments);
    assert!(
        text(&table.stdout)
            .lines()
            .any(|line| { line.split_whitespace().eq(["unique_load_sectors", "128"]) })
    );
}

#[test]
fn errors_are_one_sentence() {
    let fails = |arguments: &[&str], code: i32, part: &str| {
        let output = ptx_sim(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(part), "{message}");
        if code == 1 {
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    };
    fails(&["/nowhere.ptx"], 1, "cannot read /nowhere.ptx");
    fails(&[FILE, "--kernel", "other"], 1, "it has: saxpy, reduce");
    fails(&[FILE, "--kernel", "saxpy"], 1, "takes 4 parameters, 0 are given");
    let out_of_bounds = ["--param", "buf=16:zero", "--param", "buf=2", "--param", "u32=2"];
    fails(&[&[FILE, "--kernel", "reduce"], &out_of_bounds[..]].concat(), 1, "lane 1, thread (1, 0, 0), line");
    fails(&[FILE, "--grid", "1"], 2, "--kernel");
    fails(&[FILE, "--kernel", "saxpy", "--param", "f64=1"], 2, "none of u32");
}
