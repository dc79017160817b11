//! `nemort bench` and `nemort verify`.

use nemo_tests::commands::Room;
use nemo_tests::golden::folder;
use serde_json::Value;

use super::{BASELINE, TARGETS};

#[test]
fn bench_reports_speeds() {
    let room = Room::new();
    room.artifact("llama", TARGETS);
    let weights = format!("--weights '{}'", folder("llama").display());
    let size = "--prompt 70 --new 5 --seqs 2 --repeat 1";
    for (source, more) in [("--random-weights", ""), (weights.as_str(), "--profile --threads 1")] {
        let found = room.json(&format!("nemort bench llama.nemo {source} {size} {more} --json"));
        for field in [
            "prefill_tok_s",
            "decode_tok_s",
            "decode_gb_s",
            "read_bandwidth_gb_s",
            "bytes_per_token",
            "flops_per_token",
            "prefill_gflop_s",
            "peak_rss",
        ] {
            assert!(found[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {found}");
        }
        assert_eq!((&found["prompt"], &found["new"], &found["seqs"]), (&70.into(), &5.into(), &2.into()));
        let profiled = found["profile"].as_array().is_some_and(|profile| !profile.is_empty());
        assert_eq!(profiled, more.contains("--profile"), "{found}");
    }
    let table = room.succeeds(&format!("nemort bench llama.nemo --random-weights {size} --profile"));
    for word in ["prefill", "decode", "tok/s", "GB/s", "in kernels"] {
        assert!(table.contains(word), "{word}:\n{table}");
    }
}

#[test]
fn a_token_moves_the_weights_and_the_state_once() {
    let room = Room::new();
    room.artifact("llama", BASELINE);
    let bytes = |seqs: u32| {
        let found = room.json(&format!(
            "nemort bench llama.nemo --random-weights --prompt 20 --new 2 --repeat 1 --seqs {seqs} --json"
        ));
        let number = |field: &str| found.get(field).and_then(Value::as_f64).expect("a number");
        (number("bytes_per_token"), number("weights_bytes"))
    };
    let (one, weights) = bytes(1);
    let (two, _) = bytes(2);
    assert!(one <= 1.2 * weights, "{one} bytes a token, {weights} of weights");
    assert!(two < one && two > one / 2.0, "{one} alone, {two} together");
}

#[test]
fn verify_says_what_fits() {
    let room = Room::new();
    room.artifact("nas", BASELINE);
    room.fixture("nas");
    let alone = room.succeeds("nemort verify nas.nemo");
    let with = room.succeeds("nemort verify nas.nemo --weights nas");
    assert!(alone.contains("digests right") && !alone.contains("tensors"), "{alone}");
    assert!(with.contains("tensors") && with.contains("tokenizer fits"), "{with}");
    assert!(with.contains("would run x86-64-v3"), "{with}");
    room.remove("nas/tokenizer.json");
    let bare = room.succeeds("nemort verify nas.nemo --weights nas");
    assert!(!bare.contains("tokenizer fits"), "{bare}");
}
