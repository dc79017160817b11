//! The `nemort` command: arguments, output and exit codes.

mod bench;
mod budget;
mod chat;
mod eval;
mod generate;
mod interrupt;
mod logits;
mod outfile;
mod output;
mod predicted;
mod profile;
mod prompt;
mod sampling;
mod traffic;
mod verify;

use std::num::IntErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nemo_ir::artifact::{Artifact, ArtifactError};
use thiserror::Error;

use crate::chat::ChatError;
use crate::device::choice::DeviceChoice;
use crate::device::gpu::GpuError;
use crate::device::host::object::ObjectError;
use crate::device::host::pool::Pinning;
use crate::device::{DeviceError, Profiling};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::eval::{PlotError, ProblemError};
use crate::session::SessionError;
use crate::step::StepError;
use crate::text::{GenerationSettings, TextError};
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
    /// Talk with a model.
    Chat(chat::ChatArgs),
    /// Answer a file of problems under several thinking budgets, and count what is right.
    Eval(eval::EvalArgs),
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
    /// Where to run: `host`, `cuda`, or `cuda:N` for the GPU of that number; the best that there is unless given.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Option<DeviceArg>,
    /// Threads that compute; all cores unless given.
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    threads: Option<u32>,
}

impl RunArgs {
    /// Where the model is to run.
    fn device(&self) -> DeviceChoice {
        match self.device {
            None => DeviceChoice::Best,
            Some(DeviceArg::Host) => DeviceChoice::Host,
            Some(DeviceArg::Cuda(number)) => DeviceChoice::Cuda(number),
        }
    }
}

/// A device as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceArg {
    Host,
    Cuda(Option<u32>),
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
    #[error("artifact `{}`, target `{target}`: {source}", file.display())]
    GpuKernels { file: PathBuf, target: String, source: GpuError },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot write `{}`: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    #[error(transparent)]
    Chat(ChatError),
    #[error(transparent)]
    Problems(#[from] ProblemError),
    #[error(transparent)]
    Plot(#[from] PlotError),
    #[error("{source}: {advice}")]
    NoRoom { source: SessionError, advice: String },
    #[error("{0}")]
    Refused(String),
}

/// Parses the command line, runs the command, and reports a failure in one sentence.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Eval(args) => eval::run(&args),
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
            eprintln!("error: {error}");
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

/// A whole number in a range, which the message names.
fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let outside = || format!("{text} is not in {}..={}", range.start(), range.end());
    match text.parse::<i128>() {
        Ok(number) => u64::try_from(number).ok().filter(|n| range.contains(n)).ok_or_else(outside),
        Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err(outside())
        }
        Err(_) => Err("this is not a whole number".to_owned()),
    }
}

/// Any count or key.
fn whole(text: &str) -> Result<u64, String> {
    number(text, 0..=u64::MAX)
}

fn threads(text: &str) -> Result<u32, String> {
    number(text, 1..=1024).map(|threads| threads as u32)
}

/// One of the ids of a list.
fn token(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("token ids are numbers separated by commas".to_owned());
    }
    number(text, 0..=u32::MAX.into()).map(|token| token as u32)
}

/// `host`, `cuda` or `cuda:N`.
fn device(text: &str) -> Result<DeviceArg, String> {
    match text.split_once(':') {
        None if text == "host" => Ok(DeviceArg::Host),
        None if text == "cuda" => Ok(DeviceArg::Cuda(None)),
        Some(("cuda", gpu)) => number(gpu, 0..=u32::MAX.into()).map(|gpu| DeviceArg::Cuda(Some(gpu as u32))),
        _ => Err("a device is `host`, `cuda` or `cuda:N`".to_owned()),
    }
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
        device: args.device(),
        weights,
        threads: args.threads,
        pinning: Pinning::All,
        max_seqs: Some(shape.max_seqs),
        max_context: Some(shape.max_context),
        progress: Progress::Bar,
        profiling: shape.profiling,
    };
    let engine = Engine::load(artifact, &options)?;
    for note in engine.notes() {
        output::line_of_note(note);
    }
    Ok(engine)
}

/// Says what a checkpoint asks for in vain.
fn warn_of_ignored(settings: &GenerationSettings) {
    if !settings.ignored.is_empty() {
        let keys = settings.ignored.join(", ");
        output::warning(&format!("generation_config.json asks for {keys}, which nemort does not do"));
    }
}

/// The weights of a checkpoint directory.
fn directory(path: &Path) -> WeightsSource {
    WeightsSource::Directory(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_three_forms() {
        assert_eq!(device("host"), Ok(DeviceArg::Host));
        assert_eq!(device("cuda"), Ok(DeviceArg::Cuda(None)));
        assert_eq!(device("cuda:12"), Ok(DeviceArg::Cuda(Some(12))));
        assert_eq!(device("cuda:-1").unwrap_err(), "-1 is not in 0..=4294967295");
        for bad in ["", "tpu", "cuda:", "cuda:x", "host:0", "CUDA"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_name_their_range() {
        assert_eq!(whole("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(threads("1024"), Ok(1024));
        assert_eq!(token("4294967295"), Ok(u32::MAX));
        assert_eq!(threads("0").unwrap_err(), "0 is not in 1..=1024");
        assert_eq!(token("-1").unwrap_err(), "-1 is not in 0..=4294967295");
        let huge = "9".repeat(50);
        assert_eq!(whole(&huge).unwrap_err(), format!("{huge} is not in 0..=18446744073709551615"));
        for bad in ["", "x", "1.5", "0x1", " 1"] {
            assert_eq!(whole(bad).unwrap_err(), "this is not a whole number", "{bad}");
            assert!(token(bad).unwrap_err().contains("separated by commas"), "{bad}");
        }
    }
}
