//! Norms at the widths of real models, and at such that no registers hold.

use nemo_ir::interp::{Logits, Sequence, Step};
use nemo_ir::ops::Attr;
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::backends;
use super::kernels::{assert_close, rows};
use super::traffic::assert_lean;

const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;

fn attrs(group: usize, dtypes: &[Dtype]) -> Vec<Attr> {
    let dtypes = dtypes.iter().map(|dtype| Attr::from(*dtype));
    [1e-5.into(), (group as u64).into()].into_iter().chain(dtypes).collect()
}

fn rms_norm(count: usize, (width, group): (usize, usize), dtype: Dtype) -> Case {
    let mut random = Random::new(90);
    let x = random.tensor(&[count, width], -3.0, 3.0);
    // One weight for all heads, where there are heads.
    let weight = random.tensor(&[group], 0.5, 1.5);
    let operands = vec![Given::rows(x, dtype, Symbol::T), Given::weight(weight, F32)];
    Case { op: "rms_norm", attrs: attrs(group, &[dtype]), operands }
}

#[test]
fn a_row_is_read_once() {
    for (width, group) in [(4480, 4480), (4096, 4096), (16384, 16384), (5120, 128)] {
        for backend in backends() {
            for count in [1, 3] {
                let mut machine = Machine::new(&backend, rms_norm(count, (width, group), BF16));
                let what = format!("{count} rows of {width} by {group} on {backend}");
                assert_close(&machine.run(&rows(count), 1), BF16, &what);
                if count == 1 && width == group {
                    assert_lean(&machine, width * 2 + group * 4, width * 2, &what);
                }
            }
        }
    }
}

#[test]
fn a_gated_group_is_read_once() {
    let (width, group, packed) = (10240, 1280, 22656);
    let case = |count: usize| {
        let mut random = Random::new(91);
        let x = random.tensor(&[count, width], -2.0, 2.0);
        let gate = random.tensor(&[count, width], -6.0, 6.0);
        let weight = random.tensor(&[width], 0.5, 1.5);
        let operands = vec![
            Given::rows(x, F32, Symbol::T),
            Given::view(gate, BF16, Symbol::T, packed),
            Given::weight(weight, F32),
        ];
        Case { op: "gated_rms_norm", attrs: attrs(group, &[BF16]), operands }
    };
    for backend in backends() {
        for count in [1, 2] {
            let mut machine = Machine::new(&backend, case(count));
            let what = format!("{count} gated rows on {backend}");
            assert_close(&machine.run(&rows(count), 1), BF16, &what);
            if count == 1 {
                assert_lean(&machine, width * (4 + 2 + 4), width * 2, &what);
            }
        }
    }
}

#[test]
fn a_sum_is_written_and_normed() {
    // Within what registers hold, and beyond.
    for width in [4480, 40_000] {
        let mut random = Random::new(92);
        let mut row = || Given::rows(random.tensor(&[2, width], -2.0, 2.0), BF16, Symbol::T);
        let addends = [row(), row()];
        let weight = Given::weight(Random::new(93).tensor(&[width], 0.5, 1.5), F32);
        for backend in backends() {
            let operands = addends.iter().cloned().chain([weight.clone()]).collect();
            let case = Case { op: "add_rms_norm", attrs: attrs(width, &[BF16, BF16]), operands };
            let mut machine = Machine::new(&backend, case);
            machine.write_over(0, 0);
            let answers = machine.run(&rows(2), 1);
            let what = format!("a sum of {width} on {backend}");
            assert_eq!(answers.kernel, answers.reference, "{what}");
            assert_close(&answers.others[0], BF16, &what);
        }
    }
}

#[test]
fn groups_that_registers_do_not_hold() {
    for backend in backends() {
        for (width, dtype) in [(40_000, F32), (33_001, BF16)] {
            let mut machine = Machine::new(&backend, rms_norm(2, (width, width), dtype));
            let what = format!("a row of {width} on {backend}");
            assert_close(&machine.run(&rows(2), 1), dtype, &what);
        }
        let width = 36_864;
        let mut random = Random::new(94);
        let mut row = || random.tensor(&[1, width], -2.0, 2.0);
        let operands = vec![
            Given::rows(row(), F32, Symbol::T),
            Given::rows(row(), F32, Symbol::T),
            Given::weight(Random::new(95).tensor(&[width], 0.5, 1.5), F32),
        ];
        let case = Case { op: "gated_rms_norm", attrs: attrs(width, &[F32]), operands };
        let answers = Machine::new(&backend, case).run(&rows(1), 1);
        assert_close(&answers, F32, &format!("a gated row of {width} on {backend}"));
    }
}

#[test]
fn rows_by_index_and_rows_that_are_not_there() {
    let all = Sequence { tokens: vec![0; 3], logits: Logits::All, ..Sequence::default() };
    for width in [4480, 40_000] {
        for backend in backends() {
            let operands = vec![
                Given::rows(Random::new(96).tensor(&[3, width], -2.0, 2.0), BF16, Symbol::T),
                Given::weight(Random::new(97).tensor(&[width], 0.5, 1.5), F32),
            ];
            let case = Case { op: "gather_rms_norm", attrs: attrs(width, &[BF16]), operands };
            let mut step = Step::of(std::slice::from_ref(&all));
            step.rows = vec![0, 2];
            let mut machine = Machine::new(&backend, case);
            let what = format!("chosen rows of {width} on {backend}");
            assert_close(&machine.run(&step, 1), BF16, &what);
            step.rows = vec![-1, 1];
            let results = machine.run_beside_chain(&step, 1);
            let (nothing, row) = results[0].0.split_at(width * 2);
            assert!(nothing.iter().all(|byte| *byte == 0), "{what}: a row that is not there");
            assert!(row.iter().any(|byte| *byte != 0), "{what}: the row beside it");
        }
    }
}

#[test]
fn bits_of_a_row_do_not_depend_on_its_neighbours() {
    for (width, group) in [(1280, 1280), (640, 64), (24, 8)] {
        for backend in backends() {
            let of = |count| {
                let mut machine = Machine::new(&backend, rms_norm(5, (width, group), F32));
                let x = Random::new(98).tensor(&[5, width], -3.0, 3.0);
                let data = x.as_real().expect("it is real")[..count * width].to_vec();
                machine.set(0, nemo_ir::interp::Tensor::real([count, width], data));
                machine.run(&rows(count), 1).kernel[..width].to_vec()
            };
            assert_eq!(of(1), of(5), "{width} by {group} on {backend}");
        }
    }
}
