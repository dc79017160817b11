//! The saturator: what goes in comes out, the cheapest form is found, and nothing hangs on chance.

#[path = "../common/mod.rs"]
mod common;

mod costs;
mod extraction;
mod terms;
mod threads;

use nemo_ir::graph::{Block, Program};
use nemo_ir::plan::Phase;
use nemo_models::{Model, builtin_names};
use nemoc::cost::Situation;
use nemoc::device::Device;
use nemoc::lower::{LowerOptions, lower};

/// Every built-in device.
fn devices() -> Vec<Device> {
    Device::builtin_names().into_iter().filter_map(Device::builtin).collect()
}

fn lowered(model: &Model, phase: Phase) -> Program {
    lower(model, phase, LowerOptions::of(model)).unwrap_or_else(|error| panic!("{error}"))
}

/// The blocks of every built-in system, each kind of block once: systems that differ only in how often they call
/// their blocks have them in common.
fn shipped(phase: Phase) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for name in builtin_names() {
        let model = Model::builtin(name).unwrap_or_else(|| panic!("{name} does not parse"));
        for block in lowered(&model, phase).blocks {
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
    }
    blocks
}

/// Steps of one, a few and many sequences, and a prompt.
fn situations(device: &Device) -> [Situation<'_>; 4] {
    let decode = |seqs| Situation::decode(device, seqs);
    let prefill = Situation::prefill(device, 512);
    [decode(1), decode(8), decode(64), prefill]
}
