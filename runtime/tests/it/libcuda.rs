//! The command on a GPU that a driver library for tests plays: what goes through the C interface, and what is said of
//! drivers and GPUs that do not fit.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use nemo_ir::artifact::{self, Contents};

use crate::gpu;
use crate::toy::{self, continued};

/// A folder with `libcuda.so`, made once.
fn library() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, folder) = FOLDER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let source = [toy::KERNELS, include_str!("libcuda.c")].concat();
        std::fs::write(folder.join("libcuda.c"), source).unwrap();
        let mut compiler = Command::new("cc");
        compiler.current_dir(&folder).args([
            "-shared",
            "-fPIC",
            "-O1",
            "-w",
            "-o",
            "libcuda.so",
            "libcuda.c",
        ]);
        assert!(compiler.status().unwrap().success());
        std::fs::copy(folder.join("libcuda.so"), folder.join("libcuda.so.1")).unwrap();
        (dir, folder)
    });
    folder
}

/// The GPU toy as the library takes it: rows of tensor maps are of 16 bytes.
fn contents() -> Contents {
    let mut contents = gpu::contents();
    for kernel in &mut contents.targets[0].plan.kernels {
        let geometry = kernel.geometry.as_mut().unwrap();
        geometry.shared *= 20;
        for map in &mut geometry.maps {
            map.row_bytes = 16;
        }
    }
    contents
}

/// An artifact, a checkpoint and a folder for caches.
struct Stage {
    dir: tempfile::TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

impl Stage {
    fn new(contents: &Contents) -> Self {
        let dir = tempfile::tempdir().unwrap();
        toy::checkpoint(dir.path());
        artifact::write(&dir.path().join("toy.nemo"), contents).unwrap();
        Self { dir, settings: Vec::new() }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("caches").join("nemort")
    }

    fn nemort(&self, command: &str, more: &[&str]) -> Output {
        let mut nemort = Command::new(env!("CARGO_BIN_EXE_nemort"));
        nemort.env("LD_LIBRARY_PATH", library()).env("XDG_CACHE_HOME", self.dir.path().join("caches"));
        nemort.envs(self.settings.iter().copied()).current_dir(self.dir.path());
        nemort.arg(command).arg("toy.nemo").args(more).output().unwrap()
    }

