//! Fused ops: against the interpreter, and bit by bit against the chain of kernels that each replaces
//! (the harness compares those). Cases are drawn from the table: an op whose operands are known by name
//! needs no case of its own.

use nemo_ir::interp::{Sequence, Step};
use nemo_ir::ops::{Family, Op, Recipe, op, table};
use nemo_ir::plan::Phase;
use nemo_tests::drawn::{BF16, DTYPES, Dtypes, EXTENTS, Extents, F32, case, steps};
use nemo_tests::kernel::{Backend, Given, Machine};

use super::{assert_close, backends, rows};

/// GPUs convolve products on their way only in kernels of decode steps, where each row is a sequence.
fn serves(backend: &Backend, op: Op, step: &Step) -> bool {
    let convolves = Recipe::of(op)
        .is_some_and(|recipe| recipe.step("linear").is_some() && recipe.step("causal_conv1d").is_some());
    let dims = step.dims();
    match backend {
        Backend::Sim(_, phase) if convolves => *phase == Phase::Decode && dims.tokens == dims.seqs,
        Backend::Sim(..) | Backend::Host(_) => true,
    }
}

fn check(op: Op) {
    for target in backends() {
        for (index, (extents, dtypes)) in EXTENTS.iter().zip(DTYPES).enumerate() {
            let mut machine = Machine::new(&target, case(op, extents, dtypes, 1));
            // An intermediate that falls to the other side in bf16 shows as much in a result of f32.
            let tolerance = if dtypes.y == F32 { F32 } else { BF16 };
            for (number, step) in steps().iter().enumerate().filter(|(_, step)| serves(&target, op, step)) {
                let fresh = case(op, extents, dtypes, step.tokens.len());
                for (operand, given) in fresh.operands.into_iter().enumerate() {
                    if let Given::Tensor { tensor, rows: Some(_), .. } = given {
                        machine.set(operand, tensor);
                    }
                }
                let answers = machine.run(step, [1, 2, 5, 1][(index + number) % 4]);
                let what = format!("{} {index} step {number} on {target}", op.name);
                assert_close(&answers, tolerance, &what);
                for other in &answers.others {
                    assert_close(other, tolerance, &what);
                }
            }
        }
    }
}

fn check_family(family: Family) {
    for op in table().filter(|op| !op.recipe.is_empty() && op.family == family) {
        check(op);
    }
}

#[test]
fn of_norms() {
    check_family(Family::Norm);
}

#[test]
fn of_products() {
    check_family(Family::Linear);
}

#[test]
fn of_activations() {
    check_family(Family::Ffn);
}

#[test]
fn of_the_scan() {
    check_family(Family::Scan);
}

#[test]
fn of_attention() {
    check_family(Family::Attention);
}

#[test]
fn of_the_ends() {
    check_family(Family::Head);
}

#[test]
fn a_residual_may_be_written_over() {
    for (name, operand, result) in
        [("linear_add", 2, 0), ("gated_norm_linear_add", 4, 0), ("add_rms_norm", 0, 0)]
    {
        let op = op(name).expect("the table has it");
        for target in backends() {
            for (extents, x) in [(&EXTENTS[0], BF16), (&EXTENTS[2], F32)] {
                let dtypes = Dtypes { x, weight: BF16, inner: x, y: x };
                for (count, threads) in [(1, 1), (70, 5)] {
                    // The chain, which the harness compares with, writes to other buffers.
                    let mut machine = Machine::new(&target, case(op, extents, dtypes, count));
                    machine.write_over(operand, result);
                    machine.run(&rows(count), threads);
                }
            }
        }
    }
}

/// Rows that fill the second-level cache several times, with sequences that begin and end inside blocks.
#[test]
fn blocks_of_rows_larger_than_the_cache() {
    let extents = Extents { k: 2048, n: 9, group: 2048, ..EXTENTS[0] };
    let sequence = |tokens, context, slot, pages: &[i32]| Sequence {
        tokens: vec![0; tokens],
        context,
        slot_in: slot,
        slot_out: slot,
        pages: pages.to_vec(),
        ..Sequence::default()
    };
    let step = Step::of(&[
        sequence(62, 3, 0, &[4, 0]),
        sequence(70, 0, 1, &[1, 2]),
        sequence(1, 5, -1, &[-1]),
        sequence(60, 0, 2, &[3]),
    ]);
    for name in [
        "norm_linear_swiglu",
        "gated_norm_linear_add",
        "norm_linear_rope_qkv",
        "norm_linear_conv",
        "linear_conv",
    ] {
        let op = op(name).expect("the table has it");
        for target in backends().into_iter().filter(|target| serves(target, op, &step)) {
            let dtypes = Dtypes { x: F32, weight: BF16, inner: F32, y: F32 };
            let extents = if name.ends_with("conv") { Extents { n: 3, ..extents } } else { extents };
            let mut machine = Machine::new(&target, case(op, &extents, dtypes, step.tokens.len()));
            for threads in [3, 1] {
                let answers = machine.run(&step, threads);
                assert_close(&answers, F32, &format!("{name} on {target}"));
            }
        }
    }
}

#[test]
fn rows_that_are_not_there_are_zeros() {
    let mut step = steps().swap_remove(0);
    step.rows = vec![-1, 3, 72];
    let gathers = |op: &Op| Recipe::of(op).is_some_and(|recipe| recipe.step("gather_rows").is_some());
    for op in table().filter(gathers) {
        for target in backends() {
            let case = case(op, &EXTENTS[0], DTYPES[0], step.tokens.len());
            let results = Machine::new(&target, case).run_beside_chain(&step, 2);
            let row = results[0].0.len() / 3;
            // Of either sign, as the weights are.
            let zeros = results[0].0[..row].chunks(2).all(|bf16| [bf16[0], bf16[1] & 0x7F] == [0, 0]);
            assert!(zeros, "{} on {target}", op.name);
        }
    }
}
