//! `nemort logits`.

use std::path::PathBuf;

use clap::Args;
use nemo_ir::artifact::{self, Artifact};
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;
use serde_json::json;

use super::{CommandError, RunArgs, Shape, directory, load_engine, token};
use crate::device::Profiling;
use crate::engine::{Engine, choose_target};
use crate::session::check_tokens;
use crate::step::Step;

#[derive(Debug, Args)]
pub(super) struct LogitsArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// Token ids.
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', required = true, value_parser = token, allow_negative_numbers = true)]
    tokens: Vec<u32>,
    /// Feed one token a step to the decode program.
    #[arg(long)]
    decode: bool,
    /// File to write: `logits`, f32 [tokens, vocab].
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: &LogitsArgs) -> Result<(), CommandError> {
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    let count = args.tokens.len();
    if count as u64 > limits.max_context {
        return Err(CommandError::Refused(format!(
            "{count} tokens do not fit the context of {}: give fewer, or compile with a larger --max-context",
            limits.max_context
        )));
    }
    // Found out before any weight is read.
    check_tokens(&args.tokens, limits.vocab)?;
    let write = |source| CommandError::Write { file: args.output.clone(), source };
    artifact::check_writable(&args.output).map_err(write)?;
    let max_context = (count as u64).next_multiple_of(PAGE_TOKENS).min(limits.max_context);
    let shape = Shape { max_seqs: 1, max_context, profiling: Profiling::Off };
    let mut engine = load_engine(&artifact, &args.run, directory(&args.weights), shape)?;
    let phase = if args.decode { Phase::Decode } else { Phase::Prefill };
    artifact::write_whole_with(&args.output, write, |file| {
        file.write_all(&header(count, limits.vocab)).map_err(write)?;
        each_part(&mut engine, &args.tokens, phase, |logits| {
            file.write_all(bytemuck::cast_slice(logits)).map_err(write)
        })
    })
}

/// The beginning of a safetensors file with the one tensor `logits`, whose data follows: the rows of a long
/// prompt are more than memory may hold.
fn header(tokens: usize, vocab: u64) -> Vec<u8> {
    let bytes = tokens as u64 * vocab * 4;
    let entry = json!({ "logits": { "dtype": "F32", "shape": [tokens, vocab], "data_offsets": [0, bytes] } });
    let mut text = entry.to_string();
    // Data begins at a multiple of eight bytes, as the format advises.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Logits of every token of one sequence, from a fresh state, step by step.
fn each_part(
    engine: &mut Engine,
    tokens: &[u32],
    phase: Phase,
    mut part_done: impl FnMut(&[f32]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let bounds = engine.bounds();
    let chunk = match phase {
        Phase::Decode => 1,
        Phase::Prefill => bounds.tokens as usize,
    };
    let pages: Vec<i32> = (0..bounds.pages_per_seq as i32).collect();
    for (n, part) in tokens.chunks(chunk).enumerate() {
        let start = (n * chunk) as i32;
        let count = part.len() as i32;
        let step = Step {
            phase: Some(phase),
            tokens: &part.iter().map(|token| *token as i32).collect::<Vec<_>>(),
            positions: &(start..start + count).collect::<Vec<_>>(),
            seq_start: &[0, count],
            slot_in: &[if n == 0 { -1 } else { 0 }],
            slot_out: &[0],
            context: &[start],
            pages: &pages,
            rows: &(0..count).collect::<Vec<_>>(),
            forced: &[-1],
            temperature: &[0.0],
            top_k: &[0],
            top_p: &[1.0],
            min_p: &[0.0],
            seed: &[[0, 0]],
        };
        engine.step(&step)?;
        let logits = engine.logits()?.ok_or_else(|| {
            CommandError::Refused(format!("the {} program of this artifact keeps no logits", phase.name()))
        })?;
        part_done(logits)?;
    }
    Ok(())
}
