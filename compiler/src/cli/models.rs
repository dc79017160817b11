//! `nemoc models`.

use nemo_models::{Counts, Model, builtin_names};
use serde_json::json;

use super::table::{bytes, table};
use super::{CliError, out, out_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let models: Vec<Model> = builtin_names().into_iter().filter_map(Model::builtin).collect();
    if args.json {
        let list: Vec<_> = models.iter().map(|model| facts(model, &model.counts())).collect();
        return out_json(&list);
    }
    let header = [
        "model",
        "parameters",
        "GiB",
        "layers",
        "attention",
        "mamba2",
        "ffn",
        "linear",
        "empty",
        "KV per token",
        "state per sequence",
        "context",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(models.iter().map(|model| row(model, &model.counts())));
    out(table(&rows))
}

fn row(model: &Model, counts: &Counts) -> Vec<String> {
    vec![
        model.name.clone(),
        counts.parameters.to_string(),
        format!("{:.2}", counts.bytes as f64 / (1u64 << 30) as f64),
        counts.layers.to_string(),
        counts.attention_layers.to_string(),
        counts.mamba_layers.to_string(),
        counts.ffn_layers.to_string(),
        counts.linear_layers.to_string(),
        counts.empty_layers.to_string(),
        bytes(counts.kv_bytes_per_token),
        bytes(counts.ssm_state_bytes.saturating_add(counts.conv_state_bytes)),
        model.max_context.to_string(),
    ]
}

fn facts(model: &Model, counts: &Counts) -> serde_json::Value {
    json!({
        "name": model.name,
        "description": model.description,
        "dtype": model.dtype.name(),
        "parameters": counts.parameters,
        "bytes": counts.bytes,
        "gib": counts.bytes as f64 / (1u64 << 30) as f64,
        "hidden": model.hidden,
        "vocab": model.vocab,
        "max_context": model.max_context,
        "layers": counts.layers,
        "attention_layers": counts.attention_layers,
        "mamba_layers": counts.mamba_layers,
        "ffn_layers": counts.ffn_layers,
        "linear_layers": counts.linear_layers,
        "empty_layers": counts.empty_layers,
        "kv_bytes_per_token": counts.kv_bytes_per_token,
        "ssm_state_bytes": counts.ssm_state_bytes,
        "conv_state_bytes": counts.conv_state_bytes,
    })
}
