use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::ops::Attr;
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Backend, Case, Given, Machine};
use nemo_tests::random::Random;

use super::{assert_close, backends, check, rows, steady_backends};

fn sequence(tokens: usize, slot_in: i32, slot_out: i32) -> Sequence {
    Sequence { tokens: vec![0; tokens], slot_in, slot_out, ..Sequence::default() }
}

/// Steps over three slots: fresh and continued sequences, a copy to another slot, one that keeps nothing.
fn steps() -> Vec<Step> {
    vec![
        Step::of(&[sequence(70, -1, 0), sequence(1, -1, 1), sequence(3, -1, -1)]),
        Step::of(&[sequence(1, 0, 0), sequence(130, 1, 1)]),
        Step::of(&[sequence(2, 0, 2), sequence(1, 1, 1), sequence(40, -1, -1)]),
        Step::of(&[sequence(17, 2, 2), sequence(1, 0, -1)]),
    ]
}

#[test]
fn softplus_keeps_its_digits_where_it_is_tiny() {
    for (min, max) in [(0.0, f64::INFINITY), (0.001, 0.1)] {
        let case = || Case {
            op: "dt_softplus",
            attrs: vec![min.into(), max.into()],
            operands: vec![
                Given::rows(Random::new(30).tensor(&[5, 21], -14.0, 6.0), Dtype::F32, Symbol::T),
                Given::weight(Random::new(31).tensor(&[21], -1.0, 1.0), Dtype::F32),
            ],
        };
        check(case, &rows(5), Dtype::F32, "dt_softplus");
        for target in backends() {
            let answers = Machine::new(&target, case()).run(&rows(5), 1);
            for (kernel, reference) in answers.kernel.iter().zip(&answers.reference) {
                // The sum dt + bias alone may be off by half a unit near -15.
                assert!(
                    (kernel - reference).abs() <= 1.5e-6 * reference,
                    "{kernel} and {reference} on {target}"
                );
            }
        }
    }
}

fn conv(rows: usize, bias: bool, dtype: Dtype, channels: usize) -> Case {
    let mut random = Random::new(32);
    let mut operands = vec![
        Given::view(random.tensor(&[rows, channels], -2.0, 2.0), dtype, Symbol::T, channels + 3),
        Given::weight(random.tensor(&[channels, 4], -1.0, 1.0), Dtype::F32),
    ];
    if bias {
        operands.push(Given::weight(random.tensor(&[channels], -1.0, 1.0), Dtype::F32));
    }
    let tensor = Tensor::zeros([3, 3, channels]);
    operands.push(Given::State { tensor, dtype, units: Symbol::S });
    Case { op: "causal_conv1d", attrs: vec![dtype.into()], operands }
}

#[test]
fn convolution_carries_its_window() {
    for dtype in [Dtype::Bf16, Dtype::F32] {
        for (bias, channels) in [(true, 48), (false, 21), (true, 5)] {
            for target in backends() {
                let mut machine = Machine::new(&target, conv(1, bias, dtype, channels));
                for (index, step) in steps().iter().enumerate() {
                    let rows = step.tokens.len();
                    machine.set(0, Random::new(index as u64).tensor(&[rows, channels], -2.0, 2.0));
                    assert_close(&machine.run(step, 3), dtype, &format!("conv step {index} on {target}"));
                }
            }
        }
    }
}

/// Heads, groups, head_dim, state.
type Shape = (usize, usize, usize, usize);

fn inputs(seed: u64, rows: usize, (heads, groups, head_dim, state): Shape) -> [Tensor; 4] {
    let mut random = Random::new(seed);
    [
        random.tensor(&[rows, heads * head_dim], -1.0, 1.0),
        random.tensor(&[rows, heads], 0.0, 0.7),
        random.tensor(&[rows, groups * state], -1.0, 1.0),
        random.tensor(&[rows, groups * state], -1.0, 1.0),
    ]
}

