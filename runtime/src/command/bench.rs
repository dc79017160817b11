//! `nemort bench`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use nemo_ir::artifact::Artifact;
use nemo_ir::step::PAGE_TOKENS;
use serde_json::json;

use super::predicted::Predictions;
use super::traffic::{bytes_per_token, flops_per_token};
use super::{CommandError, RunArgs, Shape, directory, load_engine, number, output, profile, whole};
use crate::device::{Profiling, human_bytes};
use crate::engine::{Engine, EngineError, choose_target};
use crate::session::{Request, Session, SessionError, positions};
use crate::weights::WeightsSource;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["weights", "random_weights"]))]
pub(super) struct BenchArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint.
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
    /// Make the weights up; speed does not depend on them.
    #[arg(long)]
    random_weights: bool,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = whole, allow_negative_numbers = true)]
    prompt: u64,
    /// New tokens of each sequence.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole, allow_negative_numbers = true)]
    new: u64,
    /// Sequences at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole, allow_negative_numbers = true)]
    seqs: u64,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = repeat, allow_negative_numbers = true)]
    repeat: u32,
    /// Time each kernel of each block.
    #[arg(long)]
    profile: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Whether a repetition measures what the machine could do.
#[derive(Debug, Clone, Copy)]
enum Meters {
    On,
    Off,
}

impl Meters {
    fn bandwidth(self, engine: &mut Engine) -> Option<f64> {
        match self {
            Self::On => engine.read_bandwidth(),
            Self::Off => None,
        }
    }

    fn peak(self, engine: &mut Engine) -> Option<f64> {
        match self {
            Self::On => engine.product_peak(),
            Self::Off => None,
        }
    }
}

fn repeat(text: &str) -> Result<u32, String> {
    number(text, 1..=u32::MAX.into()).map(|count| count as u32)
}

/// The engine's sequences have an option of another name here.
fn of_seqs(error: CommandError) -> CommandError {
    match error {
        CommandError::Engine(EngineError::Limit { what: "--max-seqs", wanted, most, file }) => {
            EngineError::Limit { what: "--seqs", wanted, most, file }.into()
        }
        error => error,
    }
}

