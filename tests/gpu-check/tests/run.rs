//! `run.sh` where everything that it calls is played by scripts: the steps, the document, the table, the exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Takes the report to the real command, and plays the rest.
const CHECK: &str = r#"
case $1 in
    report) exec "$REAL_CHECK" "$@" ;;
    tokens) echo 1,2,3 ;;
    cases)
        echo "FAILED something that is no JSON"
        echo '{"target":"sm_90","kernels":{"run":1144,"failed":0,"skipped":0,"worst":{}},"isa":{"run":92,"failed":0,"skipped":5}}'
        ;;
    compare) echo '{"relative":1e-6,"most":2e-5}' ;;
    greedy) echo '{"same":true}' ;;
esac
"#;

/// Speeds that divide into round shares. `$FAILS` names what fails: a pattern of the arguments.
const NEMORT: &str = r#"
case "$*" in $FAILS) echo "it broke" >&2; exit 3 ;; esac
case "$*" in
    bench*nano-9b*--seqs\ 64*) echo "nemort: the GPU has not enough free memory" >&2; exit 1 ;;
    bench*)
        printf '{\n  "prefill_tok_s": 4000.0,\n  "prefill_gflop_s": 100000.0,\n  "decode_tok_s": 150.0,\n'
        printf '  "decode_gb_s": 1500.0,\n  "read_bandwidth_gb_s": 2000.0\n}\n'
        ;;
    generate*) echo '{"tokens":[1]}' ;;
esac
"#;

/// Python with torch: the peer's lines, the last of which is torn.
const PYTHON: &str = r#"
case "$*" in
    *torch.cuda*) exit "$NO_TORCH" ;;
    *peer.py\ card) echo '{"torch":"2.9","matmul_bf16_tflop_s":400.0,"copy_gb_s":1900.0}' ;;
    *peer.py*)
        for prompt in 512 8192; do
            echo "{\"system\":\"$2\",\"seqs\":1,\"prompt\":$prompt,\"prefill_tok_s\":5000.0}"
        done
        echo "{\"system\":\"$2\",\"seqs\":1,\"prompt\":512,\"decode_tok_s\":100.0}"
        echo "{\"system\":\"$2\",\"seqs\":8,\"prompt\":512,\"decode_tok_s\":null}"
        echo '{"system":'
        ;;
esac
"#;

struct Stage {
    dir: tempfile::TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

fn script(file: &Path, body: &str) {
    fs::write(file, format!("#!/usr/bin/env bash\n{body}")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bundle/bin", "path", "elsewhere"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let gpu = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu");
        for file in ["run.sh", "peer.py"] {
            fs::copy(gpu.join(file), dir.path().join("bundle").join(file)).unwrap();
        }
        script(&dir.path().join("bundle/bin/gpu-check"), CHECK);
        script(&dir.path().join("bundle/bin/nemort"), NEMORT);
        script(&dir.path().join("path/nvidia-smi"), "echo NVIDIA H100 80GB HBM3");
        script(&dir.path().join("path/python3"), PYTHON);
        script(
            &dir.path().join("path/compute-sanitizer"),
            "while [ \"$1\" != cases ]; do shift; done\necho '{}'",
        );
        Self { dir, settings: vec![("FAILS", "nothing"), ("NO_TORCH", "0")] }
    }

    fn run(&self) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.dir.path().join("path").display());
        let mut run = Command::new("bash");
        run.arg(self.dir.path().join("bundle/run.sh")).current_dir(self.dir.path().join("elsewhere"));
        run.env("PATH", path).env("REAL_CHECK", env!("CARGO_BIN_EXE_gpu-check"));
        run.envs(self.settings.iter().copied()).output().unwrap()
    }

    /// The files of the one run.
    fn results(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.dir.path().join("bundle/results")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    fn report(&self) -> (Value, String) {
        let [json, table] = &self.results()[..] else { panic!("{:?}", self.results()) };
        assert!(json.to_str().unwrap().ends_with("-NVIDIA-H100-80GB-HBM3.json"), "{json:?}");
        let document = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        (document, fs::read_to_string(table).unwrap())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The cells of the table's row of a system and shape.
fn row<'a>(table: &'a str, starts: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(starts));
    line.unwrap_or_else(|| panic!("no row `{starts}`: {table}"))
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect()
}

