//! `nemoc targets`.

use nemo_kernels::target::{GPU_NAMES, HostTarget};
use serde_json::json;

use super::table::table;
use super::{CliError, out, out_json};

/// What can be asked for by name, before features are appended.
const LEVELS: [&str; 2] = ["x86-64-v3", "x86-64-v4"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let levels: Vec<HostTarget> = LEVELS.iter().filter_map(|name| HostTarget::parse(name).ok()).collect();
    let host = HostTarget::detect();
    if args.json {
        let mut list: Vec<_> = levels.iter().map(|target| facts(&target.to_string(), target)).collect();
        match &host {
            Ok(target) => list.push(facts("host", target)),
            Err(error) => list.push(json!({
                "name": "host", "kind": "host", "available": false, "why": error.to_string(),
            })),
        }
        list.extend(GPU_NAMES.map(|name| {
            json!({ "name": name, "kind": "cuda", "available": false, "why": "no kernel generators in this version" })
        }));
        return out_json(&list);
    }
    let header = ["target", "spelled out", "kind", "f32 lanes", "features"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(levels.iter().map(|target| row(&target.to_string(), target)));
    rows.push(match &host {
        Ok(target) => row("host", target),
        Err(error) => unavailable("host", "host", &error.to_string()),
    });
    rows.extend(GPU_NAMES.map(|name| unavailable(name, "cuda", "no kernel generators in this version")));
    out(table(&rows))
}

fn row(name: &str, target: &HostTarget) -> Vec<String> {
    let features = target.cpu_features().join(" ");
    vec![name.to_owned(), target.to_string(), "host".to_owned(), target.lanes().to_string(), features]
}

fn unavailable(name: &str, kind: &str, why: &str) -> Vec<String> {
    vec![name.to_owned(), "-".to_owned(), kind.to_owned(), "-".to_owned(), why.to_owned()]
}

fn facts(name: &str, target: &HostTarget) -> serde_json::Value {
    json!({
        "name": name,
        "kind": "host",
        "available": true,
        "spelled_out": target.to_string(),
        "f32_lanes": target.lanes(),
        "features": target.cpu_features(),
    })
}
