//! `nemoc fit`.

use nemo_models::{Counts, Model};
use nemoc::device::{Device, machine_memory};
use nemoc::fit::{Fit, FitOptions, MAX_DEVICES, fit};
use serde_json::json;

use super::table::{bytes, table};
use super::{CliError, out, out_json, source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path of a model file, a built-in name (see `nemoc models`), or a checkpoint directory
    #[arg(value_name = "MODEL")]
    model: String,
    /// A built-in device (a10g, h100, h200, x86-64-v3, x86-64-v4), a device file, or `host` for this machine
    #[arg(long, value_name = "NAME|FILE")]
    device: String,
    /// Positions that each sequence may reach; the model's own limit when absent
    #[arg(long, value_name = "N", value_parser = super::whole, allow_negative_numbers = true)]
    context: Option<u64>,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::whole, allow_negative_numbers = true)]
    seqs: u64,
    /// Tokens in one prefill step
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = super::whole, allow_negative_numbers = true)]
    chunk: u64,
    /// Memory to leave to others, in GiB
    #[arg(long, value_name = "GiB", default_value_t = 0.0, allow_negative_numbers = true)]
    reserve: f64,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let device = Device::find(&args.device)?;
    let model = source::model(&args.model)?;
    let options =
        FitOptions { seqs: args.seqs, context: args.context, chunk: args.chunk, reserve_gib: args.reserve };
    let fit = fit(&model, &device, options, machine_memory())?;
    let verdict = verdict(&model, &device, &fit);
    if args.json {
        out_json(&facts(&model, &device, args, &fit, &verdict))?;
    } else {
        out(table(&rows(&model, &device, args, &fit)))?;
    }
    match (fit.fits(), args.json) {
        (false, _) => Err(CliError::DoesNotFit(verdict)),
        (true, true) => Ok(()),
        (true, false) => out(format!("\n{verdict}\n")),
    }
}

/// The answer as one sentence.
fn verdict(model: &Model, device: &Device, fit: &Fit) -> String {
    let (model, device, sum) = (&model.name, &device.name, fit.need.sum());
    if let Some(free) = fit.memory.checked_sub(sum) {
        return format!("`{model}` fits `{device}` with {} to spare", bytes(free));
    }
    let missing = bytes(sum - fit.memory);
    let more = match fit.devices {
        Some(devices) => format!("{devices} of them would hold it"),
        None => format!("even {MAX_DEVICES} of them would not hold it"),
    };
    format!("`{model}` does not fit `{device}`, which lacks {missing}; {more}")
}

fn rows(model: &Model, device: &Device, args: &Args, fit: &Fit) -> Vec<Vec<String>> {
    let gib = |bytes: u64| format!("{:.2}", bytes as f64 / (1_u64 << 30) as f64);
    let counts = model.counts();
    let row = |name: &str, bytes: u64, what: String| vec![name.to_owned(), gib(bytes), what];
    let (need, sum) = (fit.need, fit.need.sum());
    let seqs = match args.seqs {
        1 => "1 sequence".to_owned(),
        many => format!("{many} sequences"),
    };
    let mut rows = vec![
        vec!["memory".to_owned(), "GiB".to_owned(), "for".to_owned()],
        row("weights", need.weights, format!("{} parameters, {}", counts.parameters, model.dtype.name())),
        row("KV pages", need.kv, kv_text(&counts, fit, &seqs)),
        row("state", need.state, format!("{}, {seqs}", layers(counts.mamba_layers, "with a scan"))),
        row("arena", need.arena, format!("values between kernels, {} tokens a step", args.chunk)),
        row("logits", need.logits, format!("{} tokens a step", args.chunk)),
        row("tables", need.tables, "rotary angles, small weights in f32".to_owned()),
    ];
    rows.push(row("reserve", need.reserve, "others".to_owned()));
    rows.push(row("sum", sum, String::new()));
    rows.push(row("device", fit.memory, format!("`{}`", device.name)));
    rows.push(match fit.memory.checked_sub(sum) {
        Some(free) => row("free", free, String::new()),
        None => row("missing", sum - fit.memory, String::new()),
    });
    rows
}

fn kv_text(counts: &Counts, fit: &Fit, seqs: &str) -> String {
    let pages = match fit.pages {
        1 => "1 page of 64 tokens".to_owned(),
        many => format!("{many} pages of 64 tokens"),
    };
    format!("{}, {pages}, {seqs}", layers(counts.attention_layers, "with attention"))
}

fn layers(count: usize, kind: &str) -> String {
    match count {
        1 => format!("1 layer {kind}"),
        many => format!("{many} layers {kind}"),
    }
}

fn facts(model: &Model, device: &Device, args: &Args, fit: &Fit, verdict: &str) -> serde_json::Value {
    let sum = fit.need.sum();
    json!({
        "model": model.name,
        "device": device.name,
        "target": device.target,
        "seqs": args.seqs,
        "context": fit.context,
        "chunk": args.chunk,
        "bytes": fit.need,
        "sum_bytes": sum,
        "memory_bytes": fit.memory,
        "free_bytes": fit.memory.saturating_sub(sum),
        "missing_bytes": sum.saturating_sub(fit.memory),
        "fits": fit.fits(),
        "devices": fit.devices,
        "verdict": verdict,
    })
}
