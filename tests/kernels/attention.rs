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

/// With NaN for every token of the cache that no sequence of the step has: whoever computes with one shows it, and the
/// simulator finds who reads one.
fn with_strangers(case: Case, step: &Step) -> Case {
    let Case { op, attrs, mut operands } = case;
    let Given::State { tensor, .. } = &mut operands[1] else { unreachable!("the cache") };
    let shape = tensor.shape().to_vec();
    let columns = step.dims().pages as usize;
    let mut known = vec![false; shape[0] * 64];
    for (sequence, context) in step.context.iter().enumerate() {
        let end = context + step.seq_start[sequence + 1] - step.seq_start[sequence];
        for token in 0..end as usize {
            if let Ok(page) = usize::try_from(step.pages[sequence * columns + token / 64]) {
                known[page * 64 + token % 64] = true;
            }
        }
    }
    let mut data = tensor.as_real().expect("the cache is real").to_vec();
    for (line, values) in data.chunks_mut(shape[4]).enumerate() {
        let (page, token) = (line / (2 * shape[2] * 64), line % 64);
        if !known[page * 64 + token] {
            values.fill(f64::NAN);
        }
    }
    *tensor = Tensor::real(shape, data);
    Case { op, attrs, operands }
}

#[test]
fn one_token_after_contexts_of_all_lengths() {
    let step = Step::of(&[
        sequence(1, 0, &[0]),
        sequence(1, 1, &[1]),
        sequence(1, 63, &[2]),
        sequence(1, 64, &[3, 4]),
        sequence(1, 65, &[4, 3]),
        sequence(1, 200, &[5, 2, 1, 0]),
        sequence(1, 0, &[-1]),
    ]);
    for shape in [
        (2, 2, 128, 0),
        (4, 1, 64, 0),
        (5, 1, 24, 0),
        (18, 1, 16, 0),
        (2, 1, 72, 65),
        (10, 1, 10, 0),
        (3, 1, 7, 64),
    ] {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let case = || with_strangers(attention(shape, 7, dtype), &step);
            check(case, &step, dtype, &format!("one token, {shape:?}"));
        }
    }
}

#[test]
fn a_long_context_alone() {
    // Splits of the context have several pages each, and not all of them equally many.
    let pages: Vec<i32> = (0..75).map(|page| page * 7 % 6).collect();
    let step = Step::of(&[sequence(1, 74 * 64 + 20, &pages)]);
    for (shape, dtype) in [((4, 1, 32, 0), Dtype::Bf16), ((2, 2, 10, 2500), Dtype::F32)] {
        check(|| attention(shape, 1, dtype), &step, dtype, &format!("a long context, {shape:?}"));
    }
}

#[test]
fn tiles_of_rows_in_ragged_batches() {
    let step = Step::of(&[
        sequence(64, 0, &[1]),
        sequence(65, 64, &[5, 3, 2]),
        sequence(2, 0, &[-1]),
        sequence(1, 200, &[3, 5, 4, 0]),
        sequence(5, 60, &[2, 4]),
    ]);
    for shape in
        [(2, 2, 128, 0), (5, 1, 128, 70), (4, 1, 64, 0), (5, 1, 24, 70), (2, 1, 80, 1), (4, 1, 10, 0)]
    {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let case = || with_strangers(attention(shape, 137, dtype), &step);
            check(case, &step, dtype, &format!("ragged rows, {shape:?}"));
        }
    }
}

#[test]
fn what_was_never_written_is_not_looked_at() {
    // Tiles that end at the first token of a page, inside one, and with it.
    let step = Step::of(&[sequence(3, 62, &[4, 2]), sequence(20, 0, &[1]), sequence(1, 127, &[0, 3])]);
    for shape in [(2, 1, 64, 0), (2, 2, 128, 0), (2, 1, 10, 0)] {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let case = || with_strangers(attention(shape, 24, dtype), &step);
            check(case, &step, dtype, &format!("strangers in the cache, {shape:?}"));
        }
    }
}

