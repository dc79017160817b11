//! The commands, a file each: they read options, call the library and print.

#[cfg(target_arch = "x86_64")]
mod calibrate;
mod check;
mod compile;
mod emit;
mod explain;
mod fit;
mod import;
mod inspect;
mod models;
mod source;
mod table;
mod targets;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nemo_ir::artifact::{self, ArtifactError};
use nemo_kernels::target::TargetError;
use nemo_models::{Diagnostics, ImportError};
use nemoc::CompileError;
use nemoc::device::DeviceError;
use nemoc::explain::ReplayError;
use nemoc::fit::FitError;
use thiserror::Error;

/// Compiler for NVIDIA's Nemotron language models.
#[derive(Debug, Parser)]
#[command(name = "nemoc", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a model to an artifact that `nemort` runs
    Compile(compile::Args),
    /// Check a model file, with the line and a caret for every problem
    Check(check::Args),
    /// Turn the config.json of a Hugging Face checkpoint into a model file
    Import(import::Args),
    /// List the built-in models: parameters, layers, memory per token and per sequence
    Models(models::Args),
    /// List the targets: what each needs, and the facts of its device
    Targets(targets::Args),
    /// Show which kernels the blocks became, by which laws, and what that saves
    ///
    /// Without BLOCK: for each range of steps a table of the blocks, with the kernels and the predicted time without
    /// fusion (off), with greedy fusion and as chosen. With BLOCK: its kernels in each range, with the operations that
    /// they replace, the laws that led to them, what those do to the bits, and their cost. Nothing is measured: times
    /// are those of the cost model, for the facts of the device.
    Explain(explain::Args),
    /// Tell whether a model fits a device, with a table of what takes memory; exits with 1 when it does not
    Fit(fit::Args),
    /// Measure this machine's bandwidth and peaks, and print them as a device file
    #[cfg(target_arch = "x86_64")]
    Calibrate(calibrate::Args),
    /// Show what is in an artifact, or print one entry of it
    Inspect(inspect::Args),
}

/// Why a command failed: what `nemoc` says before it exits with 1.
#[derive(Debug, Error)]
enum CliError {
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    #[error(
        "there is no model `{name}`: it is no file, no checkpoint directory and no built-in model; {hint}"
    )]
    UnknownModel { name: String, hint: String },
    #[error("directory `{}` is no checkpoint: it has no config.json", .0.display())]
    NoConfig(PathBuf),
    #[error("`{}` is no checkpoint: it is a file, and a checkpoint is the directory around it", .0.display())]
    NoDirectory(PathBuf),
    #[error("`{}` is no model file but JSON; of a checkpoint, name the directory", .0.display())]
    ConfigFile(PathBuf),
    #[error("cannot read `{}`: it is not text in UTF-8", .0.display())]
    NoText(PathBuf),
    #[error("--weights-format {0} is not available in this version; `stored` is")]
    WeightsFormat(&'static str),
    #[error("MODEL is empty: name a model file, a built-in model or a checkpoint directory")]
    EmptyModel,
    #[error("--target names no target; `host` is this machine")]
    EmptyTarget,
    #[error("--cubin is for GPU targets, and the targets are {0}")]
    CubinWithoutGpu(String),
    #[error("{option} is for a model, but `{}` is an artifact: its fusions are chosen", artifact.display())]
    ChosenAlready { option: &'static str, artifact: PathBuf },
    #[error("`{}` is neither an artifact nor a model file: it does not begin like a zip file and is not text", .0.display())]
    Neither(PathBuf),
    #[error("artifact `{}` does not explain its fusions for target `{target}`: compile it anew", artifact.display())]
    NoExplanation { artifact: PathBuf, target: String },
    #[error("model `{model}` has no block `{block}`; it has {has}")]
    NoBlock { block: String, model: String, has: String },
    #[error("the explanation is wrong, which is a mistake in nemoc: {0}")]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Assemble(#[from] nemoc::assemble::AssembleError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("{0}")]
    Diagnostics(Diagnostics),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[cfg(target_arch = "x86_64")]
    #[error(transparent)]
    Calibrate(#[from] nemoc::calibrate::CalibrateError),
    #[error("{0}")]
    DoesNotFit(String),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs the command of the process's arguments.
pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compile(args) => compile::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Targets(args) => targets::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Fit(args) => fit::run(&args),
        #[cfg(target_arch = "x86_64")]
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Diagnostics bring their own `error:` and end with a line break.
        Err(CliError::Diagnostics(diagnostics)) => {
            eprint!("{diagnostics}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that has seen enough is no error.
fn out(bytes: impl AsRef<[u8]>) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        _ => Ok(()),
    }
}

/// Prints a value as one JSON document.
fn out_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    out(text)
}

/// A count on the command line; what is legal depends on the model.
fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("this is no whole number from 0 to {}", u64::MAX))
}

fn read_text(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::InvalidData => CliError::NoText(path.to_owned()),
        _ => CliError::Io { action: "read", path: path.to_owned(), source },
    })
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), CliError> {
    artifact::write_whole(path, bytes.as_ref()).map_err(|source| unwritable(path, source))
}

/// Finds out early whether a file can be written.
fn check_writable(path: &Path) -> Result<(), CliError> {
    artifact::check_writable(path).map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: std::io::Error) -> CliError {
    CliError::Io { action: "write", path: path.to_owned(), source }
}
