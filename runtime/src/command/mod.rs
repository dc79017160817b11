//! The `nemort` command: arguments, output and exit codes.

mod bench;
mod generate;
mod logits;
mod output;
mod traffic;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nemo_ir::artifact::{Artifact, ArtifactError};
use thiserror::Error;

use crate::device::Profiling;
use crate::device::host::object::ObjectError;
use crate::device::host::pool::Pinning;
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::session::SessionError;
use crate::step::StepError;
use crate::text::TextError;
use crate::weights::{Progress, WeightsError, WeightsSource};

/// Run Nemotron models that nemoc has compiled.
#[derive(Debug, Parser)]
#[command(name = "nemort", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a prompt.
    Generate(generate::GenerateArgs),
    /// Write the logits of every token of a sequence to a safetensors file.
    Logits(logits::LogitsArgs),
    /// Measure prefill and decode speed beside the machine's memory bandwidth.
    Bench(bench::BenchArgs),
    /// Check an artifact, and a checkpoint against it.
    Verify(verify::VerifyArgs),
}

/// Options of every command that runs a model.
#[derive(Debug, Args)]
struct RunArgs {
    /// The artifact.
    #[arg(value_name = "OUT.NEMO")]
    artifact: PathBuf,
    /// Target of the artifact; the best that this machine runs unless given.
    #[arg(long)]
    target: Option<String>,
    /// Where to run: `host`.
    #[arg(long, default_value = "host")]
    device: String,
    /// Threads that compute; all cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

/// Why a command failed.
#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("artifact `{}`, target `{target}`: {source}", file.display())]
    Kernels { file: PathBuf, target: String, source: ObjectError },
    #[error("cannot write `{}`: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Parses the command line, runs the command, and reports a failure in one sentence.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Verify(args) => verify::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has had enough, which is no failure.
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nemort: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Context and sequences that a command needs of its engine.
#[derive(Debug, Clone, Copy)]
struct Shape {
    max_seqs: u64,
    max_context: u64,
    profiling: Profiling,
}

/// Refuses devices that there are none of.
fn check_device(device: &str) -> Result<(), CommandError> {
    if device == "host" {
        return Ok(());
    }
    Err(CommandError::Refused(format!("there is no device `{device}`; this nemort has `host`")))
}

/// An engine for a command, which has the machine to itself.
fn load_engine(
    artifact: &Artifact,
    args: &RunArgs,
    weights: WeightsSource,
    shape: Shape,
) -> Result<Engine, CommandError> {
    let options = EngineOptions {
        target: args.target.clone(),
        weights,
        threads: args.threads,
        pinning: Pinning::All,
        max_seqs: Some(shape.max_seqs),
        max_context: Some(shape.max_context),
        progress: Progress::Bar,
        profiling: shape.profiling,
    };
    Ok(Engine::load(artifact, &options)?)
}

/// The weights of a checkpoint directory.
fn directory(path: &Path) -> WeightsSource {
    WeightsSource::Directory(path.to_owned())
}
