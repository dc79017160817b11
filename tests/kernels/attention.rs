use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::rope::RopeTable;
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::{assert_close, backends, check, steady_backends};

fn sequence(tokens: usize, context: i32, pages: &[i32]) -> Sequence {
    Sequence { tokens: vec![0; tokens], context, pages: pages.to_vec(), ..Sequence::default() }
}

#[test]
fn rotation() {
    let table = RopeTable { theta: 10_000.0, head_dim: 20, positions: 300, scaling: None };
    let step = Step::of(&[sequence(5, 0, &[0]), sequence(3, 290, &[1, 2, 3, 4, 5])]);
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let case = || Case {
            op: "rope",
            attrs: vec![dtype.into()],
            operands: vec![
                Given::rows(Random::new(40).tensor(&[8, 60], -1.0, 1.0), dtype, Symbol::T),
                Given::Table(table),
            ],
        };
        check(case, &step, dtype, "rope");
    }
}

#[test]
fn keys_and_values_go_to_their_pages() {
    // A page boundary inside a sequence, and a sequence without a page.
    let step = Step::of(&[sequence(10, 60, &[3, 1]), sequence(2, 0, &[-1]), sequence(1, 5, &[0])]);
    for dtype in [Dtype::Bf16, Dtype::F32] {
        for target in backends() {
            let mut random = Random::new(41);
            let operands = vec![
                Given::rows(random.tensor(&[13, 2 * 24], -1.0, 1.0), dtype, Symbol::T),
                Given::rows(random.tensor(&[13, 2 * 24], -1.0, 1.0), dtype, Symbol::T),
                Given::State { tensor: Tensor::zeros([4, 2, 2, 64, 24]), dtype, units: Symbol::N },
            ];
            let answers =
                Machine::new(&target, Case { op: "kv_append", attrs: vec![], operands }).run(&step, 3);
            assert_eq!(answers.kernel, answers.reference, "on {target}");
        }
    }
}

/// Heads, KV heads, head_dim, window.
fn attention(
    (heads, kv_heads, head_dim, window): (usize, usize, usize, u64),
    rows: usize,
    dtype: Dtype,
) -> Case {
    let mut random = Random::new(42);
    let kv = random.tensor(&[6, 2, kv_heads, 64, head_dim], -1.0, 1.0);
    let operands = vec![
        Given::rows(random.tensor(&[rows, heads * head_dim], -4.0, 4.0), dtype, Symbol::T),
        Given::State { tensor: kv, dtype, units: Symbol::N },
    ];
    let scale = 1.0 / (head_dim as f64).sqrt();
    Case { op: "paged_attention", attrs: vec![scale.into(), window.into(), dtype.into()], operands }
}

#[test]
fn attention_over_pages() {
    let step = Step::of(&[
        sequence(3, 126, &[4, 0, 2]),
        sequence(1, 0, &[1]),
        sequence(1, -1 + 64, &[5]),
        sequence(70, 0, &[3, 1]),
    ]);
    for shape in [
        (4, 2, 32, 0),
        (3, 1, 20, 0),
        (2, 2, 128, 0),
        (4, 1, 16, 50),
        (2, 1, 7, 1),
        (10, 2, 24, 0),
        (7, 1, 16, 0),
    ] {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            check(|| attention(shape, 75, dtype), &step, dtype, &format!("attention {shape:?}"));
        }
    }
}

#[test]
fn a_padded_row_is_harmless() {
    let step = Step::of(&[sequence(1, 0, &[-1]), sequence(1, 63, &[2])]);
    for target in backends() {
        let answers = Machine::new(&target, attention((4, 2, 32, 0), 2, Dtype::F32)).run(&step, 1);
        assert!(answers.kernel.iter().all(|x| x.is_finite()));
        assert_close(&answers, Dtype::F32, &format!("padded on {target}"));
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_its_neighbours() {
    let both = Step::of(&[sequence(2, 70, &[4, 0]), sequence(1, 100, &[3, 1])]);
    let alone = Step::of(&[sequence(1, 100, &[3, 1])]);
    for target in steady_backends() {
        let case = || attention((4, 2, 32, 0), 3, Dtype::Bf16);
        let together = Machine::new(&target, case()).run(&both, 2).kernel;
        let Given::Tensor { tensor, .. } = &case().operands[0] else { unreachable!("q") };
        let mut machine = Machine::new(&target, case());
        machine.set(0, Tensor::real([1, 128], tensor.as_real().unwrap()[256..].to_vec()));
        assert_eq!(machine.run(&alone, 1).kernel, together[256..], "on {target}");
    }
}
