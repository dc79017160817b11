//! Plans do what their graphs say, and the check notices when one does not.

mod common;

use nemo_ir::artifact::validate;
use nemo_ir::plan::{Arg, Phase};
use nemo_kernels::target::Target;
use nemo_models::Model;
use nemoc::device::Device;
use nemoc::lower::{LowerOptions, lower};
use nemoc::plan::check::check;
use nemoc::plan::{PlanError, PlanOptions, Planned, RangedProgram, plan, print};
use proptest::prelude::*;

const SIZES: PlanOptions = PlanOptions { max_seqs: 4, max_context: 128, chunk: 32 };

fn programs(model: &Model, sizes: PlanOptions) -> Vec<RangedProgram> {
    let options = LowerOptions { max_context: sizes.max_context, ..LowerOptions::of(model) };
    let lowered = Phase::ALL.iter().map(|phase| lower(model, *phase, options).unwrap());
    lowered.map(|program| RangedProgram::whole(program, sizes)).collect()
}

fn planned_for_host(
    model: &Model,
    programs: &[RangedProgram],
    sizes: PlanOptions,
) -> Result<Planned, PlanError> {
    let (target, device) = (Target::parse("x86-64-v3").unwrap(), Device::for_target("x86-64-v3").unwrap());
    plan(model, programs, (&target, &device), sizes)
}

fn planned(model: &Model) -> (Vec<RangedProgram>, Planned) {
    let programs = programs(model, SIZES);
    let planned = planned_for_host(model, &programs, SIZES).unwrap();
    (programs, planned)
}

#[test]
fn tiny_model() {
    let (programs, planned) = planned(&common::tiny());
    check(&programs, &planned).unwrap();
    validate(&planned.plan).unwrap();
    insta::assert_snapshot!(print(&planned.plan));
}

#[test]
fn a_tied_head_reads_the_embedding() {
    let (_, planned) = planned(&common::tiny());
    let program = &planned.plan.programs[0];
    let (first, last) = (program.calls.first().unwrap(), program.calls.last().unwrap());
    assert!(last.weights.contains(&first.weights[0]));
}

#[test]
fn names_of_both_spellings_and_stored_shapes() {
    let (_, planned) = planned(&common::tiny());
    let weight = |name: &str| planned.plan.weights.iter().find(|weight| weight.names[0] == name).unwrap();
    let conv = weight("backbone.layers.5.mixer.conv1d.weight");
    assert_eq!(conv.names[1], "model.layers.5.mixer.conv1d.weight");
    assert_eq!(conv.shape, [160, 1, 4]);
}

#[test]
fn decode_and_prefill_share_states_and_kernels() {
    let (_, planned) = planned(&common::tiny());
    let [decode, prefill] = &planned.plan.programs[..] else { panic!("two programs") };
    for (a, b) in decode.calls.iter().zip(&prefill.calls) {
        assert_eq!((&a.weights, &a.states), (&b.weights, &b.states));
    }
    assert_eq!(planned.plan.kernels.iter().filter(|kernel| kernel.symbol.starts_with("ssd_")).count(), 2);
    let mut texts: Vec<_> = planned.plan.kernels.iter().map(|kernel| &kernel.what).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), planned.plan.kernels.len());
}

#[test]
fn an_absurd_arena_is_refused() {
    let mut model = common::tiny();
    model.hidden = 1 << 24;
    let sizes = PlanOptions { chunk: 8192, ..SIZES };
    let programs = programs(&model, sizes);
    let error = planned_for_host(&model, &programs, sizes).unwrap_err().to_string();
    assert!(error.contains("the prefill program would need") && error.contains("lower --chunk"), "{error}");
}

#[test]
fn a_prefill_step_smaller_than_the_batch_takes_fewer_sequences() {
    let model = common::tiny();
    let sizes = PlanOptions { max_seqs: 8, chunk: 3, ..SIZES };
    let programs = programs(&model, sizes);
    let planned = planned_for_host(&model, &programs, sizes).unwrap();
    check(&programs, &planned).unwrap();
    let [decode, prefill] = &planned.plan.programs[..] else { panic!("two programs") };
    assert_eq!((decode.max_tokens, decode.max_seqs), (8, 8));
    assert_eq!((prefill.max_tokens, prefill.max_seqs), (3, 3));
}

