use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::{assert_close, backends, check, rows, steady_backends};

fn case(seed: u64, (rows, n, k): (usize, usize, usize), x: Dtype, w: Dtype, y: Dtype) -> Case {
    let mut random = Random::new(seed);
    let operands = vec![
        Given::rows(random.tensor(&[rows, k], -1.0, 1.0), x, Symbol::T),
        Given::weight(random.tensor(&[n, k], -1.0, 1.0), w),
    ];
    Case { op: "linear", attrs: vec![y.into()], operands }
}

const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;

#[test]
fn odd_shapes() {
    for shape in [(1, 8, 32), (1, 1, 1), (2, 3, 5), (3, 9, 33), (7, 17, 100), (16, 40, 160), (5, 23, 63)] {
        for (x, w, y) in [(BF16, BF16, BF16), (BF16, BF16, F32), (F32, BF16, F32), (F32, F32, F32)] {
            let what = format!("linear {shape:?} {x} {w} {y}");
            check(|| case(1, shape, x, w, y), &rows(shape.0), y, &what);
        }
    }
}

#[test]
fn blocks_of_rows_larger_than_the_cache() {
    // 300 rows of 2048 f32 are more than the kernel keeps in cache at once.
    let shape = (300, 12, 2048);
    check(|| case(2, shape, F32, F32, F32), &rows(shape.0), F32, "linear in blocks");
}

#[test]
fn rows_that_fall_into_the_same_sets() {
    // Rows of whole pages are copied apart; one row more than fits at once.
    for (x, k) in [(BF16, 2048), (F32, 1024), (F32, 2048)] {
        let shape = (if k == 1024 { 130 } else { 67 }, 11, k);
        check(|| case(5, shape, x, BF16, F32), &rows(shape.0), F32, "linear of whole pages");
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_its_neighbours() {
    for target in steady_backends() {
        for (x, w) in [(BF16, BF16), (F32, BF16)] {
            let (k, n) = (130, 19);
            let mut together = Machine::new(&target, case(3, (11, n, k), x, w, F32));
            let all = together.run(&rows(11), 1).kernel;
            for row in 0..11 {
                let mut alone = Machine::new(&target, case(3, (11, n, k), x, w, F32));
                let Given::Tensor { tensor, .. } = &case(3, (11, n, k), x, w, F32).operands[0] else {
                    unreachable!("the case starts with x")
                };
                let line = tensor.as_real().unwrap()[row * k..][..k].to_vec();
                alone.set(0, nemo_ir::interp::Tensor::real([1, k], line));
                let answers = alone.run(&rows(1), 2);
                assert_close(&answers, F32, "alone");
                assert_eq!(answers.kernel, all[row * n..][..n], "row {row} on {target}");
            }
        }
    }
}

#[test]
fn rows_of_a_wider_tensor() {
    let mut case = case(4, (4, 6, 40), BF16, BF16, BF16);
    let Given::Tensor { tensor, .. } = case.operands[0].clone() else { unreachable!("x") };
    case.operands[0] = Given::view(tensor, BF16, Symbol::T, 97);
    for target in backends() {
        let case = Case { op: case.op, attrs: case.attrs.clone(), operands: case.operands.clone() };
        let answers = Machine::new(&target, case).run(&rows(4), 2);
        assert_close(&answers, BF16, "view");
    }
}
