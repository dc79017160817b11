//! Options and numbers that ask for too much, too little or nothing.

use std::fs::File;
use std::process::Stdio;

use nemo_tests::commands::{Review, Room};

use super::BASELINE;

fn room() -> Room {
    let room = Room::new();
    room.artifact("hybrid", BASELINE);
    room.fixture("hybrid");
    room
}

/// After `nemort generate hybrid.nemo --weights hybrid`.
const GENERATE: [&str; 20] = [
    "--raw --prompt ''",
    "--tokens 1,2,512",
    "--tokens 4294967295",
    "--prompt Hello --max-new-tokens 0",
    "--prompt Hello --max-new-tokens 494",
    "--prompt Hello --max-new-tokens 600",
    "--prompt Hello --max-new-tokens 18446744073709551615",
    "--prompt Hello --max-context 0",
    "--prompt Hello --max-context 10",
    "--prompt Hello --max-context 30 --max-new-tokens 20",
    "--prompt Hello --max-context 513 --max-new-tokens 4",
    "--prompt Hello --max-context 18446744073709551615 --max-new-tokens 4",
    "--prompt Hello --max-seqs 0",
    "--prompt Hello --max-seqs 18446744073709551615",
    "--prompt Hello --temperature -1",
    "--prompt Hello --temperature nan",
    "--prompt Hello --temperature 1 --top-p 0",
    "--prompt Hello --temperature 1 --min-p 1.5",
    "--prompt Hello --temperature 1 --top-k 4294967295",
    "--prompt Hello --device cuda:0",
];

#[test]
fn requests_that_cannot_run() {
    let mut review = Review::default();
    let room = room();
    for options in GENERATE {
        let ran = room.fails(&format!("nemort generate hybrid.nemo --weights hybrid {options}"));
        review.line(&ran);
    }
    let long = vec!["1"; 513].join(",");
    let mut ran = room.fails(&format!("nemort generate hybrid.nemo --weights hybrid --tokens {long}"));
    ran.line = ran.line.replace(&long, "1,1,…");
    review.add("a prompt over the context", &ran);
    room.remove("hybrid/tokenizer.json");
    let ran = room.fails("nemort generate hybrid.nemo --weights hybrid --tokens 1,2 --stop x");
    review.add("a stop text without a tokenizer", &ran);
    insta::assert_snapshot!(review.text());
}

#[test]
fn measurements_that_cannot_run() {
    let mut review = Review::default();
    let room = room();
    let long = vec!["1"; 513].join(",");
    for options in [
        "--tokens 1,600 -o out.safetensors",
        "--tokens 1,2 -o nowhere/out.safetensors",
        "--tokens 1,2 -o hybrid",
        &format!("--tokens {long} -o out.safetensors"),
    ] {
        let mut ran = room.fails(&format!("nemort logits hybrid.nemo --weights hybrid {options}"));
        ran.line = ran.line.replace(&long, "1,1,…");
        review.line(&ran);
    }
    for options in [
        "--prompt 0",
        "--new 1",
        "--prompt 18446744073709551615",
        "--new 18446744073709551615",
        "--prompt 480 --new 34",
        "--seqs 0",
        "--seqs 3",
        "--seqs 18446744073709551615",
    ] {
        review.line(&room.fails(&format!("nemort bench hybrid.nemo --random-weights {options}")));
    }
    insta::assert_snapshot!(review.text());
}