fn scan(op: &'static str, shape: Shape, dtype: Dtype) -> Case {
    let (heads, groups, head_dim, state) = shape;
    let [x, dt, b, c] = inputs(0, 1, shape);
    let mut random = Random::new(33);
    let tensor = Tensor::zeros([3, heads, state, head_dim]);
    let operands = vec![
        Given::view(x, dtype, Symbol::T, heads * head_dim + 7),
        Given::rows(dt, Dtype::F32, Symbol::T),
        Given::rows(b, dtype, Symbol::T),
        Given::view(c, dtype, Symbol::T, groups * state + 1),
        Given::weight(random.tensor(&[heads], 0.0, 2.7), Dtype::F32),
        Given::weight(random.tensor(&[heads], -1.0, 1.0), Dtype::F32),
        Given::State { tensor, dtype: Dtype::F32, units: Symbol::S },
    ];
    let mut attrs: Vec<Attr> = vec![(heads as u64).into(), (groups as u64).into()];
    if op == "ssd_chunked" {
        attrs.push(64.into());
    }
    attrs.push(Dtype::F32.into());
    Case { op, attrs, operands }
}

#[test]
fn both_forms_of_the_scan_carry_their_state() {
    for op in ["ssd_recurrent", "ssd_chunked"] {
        for shape in [(4, 2, 80, 24), (6, 2, 16, 16), (3, 1, 21, 7), (2, 2, 128, 128), (2, 1, 100, 9)] {
            for dtype in [Dtype::Bf16, Dtype::F32] {
                for target in backends() {
                    let mut machine = Machine::new(&target, scan(op, shape, dtype));
                    for (index, step) in steps().iter().enumerate() {
                        for (operand, tensor) in
                            inputs(index as u64, step.tokens.len(), shape).into_iter().enumerate()
                        {
                            machine.set(operand, tensor);
                        }
                        let what = format!("{op} {shape:?} step {index} on {target}");
                        assert_close(&machine.run(step, 3), Dtype::F32, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn a_single_token_gets_the_same_bits_from_both_forms() {
    let shape = (4, 2, 80, 24);
    // A promise of CPUs, whose prompts may be cut between any two steps.
    for target in backends().into_iter().filter(|backend| matches!(backend, Backend::Host(_))) {
        let mut machines =
            ["ssd_recurrent", "ssd_chunked"].map(|op| Machine::new(&target, scan(op, shape, Dtype::Bf16)));
        let step = Step::of(&[sequence(1, -1, 0)]);
        let again = Step::of(&[sequence(1, 0, 0)]);
        let [first, second] = machines.each_mut().map(|machine| {
            machine.run(&step, 1);
            machine.run(&again, 2).kernel
        });
        assert_eq!(first, second, "on {target}");
    }
}

#[test]
fn bits_of_a_chunk_do_not_depend_on_threads_or_neighbours() {
    let shape = (4, 2, 80, 24);
    let (heads, groups, head_dim, state) = shape;
    for target in steady_backends() {
        let all = inputs(5, 90, shape);
        let widths = [heads * head_dim, heads, groups * state, groups * state];
        let run = |from: usize, to: usize, step: &Step, threads| {
            let mut machine = Machine::new(&target, scan("ssd_chunked", shape, Dtype::Bf16));
            for (operand, (tensor, width)) in all.iter().zip(widths).enumerate() {
                let part = tensor.as_real().unwrap()[from * width..to * width].to_vec();
                machine.set(operand, Tensor::real([to - from, width], part));
            }
            machine.run(step, threads).kernel
        };
        let together = run(0, 90, &Step::of(&[sequence(20, -1, 0), sequence(70, -1, 1)]), 1);
        let alone = run(20, 90, &Step::of(&[sequence(70, -1, 2)]), 3);
        assert_eq!(together[20 * heads * head_dim..], alone[..], "on {target}");
    }
}
