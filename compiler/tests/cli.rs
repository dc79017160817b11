//! The command as a user runs it.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemoc"));
    command.current_dir(dir).args(args);
    command
}

fn nemoc(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("nemoc starts")
}

/// A directory with the tiny model in `tiny.toml`.
fn scratch() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tiny.toml"), common::TINY).unwrap();
    dir
}

fn succeeds(dir: &Path, args: &[&str]) -> String {
    let output = nemoc(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a command that must exit with 1 and print nothing else.
fn fails(dir: &Path, args: &[&str]) -> String {
    let output = nemoc(dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn errors_are_one_sentence_and_exit_with_1() {
    let dir = scratch();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("text.nemo"), "text").unwrap();
    let tiny = |rest: &[&'static str]| [&["compile", "tiny.toml", "--target", "x86-64-v3"], rest].concat();
    let cases: &[(Vec<&str>, &str)] = &[
        (
            vec!["compile", "nemotron-nano-9b", "--target", "host"],
            "did you mean one of `nemotron-nano-9b-v2`,",
        ),
        (vec!["compile", "Qwen/Qwen3-8B", "--target", "host"], "did you mean `qwen3-8b`?"),
        (
            vec!["compile", "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "--target", "host"],
            "did you mean `llama-3.3-nemotron-super-49b-v1.5`?",
        ),
        (vec!["compile", "qwen3-8bb", "--target", "host"], "did you mean `qwen3-8b`?"),
        (vec!["compile", "gpt", "--target", "host"], "built in are `nemotron-nano-9b-v2`, "),
        (vec!["compile", "absent.toml", "--target", "host"], "cannot read `absent.toml`: "),
        (
            vec!["compile", "empty", "--target", "host"],
            "directory `empty` is no checkpoint: it has no config.json",
        ),
        (
            vec!["compile", "tiny.toml", "--target", "sm_75"],
            "there is no target `sm_75`; there are x86-64-v3",
        ),
        (vec!["compile", "tiny.toml", "--target", "x86-64-v3,sm_999"], "there is no target `sm_999`"),
        (tiny(&["--cubin"]), "--cubin is for GPU targets, and the targets are x86-64-v3"),
        (vec!["compile", "tiny.toml", "--target", "arm"], "there is no target `arm`; there are x86-64-v3"),
        (vec!["compile", "tiny.toml", "--target", "host,"], "--target names no target"),
        (vec!["compile", "", "--target", "host"], "MODEL is empty"),
        (
            tiny(&["--weights-format", "q4"]),
            "--weights-format q4 is not available in this version; `stored` is",
        ),
        (tiny(&["--device", "nowhere"]), "there is no device `nowhere`"),
        (tiny(&["--device", "tiny.toml"]), "device file `tiny.toml`, line "),
        (tiny(&["--device", "a10g"]), "device `a10g` runs target sm_86, and the targets are x86-64-v3"),
        (tiny(&["--max-seqs", "1000"]), "--max-seqs is 1000; it must be 1 to 256"),
        (tiny(&["--chunk", "0"]), "--chunk is 0; it must be 1 to 8192"),
        (tiny(&["--max-context", "512"]), "--max-context is 512; it must be 1 to 256, the context of `tiny`"),
        (tiny(&["--chunk", "4"]), "--chunk is 4; it must be at least --max-seqs, which is 8"),
        (tiny(&["-o", "no/such/dir.nemo"]), "cannot write `no/such/dir.nemo`: "),
        // Found before anything is written.
        (tiny(&["-o", "no/such/dir.nemo", "--emit", "graph=emitted"]), "cannot write `no/such/dir.nemo`: "),
        (tiny(&["--quiet", "--emit", "graph=tiny.toml"]), "cannot create directory `tiny.toml/graph`: "),
        (vec!["check", "absent.toml"], "cannot read `absent.toml`: "),
        (vec!["import", "empty"], "directory `empty` is no checkpoint: it has no config.json"),
        (vec!["inspect", "text.nemo"], "`text.nemo` is not a nemoc artifact"),
        (vec!["inspect", "absent.nemo"], "cannot read artifact `absent.nemo`: "),
    ];
    for (args, wanted) in cases {
        let message = fails(dir.path(), args);
        assert!(message.starts_with("error: ") && message.contains(wanted), "{args:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{args:?}: {message}");
    }
    assert!(!dir.path().join("emitted").exists());
}

#[test]
fn wrong_usage_exits_with_2() {
    let dir = scratch();
    let cases: &[(&[&str], &str)] = &[
        (&["compile", "tiny.toml"], "--target"),
        (
            &["compile", "tiny.toml", "--target", "host", "--emit", "sass=x"],
            "there is no stage `sass`; there are graph, fused, plan, llvm, ptx, asm",
        ),
        (&["compile", "tiny.toml", "--target", "host", "--emit", "graph"], "expected STAGE[,STAGE]=DIR"),
        (&["compile", "tiny.toml", "--target", "host", "--activations", "f16"], "bf16, f32"),
        (&["compile", "tiny.toml", "--target", "host", "--weights-format", "q5"], "stored, q8, q4, fp8"),
        (&["compile", "tiny.toml", "--target", "host", "--rules", "some"], "off, greedy, saturate"),
        (&["compile", "tiny.toml", "--target", "host", "--numerics", "loose"], "exact, reassociate"),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (args, wanted) in cases {
        let output = nemoc(dir.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.contains(wanted), "{args:?}: {stderr}");
    }
}

#[test]
fn compile_then_inspect() {
    let dir = scratch();
    let args = [
        "compile",
        "tiny.toml",
        "--target",
        "x86-64-v3",
        "--max-context",
        "100",
        "--emit",
        "graph,fused,plan,llvm,asm=t",
    ];
    let output = nemoc(dir.path(), &args);
    assert!(output.status.success() && output.stdout.is_empty());
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.starts_with("wrote tiny.nemo for x86-64-v3: "), "{summary}");
    for file in [
        "graph/decode.txt",
        "graph/prefill.txt",
        "fused/x86-64-v3-decode-1-1.txt",
        "fused/x86-64-v3-prefill-1-512.txt",
        "plan/x86-64-v3.txt",
        "llvm/x86-64-v3.ll",
        "asm/x86-64-v3.s",
    ] {
        assert!(fs::metadata(dir.path().join("t").join(file)).unwrap().len() > 100, "{file}");
    }

    let summary = succeeds(dir.path(), &["inspect", "tiny.nemo"]);
    assert!(summary.contains("context 100, 8 sequences a step, 512 tokens a prefill step"), "{summary}");
    assert!(summary.contains("kernels/x86-64-v3.o"), "{summary}");
    let manifest = succeeds(dir.path(), &["inspect", "tiny.nemo", "manifest.json"]);
    assert_eq!(serde_json::from_str::<Value>(&manifest).unwrap()["model"], "tiny");
    let graph = succeeds(dir.path(), &["inspect", "tiny.nemo", "fused/x86-64-v3/decode-1-1.txt"]);
    assert_eq!(graph, fs::read_to_string(dir.path().join("t/fused/x86-64-v3-decode-1-1.txt")).unwrap());
    let missing = fails(dir.path(), &["inspect", "tiny.nemo", "nothing"]);
    assert!(missing.contains("has no entry `nothing`; it has "), "{missing}");
}

#[test]
fn one_artifact_for_a_cpu_and_two_gpus() {
    let dir = scratch();
    let args =
        ["compile", "tiny.toml", "--target", "sm_86,sm_90,x86-64-v3", "--emit", "fused,plan,ptx,asm=t"];
    let output = nemoc(dir.path(), &args);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{note}");
    assert!(note.contains("wrote tiny.nemo for sm_86, sm_90, x86-64-v3: "), "{note}");
    for file in
        ["fused/sm_86-decode-1-1.txt", "fused/sm_90-prefill-1-512.txt", "plan/sm_90.txt", "ptx/sm_90.ptx"]
    {
        assert!(fs::metadata(dir.path().join("t").join(file)).unwrap().len() > 100, "{file}");
    }
    // A CPU has no PTX, a GPU no assembly.
    assert!(!dir.path().join("t/ptx/x86-64-v3.ptx").exists() && !dir.path().join("t/asm/sm_86.s").exists());
    let ptx = fs::read_to_string(dir.path().join("t/ptx/sm_86.ptx")).unwrap();
    assert!(ptx.contains(".version 7.1\n.target sm_86\n"));
    assert_eq!(succeeds(dir.path(), &["inspect", "tiny.nemo", "kernels/sm_86.ptx"]), ptx);
    let summary = succeeds(dir.path(), &["inspect", "tiny.nemo"]);
    assert!(summary.contains("compute capability 8.6 or later, driver 525 or later (PTX 7.1)"), "{summary}");
    assert!(summary.contains("compute capability 9.0 alone, driver 525 or later (PTX 8.0)"), "{summary}");
}

#[test]
fn machine_code_needs_an_assembler() {
    let dir = scratch();
    let args = ["compile", "tiny.toml", "--target", "sm_86", "--cubin"];
    let output = command(dir.path(), &args).env("PATH", "").output().expect("nemoc runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: there is no `ptxas` on PATH, which --cubin needs"), "{message}");
    assert!(!dir.path().join("tiny.nemo").exists());
}

#[test]
fn quiet_says_nothing_and_files_repeat() {
    let dir = scratch();
    for out in ["a.nemo", "b.nemo"] {
        let output =
            nemoc(dir.path(), &["compile", "tiny.toml", "--target", "x86-64-v3", "--quiet", "-o", out]);
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert_eq!(fs::read(dir.path().join("a.nemo")).unwrap(), fs::read(dir.path().join("b.nemo")).unwrap());
}

#[test]
fn check_shows_the_line_and_a_caret() {
    let dir = scratch();
    assert!(succeeds(dir.path(), &["check", "tiny.toml"]).contains("`tiny` is fine: 6 layers of 5 kinds"));
    fs::write(dir.path().join("bad.toml"), common::TINY.replace("kv_heads = 2", "kv_heads = 3")).unwrap();
    let message = fails(dir.path(), &["check", "bad.toml"]);
    assert!(message.contains("bad.toml:") && message.contains("^"), "{message}");
    // Compiling it says the same.
    assert_eq!(fails(dir.path(), &["compile", "bad.toml", "--target", "x86-64-v3"]), message);
}

#[test]
fn a_checkpoint_directory_is_imported() {
    let dir = scratch();
    let config = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 96, "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16", "eos_token_id": 2}"#;
    let checkpoint = dir.path().join("My Model");
    fs::create_dir(&checkpoint).unwrap();
    fs::write(checkpoint.join("config.json"), config).unwrap();
    let toml = succeeds(dir.path(), &["import", "My Model"]);
    assert!(toml.contains("name = \"My-Model\""), "{toml}");
    assert_eq!(succeeds(dir.path(), &["import", "My Model", "-o", "m.toml"]), "");
    assert_eq!(fs::read_to_string(dir.path().join("m.toml")).unwrap(), toml);
    succeeds(dir.path(), &["compile", "My Model", "--target", "x86-64-v3", "-o", "a.nemo"]);
    succeeds(dir.path(), &["compile", "m.toml", "--target", "x86-64-v3", "-o", "b.nemo"]);
    assert_eq!(fs::read(dir.path().join("a.nemo")).unwrap(), fs::read(dir.path().join("b.nemo")).unwrap());
}

#[test]
fn tables_and_their_json() {
    let dir = scratch();
    let models = succeeds(dir.path(), &["models"]);
    let nano = models.lines().find(|line| line.starts_with("nemotron-nano-9b-v2 ")).unwrap();
    let cells = ["8888227328", "16.56", "16.00 KiB", "136.90 MiB"];
    assert!(cells.iter().all(|cell| nano.contains(cell)), "{nano}");
    let json: Value = serde_json::from_str(&succeeds(dir.path(), &["models", "--json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 13);
    assert_eq!(json[0]["kv_bytes_per_token"], 16384);

    let targets = succeeds(dir.path(), &["targets"]);
    assert!(targets.contains("sm_86") && targets.contains("compute capability 8.6 or later"), "{targets}");
    let json: Value = serde_json::from_str(&succeeds(dir.path(), &["targets", "--json"])).unwrap();
    let names: Vec<_> =
        json.as_array().unwrap().iter().map(|target| target["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x86-64-v3", "x86-64-v4", "host", "sm_86", "sm_90"]);
    assert_eq!(json[4]["device"]["name"], "h100");
    assert_eq!(json[3]["device"]["bandwidth_gb_s"], 600.0);
    assert_eq!(json[0]["device"]["memory_bytes"], Value::Null);
    // The facts that do not depend on this machine.
    let facts: Vec<_> = targets.lines().filter(|line| !line.starts_with("host ")).collect();
    insta::assert_snapshot!(
        facts
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
            .collect::<String>()
    );
}
