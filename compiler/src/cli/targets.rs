//! `nemoc targets`.

use nemo_kernels::nvptx::needs;
use nemo_kernels::target::{HostTarget, Sm};
use nemoc::device::Device;
use serde_json::json;

use super::table::{bytes, table};
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
        list.extend(Sm::ALL.map(|sm| {
            json!({
                "name": sm.name(), "kind": "cuda", "available": true, "needs": needs(sm),
                "device": Device::for_target(sm.name()),
            })
        }));
        return out_json(&list);
    }
    let header = [
        "target",
        "spelled out",
        "kind",
        "f32 lanes",
        "device",
        "GB/s",
        "bf16 GFLOP/s",
        "f32 GFLOP/s",
        "launch us",
        "memory",
        "features",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(levels.iter().map(|target| row(&target.to_string(), target)));
    rows.push(match &host {
        Ok(target) => row("host", target),
        Err(error) => without_lanes("host", "host", None, &error.to_string()),
    });
    rows.extend(Sm::ALL.map(|sm| {
        let device = Device::for_target(sm.name());
        without_lanes(sm.name(), "cuda", device.as_ref(), &needs(sm).to_string())
    }));
    out(table(&rows))
}

/// What is known of the device behind a target; of `host`, the memory too.
fn device(name: &str, target: &HostTarget) -> Option<Device> {
    if name == "host" { Device::host().ok() } else { Device::for_target(target.level().name()) }
}

fn row(name: &str, target: &HostTarget) -> Vec<String> {
    let mut row = vec![name.to_owned(), target.to_string(), "host".to_owned(), target.lanes().to_string()];
    row.extend(device_cells(device(name, target).as_ref()));
    row.push(target.cpu_features().join(" "));
    row
}

fn without_lanes(name: &str, kind: &str, device: Option<&Device>, why: &str) -> Vec<String> {
    let mut row = vec![name.to_owned(), "-".to_owned(), kind.to_owned(), "-".to_owned()];
    row.extend(device_cells(device));
    row.push(why.to_owned());
    row
}

fn device_cells(device: Option<&Device>) -> [String; 6] {
    let Some(device) = device else { return ["-"; 6].map(str::to_owned) };
    [
        device.name.clone(),
        device.bandwidth_gb_s.to_string(),
        device.products_gflop_s.bf16.to_string(),
        device.products_gflop_s.f32.to_string(),
        device.launch_us.to_string(),
        device.memory_bytes.map_or_else(|| "-".to_owned(), bytes),
    ]
}

fn facts(name: &str, target: &HostTarget) -> serde_json::Value {
    json!({
        "name": name,
        "kind": "host",
        "available": true,
        "spelled_out": target.to_string(),
        "f32_lanes": target.lanes(),
        "features": target.cpu_features(),
        "device": device(name, target),
    })
}
