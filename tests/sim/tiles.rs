//! Products of many rows: tiles on tensor cores, their edges, the sinks behind them, and what they cost.

use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::ops::Recipe;
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Symbol};
use nemo_kernels::nvptx::Form;
use nemo_kernels::target::Sm;
use nemo_tests::drawn::{self, BF16, Extents, F32};
use nemo_tests::kernel::{Answers, Backend, Case, Given, Machine};
use nemo_tests::random::Random;
use nemo_tests::wide::{ALL_BF16, COLUMNS_OF_128, NARROW, prompts};
use ptx_sim::Counts;

use crate::backends;
use crate::kernels::{assert_close, rows};

fn linear((rows, n, k): (usize, usize, usize), y: Dtype) -> Case {
    let mut random = Random::new(11);
    let operands = vec![
        Given::rows(random.tensor(&[rows, k], -1.0, 1.0), BF16, Symbol::T),
        Given::weight(random.tensor(&[n, k], -1.0, 1.0), BF16),
    ];
    Case { op: "linear", attrs: vec![y.into()], operands }
}

/// A step of so many sequences with one token each, and context before it.
fn singles(count: usize) -> Step {
    let sequence = |_| Sequence { tokens: vec![0], ..Sequence::default() };
    Step::of(&(0..count).map(sequence).collect::<Vec<_>>())
}

/// The steps of that many rows that a back end serves by one kernel: prompts, or single tokens.
fn step_of(backend: &Backend, count: usize) -> Step {
    if matches!(backend, Backend::Sim(_, Phase::Decode)) { singles(count) } else { rows(count) }
}

#[test]
fn edges_of_tiles() {
    // Rows around the edges of tiles; odd columns; K that ends inside a stage or a piece of one.
    for count in [1, 17, 33, 64, 65, 130] {
        for (n, k) in [(99, 72), (256, 160), (130, 40), (16, 8), (64, 1120)] {
            for y in [BF16, F32] {
                for backend in backends() {
                    let machine = Machine::new(&backend, linear((count, n, k), y));
                    // Of a step of one token there are none.
                    let tiled = count > 1 || matches!(backend, Backend::Sim(_, Phase::Prefill));
                    let mut machine = if tiled { machine.built_by(Form::Tile) } else { machine };
                    let answers = machine.run(&step_of(&backend, count), 1);
                    assert_close(&answers, y, &format!("{count} x {n} x {k} in {y} on {backend}"));
                }
            }
        }
    }
}

/// Wide enough for warpgroups: columns of 128 each, and of 256.
#[test]
fn edges_of_the_tiles_of_warpgroups() {
    for (count, n, k) in [(1, 2100, 40), (65, 2200, 72), (130, 8200, 136), (257, 2100, 64)] {
        for y in [BF16, F32] {
            let backend = Backend::Sim(Sm::Sm90, Phase::Prefill);
            let machine = Machine::new(&backend, linear((count, n, k), y));
            let mut machine = machine.built_by(Form::Warpgroup);
            let answers = machine.run(&rows(count), 1);
            assert_close(&answers, y, &format!("{count} x {n} x {k} in {y} on {backend}"));
            let counts = machine.counts().expect("it was simulated");
            assert!(counts.bulk_bytes > 0, "{n} columns are no matter of warpgroups");
        }
    }
}

/// Every op with a product through tiles: whole pieces of K, and columns that need not be. Tiles of warpgroups have so many
/// columns, and take an x that is not normed.
fn check_sinks(extents: &Extents, backend: &Backend, step: &Step, warpgroups: bool) {
    let decode = matches!(backend, Backend::Sim(_, Phase::Decode));
    for op in nemo_ir::ops::table() {
        let Some(recipe) = Recipe::of(op) else { continue };
        // Rows before a tile's first are no part of it; a convolution needs them but in decode.
        let convolves = recipe.step("causal_conv1d").is_some() && !decode;
        let normed = ["rms_norm", "gated_rms_norm"].iter().any(|norm| recipe.step(norm).is_some());
        if recipe.step("linear").is_none() || convolves || (warpgroups && normed) {
            continue;
        }
        let form = if warpgroups { Form::Warpgroup } else { Form::Tile };
        let case = drawn::case(op, extents, ALL_BF16, step.tokens.len());
        let mut machine = Machine::new(backend, case).built_by(form);
        let answers = machine.run(step, 1);
        let bulk = machine.counts().expect("it was simulated").bulk_bytes;
        assert_eq!(bulk > 0, warpgroups, "{} on {backend}", op.name);
        // What falls to the other side in bf16 on the way shows as much in a result of f32.
        let all = std::iter::once(&answers).chain(&answers.others);
        for answers in all {
            assert_close(answers, BF16, &format!("{} on {backend}", op.name));
        }
    }
}