/// One repetition, and what the machine could do meanwhile: a neighbour slows both or neither.
struct Speed {
    /// Tokens a second.
    prefill: f64,
    /// Tokens a second.
    decode: f64,
    /// Bytes a second of a plain stream, before and after decoding, where the device can measure it.
    bandwidth: Option<f64>,
    /// Floating-point operations a second between registers, before and after the prompt, where the device can
    /// measure them.
    peak: Option<f64>,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CommandError> {
    if args.prompt == 0 || args.new < 2 {
        return Err(CommandError::Refused("--prompt must be at least 1 and --new at least 2".to_owned()));
    }
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    let (prompt, new, context) = (args.prompt as usize, args.new as usize, limits.max_context);
    let needed = positions(prompt, new);
    if needed > context {
        let source = SessionError::Context { prompt, new, context };
        let advice = "lower --prompt or --new, or compile with a larger --max-context".to_owned();
        return Err(CommandError::NoRoom { source, advice });
    }
    let source = match &args.weights {
        Some(path) => directory(path),
        None => WeightsSource::Random { seed: 0 },
    };
    let shape = Shape {
        max_seqs: args.seqs,
        max_context: needed.next_multiple_of(PAGE_TOKENS).min(limits.max_context),
        profiling: if args.profile { Profiling::EachLaunch } else { Profiling::Off },
    };
    let mut engine = load_engine(&artifact, &args.run, source, shape).map_err(of_seqs)?;
    // The first run touches memory that later ones find in place. What the process has held by then is
    // what running the model takes; the buffer for measuring bandwidth comes after it.
    repetition(&mut engine, args, Meters::Off)?;
    let peak_rss = peak_rss();
    Meters::On.peak(&mut engine);
    Meters::On.bandwidth(&mut engine);
    engine.take_profile();
    let mut speeds = Vec::new();
    for _ in 0..args.repeat {
        speeds.push(repetition(&mut engine, args, Meters::On)?);
    }
    let times = engine.take_profile();
    let of_runs = |figure: &dyn Fn(&Speed) -> f64| median(speeds.iter().map(figure).collect());
    // Nothing where a single run has none.
    let measured = |figure: &dyn Fn(&Speed) -> Option<f64>| {
        speeds.iter().map(figure).collect::<Option<Vec<_>>>().map(median)
    };
    let prefill = of_runs(&|speed| speed.prefill);
    let decode = of_runs(&|speed| speed.decode);
    let bandwidth = measured(&|speed| Some(speed.bandwidth? / 1e9));
    let peak = measured(&|speed| Some(speed.peak? / 1e9));
    let flops = flops_per_token(engine.plan());
    let context = args.prompt + args.new / 2;
    let bytes = bytes_per_token(engine.plan(), args.seqs, context);
    let rate = bytes * decode / 1e9;
    // Run by run, as the machine's speed drifts.
    let share = measured(&|speed| Some(bytes * speed.decode / speed.bandwidth?.max(1.0)));
    let peak_share = measured(&|speed| Some(flops * speed.prefill / speed.peak?.max(1.0)));
    let predicted = Predictions::of(&artifact, &engine.plan().target);
    let memory = engine.memory();
    if args.json {
        return output::json(&json!({
            "model": artifact.manifest().model,
            "target": engine.plan().target,
            "device": engine.describe(),
            "prompt": args.prompt,
            "new": args.new,
            "seqs": args.seqs,
            "repeat": args.repeat,
            "prefill_tok_s": prefill,
            "prefill_gflop_s": flops * prefill / 1e9,
            "flops_per_token": flops,
            "product_peak_gflop_s": peak,
            "peak_share": peak_share,
            "decode_tok_s": decode,
            "decode_gb_s": rate,
            "read_bandwidth_gb_s": bandwidth,
            "bandwidth_share": share,
            "bytes_per_token": bytes,
            "weights_bytes": memory.weights,
            "peak_rss": peak_rss,
            "profile": times.iter().map(|time| profile::row(time, &predicted)).collect::<Vec<_>>(),
        }));
    }
    output::line(&format!(
        "{} on {}, {}",
        artifact.manifest().model,
        engine.plan().target,
        engine.describe()
    ))?;
    output::line(&format!("prefill   {prefill:10.2} tok/s  ({} x {} tokens)", args.seqs, args.prompt))?;
    output::line(&format!("          {:10.2} GFLOP/s in products with weights", flops * prefill / 1e9))?;
    output::line(&format!(
        "products  {:>10} GFLOP/s between registers ({} of it used)",
        figure(peak),
        percent(peak_share)
    ))?;
    output::line(&format!("decode    {decode:10.2} tok/s  ({} x {} tokens)", args.seqs, args.new))?;
    output::line(&format!("          {rate:10.2} GB/s   ({} a token)", human_bytes(bytes as u64)))?;
    output::line(&format!("reading   {:>10} GB/s   ({} of it used)", figure(bandwidth), percent(share)))?;
    output::line(&format!(
        "weights   {}, peak memory {}",
        human_bytes(memory.weights),
        human_bytes(peak_rss)
    ))?;
    output::write(&profile::table(&times, &predicted, bandwidth.map(|rate| rate * 1e9)))
}

/// A measured figure, or `-` where the device cannot measure it.
fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// Reads the prompts and decodes; every sequence has the same length and another text.
fn repetition(engine: &mut Engine, args: &BenchArgs, meters: Meters) -> Result<Speed, CommandError> {
    let vocab = engine.limits().vocab;
    let peak_before = meters.peak(engine);
    let mut session = Session::new(engine);
    for seq in 0..args.seqs {
        let token = |n: usize| ((n as u64 * 7919 + seq * 104_729 + 17) % vocab) as u32;
        session.submit(Request::new((0..args.prompt as usize).map(token).collect(), args.new as usize))?;
    }
    let started = Instant::now();
    // Until every sequence has its first new token.
    let mut begun = BTreeSet::new();
    while begun.len() < args.seqs as usize {
        for event in session.advance()? {
            event.check().map_err(SessionError::from)?;
            begun.insert(event.sequence);
        }
    }
    let prefill = started.elapsed().as_secs_f64();
    let engine = session.engine_mut();
    let (peak_after, bandwidth_before) = (meters.peak(engine), meters.bandwidth(engine));
    let started = Instant::now();
    let mut decoded = 0_usize;
    while !session.is_idle() {
        for event in session.advance()? {
            event.check().map_err(SessionError::from)?;
            decoded += 1;
        }
    }
    let decode = started.elapsed().as_secs_f64();
    let bandwidth_after = meters.bandwidth(session.engine_mut());
    Ok(Speed {
        prefill: (args.seqs * args.prompt) as f64 / prefill.max(1e-9),
        decode: decoded as f64 / decode.max(1e-9),
        bandwidth: midpoint(bandwidth_before, bandwidth_after),
        peak: midpoint(peak_before, peak_after),
    })
}

fn midpoint(first: Option<f64>, second: Option<f64>) -> Option<f64> {
    Some(f64::midpoint(first?, second?))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The most memory that this process has held; 0 where the system does not say.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(peak_rss() > 0);
    }
}
