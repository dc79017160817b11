//! `gpu-check`: runs a bundle's kernel cases on a GPU, and compares what models gave.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gpu_check::bundle::Cases;
use gpu_check::report::{self, Header};
use gpu_check::{card, isa, random, run, safetensors};
use nemort::device::cuda;
use nemort::device::gpu::driver::{Driver, Facts};
use serde_json::{Value, json};

/// Check kernels and models on a GPU.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the kernel cases of a bundle, those of single instructions, and those of random weights.
    Cases {
        /// The bundle.
        bundle: PathBuf,
        /// Number of the GPU.
        #[arg(long, default_value_t = 0)]
        gpu: u32,
        /// Run on a simulated card of this target instead.
        #[arg(long, value_name = "SM", value_parser = ["sm_86", "sm_90"])]
        simulate: Option<String>,
        /// Only every Nth case.
        #[arg(long, value_name = "N", default_value_t = 1)]
        every: usize,
        /// Leave the cases of single instructions and of random weights out.
        #[arg(long)]
        kernels_only: bool,
    },
    /// Compare a file of `nemort logits` with a tensor of references.
    Compare {
        /// What was computed.
        logits: PathBuf,
        /// The references.
        reference: PathBuf,
        /// Tensor of the references.
        #[arg(long, default_value = "logits_a_f32")]
        tensor: String,
        /// Most that the largest difference may be of the largest logit.
        #[arg(long, default_value_t = 2e-5)]
        most: f64,
    },
    /// Print a tensor of token ids with commas between them.
    Tokens {
        /// The references.
        reference: PathBuf,
        /// The tensor.
        #[arg(default_value = "prompt_a")]
        tensor: String,
    },
    /// Gather what the steps of `run.sh` gave: one JSON document and one table.
    Report {
        /// `steps.tsv` and the steps' outputs.
        folder: PathBuf,
        /// Name of the GPU.
        #[arg(long)]
        gpu: String,
        /// When the steps ran.
        #[arg(long)]
        date: String,
        /// Where the document goes.
        #[arg(long, value_name = "FILE")]
        json: PathBuf,
        /// Where the table goes, which is also printed.
        #[arg(long, value_name = "FILE")]
        table: PathBuf,
    },
    /// Compare the JSON of `nemort generate` with the greedy continuation in the references.
    Greedy {
        /// What was printed.
        generated: PathBuf,
        /// The references.
        reference: PathBuf,
    },
}

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok((document, good)) => {
            println!("{document}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

/// What is printed, and whether all is well.
fn command(command: Command) -> Result<(String, bool), String> {
    let (document, good) = match command {
        Command::Cases { bundle, gpu, simulate, every, kernels_only } => {
            let mut driver = match simulate.as_deref() {
                Some(sm) => card::card(simulated(sm)).0,
                None => cuda::open(gpu).map_err(|error| error.to_string())?,
            };
            let sm = if driver.facts().capability == (9, 0) { "sm_90" } else { "sm_86" };
            if driver.facts().capability < (8, 6) {
                return Err(format!("no kernels of the bundle run on {}", driver.facts()));
            }
            cases(driver.as_mut(), &bundle.join("cases"), sm, every, kernels_only)?
        }
        Command::Compare { logits, reference, tensor, most } => {
            let found = of(&logits, |file| safetensors::f32s(file, "logits"))?;
            let wanted = of(&reference, |file| safetensors::f32s(file, &tensor))?;
            let error = safetensors::relative(&found, &wanted);
            if !error.is_finite() {
                return Err(format!("`{}` cannot be compared with `{tensor}`", logits.display()));
            }
            (json!({ "relative": error, "most": most }), error <= most)
        }
        Command::Tokens { reference, tensor } => {
            let tokens = of(&reference, |file| safetensors::i32s(file, &tensor))?;
            // Without quotes, as a command line takes it.
            return Ok((tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), true));
        }
        Command::Report { folder, gpu, date, json, table } => {
            let report = report::gather(&folder, &Header { gpu, date })?;
            for (file, text) in [(&json, report.json()), (&table, report.table())] {
                std::fs::write(file, text + "\n")
                    .map_err(|error| format!("`{}`: {error}", file.display()))?;
            }
            return Ok((report.table(), report.failed() == 0));
        }
        Command::Greedy { generated, reference } => {
            let wanted = of(&reference, |file| safetensors::i32s(file, "greedy_a"))?;
            let found: Value =
                of(&generated, |file| serde_json::from_slice(file).map_err(|e| e.to_string()))?;
            let same = found["tokens"] == json!(wanted);
            (json!({ "tokens": found["tokens"], "wanted": wanted, "same": same }), same)
        }
    };
    Ok((document.to_string(), good))
}

fn cases(
    driver: &mut dyn Driver,
    folder: &Path,
    sm: &str,
    every: usize,
    kernels_only: bool,
) -> Result<(Value, bool), String> {
    let cases = Cases::read(folder, sm).map_err(|error| error.to_string())?;
    if cases.cases.is_empty() {
        return Err(format!("`{}` has no cases for {sm}", folder.display()));
    }
    let device = driver.facts().to_string();
    let kernels = run::run(driver, &cases, every);
    let mut good = kernels.failed.is_empty();
    let mut document = json!({ "device": device, "target": sm, "kernels": kernels.json() });
    if !kernels_only {
        let isa = isa::run(driver, every);
        good &= isa.failed.is_empty();
        document["isa"] = isa.json();
        let weights = random::run(driver);
        good &= weights.failed.is_empty();
        document["random_weights"] = weights.json();
    }
    Ok((document, good))
}

/// A card of a target's compute capability.
fn simulated(sm: &str) -> Facts {
    let capability = if sm == "sm_90" { (9, 0) } else { (8, 6) };
    Facts { name: format!("simulated {sm}"), capability, driver: 525 }
}

/// Something of a file.
fn of<T>(file: &Path, read: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let about = |what: String| format!("`{}`: {what}", file.display());
    let bytes = std::fs::read(file).map_err(|error| about(error.to_string()))?;
    read(&bytes).map_err(about)
}