#[test]
fn sinks_of_tiles() {
    for backend in backends() {
        let decode = matches!(backend, Backend::Sim(_, Phase::Decode));
        let step = if decode { decoding(33) } else { prompts() };
        check_sinks(&NARROW, &backend, &step, false);
    }
}

/// Single tokens with their states, some of them padding.
fn decoding(count: usize) -> Step {
    let sequence = |index: usize| {
        let place = if index < 3 { index as i32 } else { -1 };
        let token = if index < 3 { 0 } else { -1 };
        let (slot_in, slot_out) = (place, place);
        let context = if index < 3 { 5 } else { 0 };
        Sequence {
            tokens: vec![token],
            context,
            slot_in,
            slot_out,
            pages: vec![place],
            ..Sequence::default()
        }
    };
    Step::of(&(0..count).map(sequence).collect::<Vec<_>>())
}

#[test]
fn sinks_of_the_tiles_of_warpgroups() {
    let backend = Backend::Sim(Sm::Sm90, Phase::Prefill);
    // Columns of 128 each, and of 256 where there are enough.
    let many = Extents { n: 4400, attention: (136, 68, 64), ..NARROW };
    for extents in [COLUMNS_OF_128, many] {
        check_sinks(&extents, &backend, &prompts(), true);
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_its_place() {
    for form in [Form::Warpgroup, Form::Tile, Form::Stream] {
        bits_of_rows(form);
    }
}

fn bits_of_rows(form: Form) {
    let (n, k) = (72, 136);
    let first = |answers: &Answers, row: usize| answers.kernel[row * n..][..n].to_vec();
    let backends = backends().into_iter().filter(|backend| match backend {
        Backend::Sim(sm, _) => form != Form::Warpgroup || *sm == Sm::Sm90,
        Backend::Host(_) => false,
    });
    for (backend, counts) in backends.map(|backend| {
        let decode = matches!(backend, Backend::Sim(_, Phase::Decode));
        (backend, if decode { [64, 17] } else { [130, 1] })
    }) {
        let [many, few] = counts;
        let machine = || Machine::new(&backend, linear((many, n, k), F32)).built_by(form);
        let all = machine().run(&step_of(&backend, many), 1);
        let Given::Tensor { tensor, .. } = &linear((many, n, k), F32).operands[0] else {
            unreachable!("the case starts with x")
        };
        let x = tensor.as_real().expect("x is real");
        // The last rows of the many are the first of the few.
        let last = many - few;
        let mut alone = machine();
        alone.set(0, Tensor::real([few, k], x[last * k..].to_vec()));
        let alone = alone.run(&step_of(&backend, few), 1);
        for row in 0..few {
            assert_eq!(first(&alone, row), first(&all, last + row), "row {row} by {form} on {backend}");
        }
    }
}

/// Where all is whole, every sector that is asked for is used, nothing is read twice by a tile, and no bank of shared memory
/// is met twice.
#[test]
fn costs() {
    let cost = |backend: &Backend, case: Case, form: Form, count: usize| -> Counts {
        let mut machine = Machine::new(backend, case).built_by(form);
        machine.run(&step_of(backend, count), 1);
        let counts = machine.counts().expect("it was simulated");
        counts.clone()
    };
    let (n, k) = (2304, 256);
    for backend in backends() {
        let decode = matches!(backend, Backend::Sim(_, Phase::Decode));
        let count = if decode { 64 } else { 128 };
        let warpgroups = backend == Backend::Sim(Sm::Sm90, Phase::Prefill);
        let form = if warpgroups { Form::Warpgroup } else { Form::Tile };
        let counts = cost(&backend, linear((count, n, k), BF16), form, count);
        let shared = [&counts.shared_loads, &counts.shared_stores];
        assert_eq!(shared.map(|counts| counts.replays), [0, 0], "{backend}");
        assert_eq!(counts.global_stores.full_fraction(), 1.0, "{backend}");
        let read = (2 * k * (n + count)) as u64;
        let blocks = (n / 128) as u64;
        let copied = (2 * k * n) as u64 + blocks * (2 * k * count) as u64;
        if warpgroups {
            assert_eq!(counts.bulk_bytes, copied, "{backend}");
        } else {
            assert_eq!(counts.global_copies.full_fraction(), 1.0, "{backend}");
            assert_eq!(counts.global_copies.bytes, copied, "{backend}");
        }
        assert!(counts.unique_load_sectors * 32 <= read * 103 / 100, "{backend}");
        let product = (2 * count * n * k) as u64;
        assert_eq!(counts.mma_flops, product, "{backend}");
    }
}
