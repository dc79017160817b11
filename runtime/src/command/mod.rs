//! The `nemort` command: arguments, output and exit codes.

mod bench;
mod generate;
mod logits;
mod output;
mod profile;
mod traffic;
mod verify;

use std::num::IntErrorKind;
use std::ops::RangeInclusive;
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
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
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
    #[error("{source}: {advice}")]
    NoRoom { source: SessionError, advice: String },
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

#[cfg(test)]
mod tests {
    use super::*;

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
