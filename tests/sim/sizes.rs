//! What the kernels of a token ask of memory, at the extents of real systems.

use nemo_ir::ops::{OperandKind, Recipe};
use nemo_ir::plan::Phase;
use nemo_ir::types::Symbol;
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::{Sm, Target};
use nemo_models::Model;
use nemo_tests::sim::cost_of_a_token;
use nemoc::{CompileOptions, plan_for};

/// Tokens before the one that is decoded.
const CONTEXT: u64 = 8191;
/// Columns that are left of a vocabulary: CTAs of a head share nothing, so a part of them tells of all.
const VOCAB: u64 = 8192;

/// The distinct kernels of a decode step of one sequence.
fn kernels(name: &str, sm: Sm) -> Vec<KernelSpec> {
    let model = Model { vocab: VOCAB, ..Model::builtin(name).expect("a built-in system") };
    let options = CompileOptions::new(vec![Target::Gpu(sm)]);
    let planned = plan_for(&model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let planned = &planned.targets[0].planned;
    let mut kernels: Vec<_> = planned.kernels.iter().map(|(_, spec)| spec.clone()).collect();
    kernels
        .retain(|spec| spec.steps.is_some_and(|steps| steps.phase == Phase::Decode && steps.max_tokens == 1));
    kernels
}

/// Whether a kernel is bound by what it streams: products, the scan's step, attention.
fn streams(spec: &KernelSpec) -> bool {
    let has =
        |name| spec.op.name == name || Recipe::of(spec.op).is_some_and(|recipe| recipe.step(name).is_some());
    ["linear", "ssd_recurrent", "paged_attention"].into_iter().any(has)
}

/// Bytes that have to be read: each operand once, of a cache the tokens that are there.
fn ideal(spec: &KernelSpec) -> u64 {
    let places = (0..spec.op.operands.len()).filter(|index| spec.present(*index).is_some());
    let read = |(layout, place): (&nemo_kernels::spec::Layout, usize)| {
        let operand = &spec.op.operands[place];
        let unit = layout.ty.bytes(|symbol| u64::from(symbol != Symbol::P));
        match (operand.kind, operand.name) {
            (OperandKind::Step(_), _) => 0,
            (OperandKind::Table, _) => layout.ty.width().unwrap_or(0) * layout.dtype().bytes(),
            // A page has 64 tokens; who appends to the cache reads none of it.
            (_, "kv") if spec.op.name == "paged_attention" => unit / 64 * (CONTEXT + 1),
            (_, "kv") => 0,
            _ => unit,
        }
    };
    spec.operands.iter().zip(places).map(read).sum()
}

fn check(name: &str) {
    for sm in Sm::ALL {
        for spec in kernels(name, sm).iter().filter(|spec| streams(spec)) {
            let counts = cost_of_a_token(sm, spec, CONTEXT);
            let ideal = ideal(spec) as f64;
            let loads = &counts.global_loads;
            let (asked, touched) =
                (loads.bytes as f64 / ideal, counts.unique_load_sectors as f64 * 32.0 / ideal);
            let shared = [&counts.shared_loads, &counts.shared_stores];
            let replays: u64 = shared.iter().map(|counts| counts.replays).sum();
            let requests: u64 = shared.iter().map(|counts| counts.requests).sum();
            let what = format!("{} of {name} on {}", spec.op.name, sm.name());
            let full = loads.full_fraction();
            println!(
                "{what}: {asked:.3} asked for, {touched:.3} touched, {full:.4} in whole sectors, {replays} replays"
            );
            assert!(touched <= 1.03, "{what}: {touched} of the ideal bytes are touched");
            assert!(asked <= 1.25, "{what}: {asked} of the ideal bytes are asked for");
            // Every CTA of the scan reads its head's step size, decay and skip, and its sequence's slots: single numbers.
            let least = if spec.op.name.starts_with("ssd") { 0.98 } else { 0.99 };
            assert!(full >= least, "{what}: {full} of the sectors are used in full");
            assert!(replays * 100 <= requests, "{what}: {replays} replays of {requests} accesses");
            assert_eq!(counts.local_loads + counts.local_stores, 0, "{what}: local memory is used");
        }
    }
}

#[test]
fn a_token_of_the_hybrid_system() {
    check("nemotron-nano-9b-v2");
}

#[test]
fn a_token_of_the_llama_system() {
    check("llama-3.1-nemotron-nano-8b-v1");
}
