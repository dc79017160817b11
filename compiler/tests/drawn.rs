//! Graphs that nobody tuned for: drawn models, fused for drawn devices, do what they did before.

mod common;

use std::cell::RefCell;
use std::collections::HashMap;

use nemo_ir::graph::Program;
use nemo_ir::interp::{Numerics, Outputs, Sequence, StateStore, Step, Tensor, run_program};
use nemo_ir::plan::Phase;
use nemo_ir::types::Type;
use nemo_ir::verify::verify_program;
use nemo_kernels::target::Target;
use nemo_models::Model;
use nemoc::device::Device;
use nemoc::fuse::fuse;
use nemoc::lower::{LowerOptions, lower};
use nemoc::plan::check::check;
use nemoc::plan::{PlanOptions, RangedProgram, plan};
use nemoc::saturate::Options;
use nemoc::saturate::law::Class;
use proptest::prelude::*;

const MAX_CONTEXT: u64 = 128;

/// Columns of the block table of each sequence.
const PAGES: usize = 2;

/// Difference that f64 leaves, as a share of the largest magnitude.
const TOLERANCE: f64 = 1e-9;

/// Weights by name: the same for every program.
#[derive(Default)]
struct Weights {
    known: RefCell<HashMap<String, Tensor>>,
}

impl Weights {
    fn get(&self, name: &str, ty: &Type) -> Tensor {
        let mut known = self.known.borrow_mut();
        let tensor = known.entry(name.to_owned()).or_insert_with(|| {
            let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.resolve(|_| 0) as usize).collect();
            // FNV-1a of the name starts a linear congruential generator.
            let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let mut real = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
            };
            let data = (0..shape.iter().product()).map(|_| real()).collect();
            Tensor::real(shape, data).rounded(ty.dtype)
        });
        tensor.clone()
    }
}

/// A prompt of some sequences, and a token of each after it.
fn steps(lengths: &[usize], vocab: u64) -> [Step; 2] {
    let token = |n: usize| (n as u64 * 7 % vocab) as i32;
    let of = |phase: Phase| {
        let sequences: Vec<Sequence> = lengths
            .iter()
            .enumerate()
            .map(|(number, length)| {
                let (tokens, context, read) = match phase {
                    Phase::Prefill => ((0..*length).map(|n| token(number + n)).collect(), 0, -1),
                    Phase::Decode => (vec![token(number)], *length as i32, number as i32),
                };
                Sequence {
                    tokens,
                    context,
                    slot_in: read,
                    slot_out: number as i32,
                    pages: (0..PAGES).rev().map(|page| (page * lengths.len() + number) as i32).collect(),
                    ..Sequence::default()
                }
            })
            .collect();
        Step::of(&sequences)
    };
    [of(Phase::Prefill), of(Phase::Decode)]
}

/// What the programs give on a prompt and a token after it, and the state that they leave.
fn run(
    [prefill, decode]: [&Program; 2],
    steps: &[Step; 2],
    weights: &Weights,
    numerics: Numerics,
) -> ([Outputs; 2], StateStore) {
    let seqs = steps[0].dims().seqs as usize;
    let mut state = StateStore::zeros(prefill, seqs, PAGES * seqs);
    let outputs = [(prefill, &steps[0]), (decode, &steps[1])].map(|(program, step)| {
        let outputs = run_program(program, |name, ty| weights.get(name, ty), &mut state, step, numerics);
        outputs.unwrap_or_else(|error| panic!("{error}\n{program}"))
    });
    (outputs, state)
}

/// Whether two tensors differ by no more than `tolerance` of the largest magnitude; with none, in no bit.
fn near(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    let (Some(x), Some(y)) = (a.as_real(), b.as_real()) else { return false };
    let largest = x.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let same = |x: &f64, y: &f64| x.to_bits() == y.to_bits() || (x - y).abs() <= tolerance * largest;
    a.shape() == b.shape() && x.iter().zip(y).all(|(x, y)| same(x, y))
}

