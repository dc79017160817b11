//! What a token costs at least: bytes that a decode step has to move, operations that a prompt takes.

use std::collections::BTreeSet;

use nemo_ir::plan::{Arg, Phase, Placement, Plan, StateUnit, Weight};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

/// Bytes a token of one decode step of `seqs` sequences with `context` cached tokens each.
///
/// Every weight is read once a step, an embedding table one row a token; slot state is read and
/// written, KV pages are read.
pub(super) fn bytes_per_token(plan: &Plan, seqs: u64, context: u64) -> f64 {
    // More sequences than decode programs serve are decoded by a prefill program.
    let serving = Phase::ALL.into_iter().find_map(|phase| plan.program_for(phase, seqs));
    let Some(program) = serving.map(|index| &plan.programs[index]) else { return 0.0 };
    let mut whole = BTreeSet::new();
    let mut looked_up = BTreeSet::new();
    let mut states = BTreeSet::new();
    for call in &program.calls {
        for launch in &program.blocks[call.block].launches {
            let set = if launch.op.starts_with("embed") { &mut looked_up } else { &mut whole };
            for arg in &launch.args {
                match *arg {
                    Arg::Weight(n) => {
                        set.insert(call.weights[n]);
                    }
                    Arg::State(n) => {
                        states.insert(call.states[n]);
                    }
                    Arg::Arena(_) | Arg::Table(_) | Arg::Step(_) | Arg::Logits | Arg::Next => {}
                }
            }
        }
    }
    let step: u64 = whole.iter().map(|weight| bytes(&plan.weights[*weight])).sum();
    let row = |weight: &Weight| bytes(weight) / weight.shape.first().copied().unwrap_or(1).max(1);
    let rows: u64 = looked_up.iter().map(|weight| row(&plan.weights[*weight])).sum();
    let state: u64 = states
        .iter()
        .map(|state| &plan.states[*state])
        .map(|state| match state.per {
            StateUnit::Slot => 2 * state.unit_bytes(),
            StateUnit::Page => state.unit_bytes() * context / PAGE_TOKENS,
        })
        .sum();
    step as f64 / seqs.max(1) as f64 + (rows + state) as f64
}

/// Floating-point operations a prompt's token costs in products with the weights of layers: two an element.
/// Embedding and head are left out, as most tokens of a prompt need neither.
pub(super) fn flops_per_token(plan: &Plan) -> f64 {
    // However a program is fused, it multiplies by the same weights.
    let program = plan.programs.iter().find(|program| program.phase == Phase::Prefill);
    let calls = program.iter().flat_map(|program| &program.calls).filter(|call| call.layer.is_some());
    let weights = calls.flat_map(|call| &call.weights).map(|weight| &plan.weights[*weight]);
    let matrices = weights.filter(|weight| matches!(weight.placement, Placement::InPlace(_)));
    matrices.map(|weight| 2.0 * weight.shape.iter().product::<u64>() as f64).sum()
}

/// Bytes of a weight as kernels read it.
fn bytes(weight: &Weight) -> u64 {
    let dtype = match weight.placement {
        Placement::InPlace(dtype) => dtype,
        Placement::WidenedToF32 => Dtype::F32,
    };
    weight.shape.iter().product::<u64>() * dtype.bytes()
}
