//! `nemort logits`.

use std::path::PathBuf;

use clap::Args;
use nemo_ir::artifact::{self, Artifact};
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;
use safetensors::tensor::TensorView;

use super::{CommandError, RunArgs, Shape, check_device, directory, load_engine, token};
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
    check_device(&args.run.device)?;
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref())?.limits;
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
    let logits = logits(&mut engine, &args.tokens, phase)?;
    let shape = vec![count, limits.vocab as usize];
    let view = TensorView::new(safetensors::Dtype::F32, shape, bytemuck::cast_slice(&logits))
        .map_err(|error| write(std::io::Error::other(error)))?;
    let bytes = safetensors::serialize([("logits", view)], None)
        .map_err(|error| write(std::io::Error::other(error)))?;
    artifact::write_whole(&args.output, &bytes).map_err(write)
}

/// Logits of every token of one sequence, from a fresh state.
fn logits(engine: &mut Engine, tokens: &[u32], phase: Phase) -> Result<Vec<f32>, CommandError> {
    let bounds = engine.bounds();
    let chunk = match phase {
        Phase::Decode => 1,
        Phase::Prefill => bounds.tokens as usize,
    };
    let pages: Vec<i32> = (0..bounds.pages_per_seq as i32).collect();
    let mut all = Vec::with_capacity(tokens.len() * bounds.vocab as usize);
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
        let output = engine.step(&step)?;
        let logits = output.logits.ok_or_else(|| {
            CommandError::Refused(format!("the {} program of this artifact keeps no logits", phase.name()))
        })?;
        all.extend_from_slice(logits);
    }
    Ok(all)
}