    /// Text and notes of three prompt tokens and nine new ones.
    fn generate(&self, more: &[&str]) -> (String, String) {
        let base = ["--weights", ".", "--tokens", "1,2,3", "--max-new-tokens", "9", "--ignore-eos"];
        let output = self.nemort("generate", &[&base, more].concat());
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn refused(&self, more: &[&str]) -> String {
        let base = ["--weights", ".", "--tokens", "1,2,3", "--max-new-tokens", "9"];
        let output = self.nemort("generate", &[&base, more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn wanted() -> String {
    let letter = |token: &u32| char::from(b'a' + *token as u8);
    continued(&[1, 2, 3], 9).iter().map(letter).chain(['\n']).collect()
}

#[test]
fn text_through_the_driver_and_kernels_compiled_once() {
    let stage = Stage::new(&contents());
    let (text, notes) = stage.generate(&[]);
    assert_eq!(text, wanted());
    assert!(
        notes.starts_with("nemort: the driver compiled the kernels in ") && notes.lines().count() == 1,
        "{notes}"
    );
    let files: Vec<_> = std::fs::read_dir(stage.cache()).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(file.to_str().unwrap().ends_with("-12020-sm_86.cubin"), "{file:?}");
    // The second time there is nothing to compile, and nothing to say.
    assert_eq!(stage.generate(&["--device", "cuda:0", "--max-seqs", "5"]), (wanted(), String::new()));
    // A file that the driver does not take is made anew.
    std::fs::write(file, "damaged").unwrap();
    assert!(stage.generate(&[]).1.contains("compiled the kernels"));
    assert!(std::fs::read(file).unwrap().starts_with(b"CODE"));
    // A cache that cannot be written is none.
    std::fs::remove_dir_all(stage.cache()).unwrap();
    std::fs::write(stage.cache(), "a file").unwrap();
    for _ in 0..2 {
        let (text, notes) = stage.generate(&["--target", "sm_86"]);
        assert!(text == wanted() && notes.contains("compiled the kernels"), "{notes}");
    }
}

#[test]
fn machine_code_needs_no_compiler() {
    let mut contents = contents();
    let ptx = contents.targets[0].object.clone();
    contents.targets[0].cubin = Some([b"CODE", &ptx[..], b"\0"].concat());
    let mut stage = Stage::new(&contents);
    stage.settings = vec![("STUB_NO_JIT", "1")];
    assert_eq!(stage.generate(&[]), (wanted(), String::new()));
    assert!(!stage.cache().exists());
}

#[test]
fn logits_and_bench_run_on_the_gpu() {
    let stage = Stage::new(&contents());
    let logits = |more: &[&str]| {
        let base = ["--weights", ".", "--tokens", "1,2,3,4,5,6,7,8,9,10", "-o", "out"];
        let output = stage.nemort("logits", &[&base, more].concat());
        assert!(output.status.success(), "{output:?}");
        std::fs::read(stage.dir.path().join("out")).unwrap()
    };
    let whole = logits(&[]);
    assert_eq!(logits(&["--decode"]), whole);
    let base =
        ["--random-weights", "--prompt", "20", "--new", "5", "--seqs", "3", "--repeat", "1", "--profile"];
    let output = stage.nemort("bench", &[&base[..], &["--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["device"], "Stub 0, compute capability 8.6, driver 535");
    // The module that makes the weights is compiled and kept as those of models are.
    assert_eq!(std::fs::read_dir(stage.cache()).unwrap().count(), 2);
    assert!(report["product_peak_gflop_s"].is_null() && report["peak_share"].is_null(), "{report}");
    // Eight copies of nearly 16 MiB, each read and written, in half a millisecond.
    let bandwidth = report["read_bandwidth_gb_s"].as_f64().unwrap();
    assert!((536.0..537.0).contains(&bandwidth), "{bandwidth}");
    let profile = report["profile"].as_array().unwrap();
    let scan = profile.iter().find(|row| row["phase"] == "decode" && row["op"] == "scan").unwrap();
    let (seconds, count) = (scan["seconds"].as_f64().unwrap(), scan["count"].as_f64().unwrap());
    assert!((seconds - count * 5e-4).abs() < 1e-9, "{scan}");
    let output = stage.nemort("bench", &base);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("products           - GFLOP/s between registers (- of it used)"), "{text}");
    assert!(text.contains("500.00 us    scan  (toy_scan)"), "{text}");
    let report = String::from_utf8(stage.nemort("verify", &[]).stdout).unwrap();
    assert!(report.contains("GPU 0 runs it") && report.contains("would run sm_86 on GPU 0"), "{report}");
}

#[test]
fn a_gpu_that_does_not_fit_is_told_in_a_sentence() {
    let mut stage = Stage::new(&contents());
    let mut said = Vec::new();
    for (settings, device) in [
        (vec![("STUB_VERSION", "11080")], "cuda"),
        (vec![("STUB_GPUS", "0")], "cuda"),
        (vec![], "cuda:99"),
        (vec![("STUB_GPUS", "2")], "cuda:2"),
        (vec![("STUB_CAPABILITY", "75")], "cuda"),
        (vec![("STUB_FREE", "4000")], "cuda"),
    ] {
        stage.settings = settings;
        said.push(stage.refused(&["--device", device]));
    }
    stage.settings = vec![("STUB_CAPABILITY", "120")];
    let (text, notes) = stage.generate(&[]);
    assert_eq!(text, wanted());
    said.push(notes.lines().next().unwrap().to_owned() + "\n");
    let mut mistaken = contents();
    mistaken.targets[0].object.extend(b"mistake");
    said.push(Stage::new(&mistaken).refused(&[]));
    let mut large = contents();
    large.targets[0].plan.kernels[2].geometry.as_mut().unwrap().shared = 200_000;
    said.push(Stage::new(&large).refused(&[]));
    let mut odd = contents();
    odd.targets[0].plan.kernels[0].geometry.as_mut().unwrap().maps[0].row_bytes = 4;
    said.push(Stage::new(&odd).refused(&[]));
    insta::assert_snapshot!("driver", said.concat());
}
