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

/// The distinct kernels of decode steps.
fn kernels(name: &str, sm: Sm) -> Vec<KernelSpec> {
    let model = Model { vocab: VOCAB, ..Model::builtin(name).expect("a built-in system") };
    let options = CompileOptions { max_seqs: 64, ..CompileOptions::new(vec![Target::Gpu(sm)]) };
    let planned = plan_for(&model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let planned = &planned.targets[0].planned;
    let mut kernels: Vec<_> = planned.kernels.iter().map(|(_, spec)| spec.clone()).collect();
    kernels.retain(|spec| spec.steps.is_some_and(|steps| steps.phase == Phase::Decode));
    kernels
}

/// Whether a kernel's work, or part of it, is that op.
fn has(spec: &KernelSpec, op: &str) -> bool {
    spec.op.name == op || Recipe::of(spec.op).is_some_and(|recipe| recipe.step(op).is_some())
}

/// Whether a kernel is bound by what it streams: products, the scan's step, attention.
fn streams(spec: &KernelSpec) -> bool {
    ["linear", "ssd_recurrent", "paged_attention"].into_iter().any(|op| has(spec, op))
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

/// Checks kernels for a step of one token.
fn check(name: &str, sm: Sm, specs: &[KernelSpec]) {
    assert!(!specs.is_empty(), "{name} has none on {}", sm.name());
    for spec in specs {
        let counts = cost_of_a_token(sm, spec, CONTEXT);
        let ideal = ideal(spec) as f64;
        let loads = &counts.global_loads;
        let (asked, touched) = (loads.bytes as f64 / ideal, counts.unique_load_sectors as f64 * 32.0 / ideal);
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
        assert!(full >= 0.99, "{what}: {full} of the sectors are used in full");
        assert!(replays * 100 <= requests, "{what}: {replays} replays of {requests} accesses");
        assert_eq!(counts.local_loads + counts.local_stores, 0, "{what}: local memory is used");
    }
}

/// Checks the kernels of a step of one token.
fn check_step(name: &str) {
    for sm in Sm::ALL {
        let mut specs = kernels(name, sm);
        specs.retain(|spec| spec.steps.is_some_and(|steps| steps.max_tokens == 1) && streams(spec));
        check(name, sm, &specs);
    }
}

#[test]
fn a_token_of_the_hybrid_system() {
    check_step("nemotron-nano-9b-v2");
}

#[test]
fn a_token_of_the_llama_system() {
    check_step("llama-3.1-nemotron-nano-8b-v1");
}

/// The scan's kernels of one token and those of several, which may convolve and norm, too: for one token alone each, on
/// both targets whichever takes them.
#[test]
fn a_token_of_every_scan() {
    for name in ["nemotron-nano-9b-v2", "nemotron-h-8b", "nemotron-h-56b"] {
        let mut specs: Vec<_> = Sm::ALL.into_iter().flat_map(|sm| kernels(name, sm)).collect();
        specs.retain(|spec| has(spec, "ssd_recurrent"));
        specs.sort_by_key(|spec| spec.op.name);
        specs.dedup_by_key(|spec| spec.op.name);
        Sm::ALL.into_iter().for_each(|sm| check(name, sm, &specs));
    }
}