#[test]
fn bf16_queries_of_a_cache_in_f32() {
    let step = Step::of(&[sequence(20, 60, &[4, 2]), sequence(1, 130, &[1, 0, 3])]);
    for (q, kv) in [(Dtype::Bf16, Dtype::F32), (Dtype::F32, Dtype::Bf16)] {
        let case = || {
            let Case { op, attrs, mut operands } = attention((4, 2, 40, 0), 21, q);
            let Given::State { dtype, .. } = &mut operands[1] else { unreachable!("the cache") };
            *dtype = kv;
            Case { op, attrs, operands }
        };
        check(case, &step, q, &format!("{q} queries of {kv}"));
    }
}

#[test]
fn heads_are_normed_and_rotated() {
    let step = Step::of(&[sequence(5, 0, &[0]), sequence(3, 290, &[1, 2, 3, 4, 5])]);
    // Heads, head_dim, group, width of the weight: heads of their own, several to a group, several groups to a head, and
    // more than a warp keeps in registers.
    for (heads, head_dim, group, weights) in [
        (3, 20, 20, 20),
        (3, 20, 20, 60),
        (4, 10, 20, 40),
        (2, 24, 12, 12),
        (1, 264, 264, 264),
        (5, 128, 128, 128),
    ] {
        let table = RopeTable { theta: 10_000.0, head_dim: head_dim as u64, positions: 300, scaling: None };
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let mut random = Random::new(43);
            let x = random.tensor(&[8, heads * head_dim], -1.0, 1.0);
            let weight = random.tensor(&[weights], 0.5, 1.5);
            let case = || Case {
                op: "norm_rope",
                attrs: vec![1e-5.into(), (group as u64).into(), dtype.into(), dtype.into()],
                operands: vec![
                    Given::rows(x.clone(), dtype, Symbol::T),
                    Given::weight(weight.clone(), Dtype::F32),
                    Given::Table(table),
                ],
            };
            check(case, &step, dtype, &format!("heads of {head_dim} in groups of {group}"));
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
        for shape in [(4, 2, 32, 0), (4, 2, 64, 0), (2, 1, 128, 0)] {
            let case = || attention(shape, 3, Dtype::Bf16);
            let width = shape.0 * shape.2;
            let together = Machine::new(&target, case()).run(&both, 2).kernel;
            let Given::Tensor { tensor, .. } = &case().operands[0] else { unreachable!("q") };
            let mut machine = Machine::new(&target, case());
            machine.set(0, Tensor::real([1, width], tensor.as_real().unwrap()[2 * width..].to_vec()));
            assert_eq!(machine.run(&alone, 1).kernel, together[2 * width..], "{shape:?} on {target}");
        }
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_how_a_prompt_is_cut() {
    let whole = Step::of(&[sequence(3, 10, &[5]), sequence(100, 60, &[3, 1, 2])]);
    let rest = Step::of(&[sequence(30, 130, &[3, 1, 2])]);
    for target in steady_backends() {
        for (shape, dtype) in [
            ((2, 1, 32, 0), Dtype::Bf16),
            ((2, 1, 32, 50), Dtype::Bf16),
            ((2, 1, 64, 50), Dtype::Bf16),
            ((2, 1, 128, 0), Dtype::Bf16),
            ((2, 1, 10, 50), Dtype::F32),
        ] {
            let case = || attention(shape, 103, dtype);
            let width = shape.0 * shape.2;
            let together = Machine::new(&target, case()).run(&whole, 2).kernel;
            let Given::Tensor { tensor, .. } = &case().operands[0] else { unreachable!("q") };
            let mut machine = Machine::new(&target, case());
            machine.set(0, Tensor::real([30, width], tensor.as_real().unwrap()[73 * width..].to_vec()));
            assert_eq!(machine.run(&rest, 1).kernel, together[73 * width..], "{shape:?} on {target}");
        }
    }
}