fn equal(
    one: &([Outputs; 2], StateStore),
    other: &([Outputs; 2], StateStore),
    tolerance: f64,
) -> Result<(), String> {
    for (phase, (a, b)) in ["prompt", "token after it"].iter().zip(one.0.iter().zip(&other.0)) {
        if !near(&a.logits, &b.logits, tolerance) || a.next != b.next {
            return Err(format!("the {phase} gives {:?} and {:?}", a.logits, b.logits));
        }
    }
    for ((layer, name, a), (_, other, b)) in one.1.iter().zip(other.1.iter()) {
        if name != other || !near(a, b, tolerance) {
            return Err(format!("state `{name}` of layer {layer} is {a:?} and {b:?}"));
        }
    }
    Ok(())
}

/// Fuses, plans and runs a model, and compares each program with the one that it came from.
fn holds(
    model: &Model,
    device: &Device,
    max_seqs: u64,
    numerics: Class,
    lengths: &[usize],
) -> Result<(), String> {
    let sizes = PlanOptions { max_seqs, max_context: MAX_CONTEXT, chunk: max_seqs.max(256) };
    let options = LowerOptions::of(model);
    let lowered =
        Phase::ALL.map(|phase| lower(model, phase, options).unwrap_or_else(|error| panic!("{error}")));
    let fused = fuse(&lowered, device, sizes, Options { numerics, ..Options::default() });
    let (programs, reports): (Vec<RangedProgram>, Vec<_>) =
        fused.map_err(|error| error.to_string())?.into_iter().unzip();
    for (ranged, report) in programs.iter().zip(&reports) {
        verify_program(&ranged.program).map_err(|errors| format!("{errors:?}\n{}", ranged.program))?;
        let totals = report.totals();
        if totals.chosen.seconds > totals.off.seconds * (1.0 + TOLERANCE) {
            return Err(format!("{} became dearer: {totals:?}", report.label()));
        }
    }
    let planned = plan(model, &programs, (&Target::parse(&device.target).unwrap(), device), sizes)
        .map_err(|error| error.to_string())?;
    check(&programs, &planned).map_err(|error| error.to_string())?;

    let steps = steps(lengths, model.vocab);
    let weights = Weights::default();
    let of = |phase| move |ranged: &&RangedProgram| ranged.program.phase == phase;
    let before =
        |phase: Phase| lowered.iter().find(|program| program.phase == phase).expect("both are lowered");
    let pair = [before(Phase::Prefill), before(Phase::Decode)];
    let all = |numerics: Numerics, tolerance: f64| {
        let wanted = run(pair, &steps, &weights, numerics);
        for prefill in programs.iter().filter(of(Phase::Prefill)) {
            for decode in programs.iter().filter(of(Phase::Decode)) {
                let found = run([&prefill.program, &decode.program], &steps, &weights, numerics);
                equal(&wanted, &found, tolerance)
                    .map_err(|what| format!("{what}\n{}\n{}", prefill.program, decode.program))?;
            }
        }
        Ok(())
    };
    all(Numerics::F64, TOLERANCE)?;
    if numerics == Class::Exact { all(Numerics::Declared, 0.0) } else { Ok(()) }
}

fn device() -> impl Strategy<Value = Device> {
    let builtin = |name| Device::builtin(name).unwrap_or_else(|| panic!("there is no device `{name}`"));
    prop::sample::select(["a10g", "h100", "x86-64-v4"].map(builtin).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_fused_model_is_the_model(
        model in common::any_model(),
        device in device(),
        max_seqs in prop_oneof![Just(1u64), 2u64..=8, 9u64..=64, 65u64..=200],
        exact in any::<bool>(),
        // Prompts that end before, at and after the first page.
        lengths in prop::collection::vec(prop_oneof![6 => 1usize..10, 1 => 62usize..67], 1..4),
    ) {
        let numerics = if exact { Class::Exact } else { Class::Reassociating };
        let held = holds(&model, &device, max_seqs, numerics, &lengths);
        prop_assert!(held.is_ok(), "{}", held.unwrap_err());
    }
}

#[test]
fn the_tiny_model_is_itself_on_every_device() {
    for name in Device::builtin_names() {
        let device = Device::builtin(name).unwrap_or_else(|| panic!("{name}"));
        for numerics in [Class::Exact, Class::Rounding, Class::Reassociating] {
            let held = holds(&common::tiny(), &device, 100, numerics, &[5, 66, 1]);
            assert!(held.is_ok(), "{name}: {}", held.unwrap_err());
        }
    }
}