#[test]
fn a_phase_may_have_several_programs() {
    let model = common::tiny();
    let [decode, prefill] = &programs(&model, SIZES)[..] else { panic!("two programs") };
    let ranged = |program: &RangedProgram, tokens| RangedProgram { tokens, ..program.clone() };
    let programs =
        [ranged(decode, 1..=1), ranged(decode, 2..=4), ranged(prefill, 1..=3), ranged(prefill, 4..=32)];
    let planned = planned_for_host(&model, &programs, SIZES).unwrap();
    check(&programs, &planned).unwrap();
    validate(&planned.plan).unwrap();
    let of = |index: usize| &planned.plan.programs[index];
    let sizes: Vec<_> = (0..4).map(|index| (of(index).tokens(), of(index).max_seqs)).collect();
    assert_eq!(sizes, [(1..=1, 1), (2..=4, 4), (1..=3, 3), (4..=32, 4)]);
    // Each arena is as large as its own steps need; kernels are shared.
    assert!(of(0).arena_bytes < of(1).arena_bytes && of(2).arena_bytes < of(3).arena_bytes);
    let kernels = |index: usize| -> Vec<_> {
        of(index).blocks.iter().flat_map(|block| &block.launches).map(|launch| launch.kernel).collect()
    };
    assert_eq!((kernels(0), kernels(2)), (kernels(1), kernels(3)));
    assert!(print(&planned.plan).contains("program decode {tokens: 2..=4, max_seqs: 4,"));

    let mut other = programs.clone();
    other[1].tokens = 2..=3;
    let error = check(&other, &planned).unwrap_err().to_string();
    assert_eq!(error, "plan, decode 2..=3: it is planned for 2..=4 tokens");
    let planned = planned_for_host(&model, &other[..2], SIZES).unwrap();
    assert!(check(&programs, &planned).is_err());
}

/// Every argument of a plan's launches.
fn args(planned: &mut Planned) -> Vec<&mut Arg> {
    let blocks = planned.plan.programs.iter_mut().flat_map(|program| &mut program.blocks);
    blocks.flat_map(|block| &mut block.launches).flat_map(|launch| &mut launch.args).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn drawn_models_are_planned_right(model in common::any_model()) {
        let (programs, planned) = planned(&model);
        prop_assert!(check(&programs, &planned).is_ok(), "{:?}\n{}", check(&programs, &planned), print(&planned.plan));
        prop_assert!(validate(&planned.plan).is_ok(), "{:?}", validate(&planned.plan));
    }

    #[test]
    fn a_moved_argument_is_noticed(which in any::<prop::sample::Index>(), lines in 1u64..200, up in any::<bool>()) {
        let (programs, mut planned) = planned(&common::tiny());
        let mut args = args(&mut planned);
        let arg = which.index(args.len());
        let before = *args[arg];
        *args[arg] = match before {
            Arg::Arena(offset) if up => Arg::Arena(offset + 64 * lines),
            Arg::Arena(offset) => Arg::Arena(offset.saturating_sub(64 * lines)),
            Arg::Weight(n) => Arg::Weight(n + 1),
            Arg::State(n) => Arg::State(n + 1),
            Arg::Table(n) => Arg::Table(n + 1),
            Arg::Step(_) | Arg::Logits | Arg::Next => Arg::Arena(0),
        };
        if *args[arg] != before {
            // A result nobody overwrites may well lie elsewhere, unless somebody reads it where it was: all are read.
            prop_assert!(check(&programs, &planned).is_err(), "argument {arg}, {before:?}");
        }
    }

    #[test]
    fn swapped_bindings_are_noticed(call in any::<prop::sample::Index>(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (programs, mut planned) = planned(&common::tiny());
        let calls = &mut planned.plan.programs[1].calls;
        let weights = &mut calls[call.index(6)].weights;
        let (a, b) = (a.index(weights.len()), b.index(weights.len()));
        weights.swap(a, b);
        prop_assert_eq!(check(&programs, &planned).is_err(), a != b);
    }
}

#[test]
fn a_launch_out_of_order_is_noticed() {
    let (programs, planned) = planned(&common::tiny());
    for (number, block) in planned.plan.programs[1].blocks.iter().enumerate() {
        for launch in 1..block.launches.len() {
            let mut wrong = planned.clone();
            wrong.plan.programs[1].blocks[number].launches.swap(launch - 1, launch);
            assert!(check(&programs, &wrong).is_err(), "{} {launch}", block.name);
        }
    }
}

#[test]
fn shared_memory_of_values_that_live_together_is_noticed() {
    // Put every buffer at the start: the first op that reads another value than the last one written must fail.
    let (programs, mut planned) = planned(&common::tiny());
    for arg in args(&mut planned) {
        if let Arg::Arena(offset) = arg {
            *offset = 0;
        }
    }
    assert!(check(&programs, &planned).is_err());
}