#[test]
fn a_run_gives_one_document_and_one_table() {
    let stage = Stage::new();
    let output = stage.run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let (document, table) = stage.report();
    assert_eq!((&document["gpu"], &document["failed"]), (&"NVIDIA H100 80GB HBM3".into(), &0.into()));
    assert_eq!((&document["matmul_bf16_tflop_s"], &document["copy_gb_s"]), (&400.0.into(), &2000.0.into()));
    // Cases, six steps of each of four fixtures, four shapes of two systems, the card and two peers, two checkers.
    assert_eq!(document["steps"].as_array().unwrap().len(), 1 + 4 * 6 + 4 * 2 + 3 + 2);
    assert_eq!(document["steps"][0]["results"][0]["kernels"]["run"], 1144);
    assert!(String::from_utf8_lossy(&output.stdout).contains(table.trim_end()), "the table is printed");

    assert_eq!(table.lines().filter(|line| line.starts_with("| nemotron-nano-9b-v2 |")).count(), 3);
    let wanted = ["4000.0", "100.0", "25 %", "0.80 x", "150.0", "1500.0", "75 %", "1.50 x"];
    assert_eq!(row(&table, "| nemotron-nano-9b-v2 | 1 | 512 |")[3..], wanted);
    // The peer had no room for eight, and decodes after no long prompt.
    let eight = row(&table, "| llama-3.1-nemotron-nano-8b-v1 | 8 | 512 |");
    assert_eq!((eight[6], eight[9], eight[10]), ("-", "75 %", "-"));
    let long = row(&table, "| llama-3.1-nemotron-nano-8b-v1 | 1 | 8192 |");
    assert_eq!((long[6], long[10]), ("0.80 x", "-"));
    // What does not fit is no failure, and has a row.
    let none = row(&table, "| nemotron-nano-9b-v2 (no room) | 64 | 512 |");
    assert_eq!(none[3..], ["-"; 8]);
    // Prompts are wanted as fast as PyTorch's of the one system, and nearly as fast of the other.
    assert_eq!(row(&table, "| nemotron-nano-9b-v2, prompt of 512 |")[3], "MISSED");
    assert_eq!(row(&table, "| llama-3.1-nemotron-nano-8b-v1, prompt of 512 |")[3], "met");
    assert_eq!(row(&table, "| nemotron-nano-9b-v2, decode of 1 |")[1..], ["1 x", "1.50 x", "met"]);
    assert!(table.contains("kernels: 1144 cases run, 0 failed, 0 skipped."), "{table}");
}

#[test]
fn failures_are_counted_and_the_rest_is_run() {
    let mut stage = Stage::new();
    stage.settings[0] = ("FAILS", "@(bench*llama*--seqs\\ 8*|logits*nas*--decode*)");
    // Patterns of alternatives are an option of the shell that plays it.
    stage.settings.push(("BASHOPTS", "extglob"));
    let output = stage.run();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("it broke"), "what a step said is shown");
    let (document, table) = stage.report();
    assert_eq!(document["failed"], 2);
    let failed = document["steps"].as_array().unwrap().iter().filter(|step| step["state"] == "failed");
    let failed: Vec<_> = failed.map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(failed, ["nas-logits-decode", "bench-llama-3.1-nemotron-nano-8b-v1-8-512"]);
    row(&table, "| llama-3.1-nemotron-nano-8b-v1 (failed) | 8 | 512 |");
    assert!(table.contains("nas-logits-decode: failed after"), "{table}");
    // Two steps failed, and one that needs what the first gives was not begun.
    assert!(table.trim_end().ends_with("2 of 37 steps failed."), "{table}");
}

#[test]
fn without_torch_there_is_nothing_to_compare_with() {
    let mut stage = Stage::new();
    stage.settings[1] = ("NO_TORCH", "1");
    let output = stage.run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let (document, table) = stage.report();
    assert!(document["matmul_bf16_tflop_s"].is_null() && document["torch"].is_null(), "{document}");
    assert!(table.contains("of bf16: not measured: that takes torch."), "{table}");
    let row = row(&table, "| nemotron-nano-9b-v2 | 1 | 512 |");
    assert_eq!(row[3..], ["4000.0", "100.0", "-", "-", "150.0", "1500.0", "75 %", "-"]);
}

#[test]
fn a_machine_without_a_gpu_is_told() {
    let stage = Stage::new();
    script(&stage.dir.path().join("path/nvidia-smi"), "exit 9");
    let output = stage.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("no working NVIDIA driver"), "{}", text(&output));
    script(&stage.dir.path().join("path/nvidia-smi"), "echo GPU");
    fs::remove_file(stage.dir.path().join("bundle/bin/nemort")).unwrap();
    assert!(text(&stage.run()).contains("bin/nemort is missing; tests/gpu/bundle.sh makes one"));
}