#[test]
fn compilations_that_cannot_run() {
    let mut review = Review::default();
    let room = room();
    for options in [
        "hybrid --target host --max-seqs 0",
        "hybrid --target host --max-seqs 18446744073709551615",
        "hybrid --target host --chunk 0",
        "hybrid --target host --chunk 18446744073709551615",
        "hybrid --target host --chunk 7",
        "hybrid --target host --max-context 0",
        "hybrid --target host --max-context 2049",
        "hybrid --target host --weights-format q4",
        "hybrid --target x86-64-v3 -o nowhere/out.nemo",
        "hybrid --target x86-64-v3 -o nowhere/out.nemo --emit graph=out",
        "hybrid --target x86-64-v3 -o hybrid",
        "hybrid --target sm_75",
        "hybrid --target host,sm_999",
        "hybrid --target a10g",
        "hybrid --target sm_80",
        "hybrid --target SM_90",
        "hybrid --target x86-64-v2",
        "hybrid --target x86-64-v4+avx4096",
        "hybrid --target ''",
        "nemotron-nano-9b --target host",
        "nvidia/NVIDIA-Nemotron-Nano-9B-v2 --target host",
        "gpt-5 --target host",
        "'' --target host",
        "missing.toml --target host",
        "hybrid/config.json --target host",
        "hybrid.nemo --target host",
        ". --target host",
    ] {
        review.line(&room.fails(&format!("nemoc compile {options}")));
    }
    for line in [
        "nemoc import nowhere",
        "nemoc import hybrid/config.json",
        "nemoc import hybrid -o nowhere/model.toml",
        "nemoc check nowhere.toml",
        "nemoc check hybrid",
        "nemoc inspect nowhere.nemo",
        "nemoc inspect hybrid/config.json",
    ] {
        review.line(&room.fails(line));
    }
    insta::assert_snapshot!(review.text());
}

/// What is no command line at all: exit 2, and how to get help.
#[test]
fn misused_options() {
    let mut review = Review::default();
    let room = room();
    for line in [
        "nemort generate hybrid.nemo --weights hybrid --tokens 1,-2",
        "nemort generate hybrid.nemo --weights hybrid --tokens one",
        "nemort generate hybrid.nemo --weights hybrid --tokens ''",
        "nemort generate hybrid.nemo --weights hybrid --tokens 4294967296",
        "nemort generate hybrid.nemo --weights hybrid --raw --tokens 1",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --threads 0",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --threads 18446744073709551615",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --max-new-tokens -1",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --max-new-tokens 18446744073709551616",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --seed -1",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --deadline soon",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --chat chat.json",
        "nemort generate hybrid.nemo --weights hybrid",
        "nemort generate hybrid.nemo --prompt Hello",
        "nemort generate hybrid.nemo --weights hybrid --prompt Hello --max-tokens 3",
        "nemort bench hybrid.nemo",
        "nemort bench hybrid.nemo --random-weights --repeat 0",
        "nemort logits hybrid.nemo --weights hybrid --tokens 1",
        "nemort run",
        "nemoc compile hybrid",
        "nemoc compile hybrid --target host --weights-format int3",
        "nemoc compile hybrid --target host --activations f16",
        "nemoc compile hybrid --target host --emit grap=out",
        "nemoc compile hybrid --target host --emit graph",
        "nemoc compile hybrid --target host --chunk -1",
        "nemoc compile hybrid --target host --fast",
        "nemoc build hybrid",
    ] {
        let ran = room.refuses(line, 2);
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{ran}");
        assert!(ran.stderr.ends_with("For more information, try '--help'.\n"), "{ran}");
        review.line(&ran);
    }
    insta::assert_snapshot!(review.text());
    for command in ["nemoc", "nemort", "nemoc compile", "nemort generate"] {
        assert!(room.succeeds(&format!("{command} --help")).contains("Usage:"), "{command}");
    }
    for command in ["nemoc", "nemort"] {
        assert!(room.succeeds(&format!("{command} --version")).starts_with(command));
        let ran = room.refuses(command, 2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("Commands:"), "{ran}");
    }
}

/// A full disk is an error; a reader that has gone is none.
#[test]
fn outputs_that_take_nothing() {
    let mut review = Review::default();
    let room = room();
    let lines = [
        "nemort generate hybrid.nemo --weights hybrid --tokens 1,2 --max-new-tokens 40",
        "nemort generate hybrid.nemo --weights hybrid --tokens 1,2 --max-new-tokens 40 --json",
        "nemort verify hybrid.nemo",
        "nemoc models",
        "nemoc import hybrid",
        "nemoc inspect hybrid.nemo kernels/x86-64-v3.o",
    ];
    for line in lines {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let ran = room.run_into(line, full.into());
        assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{ran}");
        review.line(&ran);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = room.run_into(line, Stdio::from(writer));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    }
    insta::assert_snapshot!(review.text());
}
