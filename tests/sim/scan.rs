//! The scan on GPUs where the tests of all backends do not take it: on tensor cores, through tiles of rows that sequences
//! cross, and at full size, where traffic is counted.

use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::ops::Attr;
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Symbol};
use nemo_kernels::target::Sm;
use nemo_tests::kernel::{Backend, Case, Given, Machine};
use nemo_tests::random::Random;

use super::kernels::assert_close;
use super::steady_backends;

const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;

fn sequence(tokens: usize, slot_in: i32, slot_out: i32) -> Sequence {
    Sequence { tokens: vec![0; tokens], slot_in, slot_out, ..Sequence::default() }
}

/// A scan with its step sizes computed on the way.
#[derive(Debug, Clone, Copy)]
struct Extents {
    heads: usize,
    groups: usize,
    head_dim: usize,
    state: usize,
}

impl Extents {
    fn inner(self) -> usize {
        self.heads * self.head_dim
    }

    fn shared(self) -> usize {
        self.groups * self.state
    }

    /// x, dt, b and c.
    fn inputs(self, seed: u64, rows: usize) -> [Tensor; 4] {
        let mut random = Random::new(seed);
        [
            random.tensor(&[rows, self.inner()], -1.0, 1.0),
            random.tensor(&[rows, self.heads], -4.0, 1.0),
            random.tensor(&[rows, self.shared()], -1.0, 1.0),
            random.tensor(&[rows, self.shared()], -1.0, 1.0),
        ]
    }

    fn case(self, op: &'static str, slots: usize, dtype: Dtype) -> Case {
        let [x, dt, b, c] = self.inputs(0, 1);
        let mut random = Random::new(33);
        // As they lie side by side in what a projection gives.
        let packed = self.inner() + 2 * self.shared();
        let mut vector = |low, high| Given::weight(random.tensor(&[self.heads], low, high), F32);
        let operands = vec![
            Given::view(x, BF16, Symbol::T, packed),
            Given::rows(dt, BF16, Symbol::T),
            vector(-1.0, 1.0),
            Given::view(b, BF16, Symbol::T, packed),
            Given::view(c, BF16, Symbol::T, packed),
            vector(0.0, 2.7),
            vector(-1.0, 1.0),
            Given::State {
                tensor: Random::new(34).tensor(&[slots, self.heads, self.state, self.head_dim], -1.0, 1.0),
                dtype: F32,
                units: Symbol::S,
            },
        ];
        let mut attrs: Vec<Attr> = vec![0.0.into(), f64::INFINITY.into()];
        attrs.extend([self.heads, self.groups].map(|count| Attr::from(count as u64)));
        if op == "ssd_chunked_dt" {
            attrs.push(64.into());
        }
        attrs.push(dtype.into());
        Case { op, attrs, operands }
    }

    fn set(self, machine: &mut Machine, [x, dt, b, c]: [Tensor; 4]) {
        for (operand, tensor) in [(0, x), (1, dt), (3, b), (4, c)] {
            machine.set(operand, tensor);
        }
    }
}

/// Part of the rows of tensors.
fn cut(tensors: &[Tensor; 4], from: usize, to: usize) -> [Tensor; 4] {
    tensors.each_ref().map(|tensor| {
        let width = tensor.shape()[1];
        Tensor::real([to - from, width], tensor.as_real().expect("reals")[from * width..to * width].to_vec())
    })
}

#[test]
fn tensor_cores_carry_the_state_through_ragged_steps() {
    let padded = || sequence(1, -1, -1);
    let steps = [
        Step::of(&[sequence(64, -1, 0), sequence(1, 1, 1), sequence(2, 2, 2), sequence(130, -1, 3)]),
        Step::of(&[sequence(65, 0, 0), sequence(63, 1, 2), sequence(16, 3, 3), padded()]),
        Step::of(&[sequence(33, 0, -1), sequence(1, 2, 1), sequence(32, 3, 3)]),
    ];
    for (heads, groups, head_dim, state) in
        [(4, 2, 80, 128), (3, 1, 16, 16), (2, 2, 64, 256), (2, 1, 128, 64), (6, 2, 48, 32), (2, 1, 48, 160)]
    {
        let extents = Extents { heads, groups, head_dim, state };
        for dtype in [F32, BF16] {
            for target in steady_backends() {
                let mut machine = Machine::new(&target, extents.case("ssd_chunked_dt", 4, dtype));
                for (index, step) in steps.iter().enumerate() {
                    extents.set(&mut machine, extents.inputs(index as u64, step.tokens.len()));
                    let answers = machine.run(step, 1);
                    let what = format!("{extents:?} step {index} on {target}");
                    assert!(machine.counts().expect("it is simulated").mma_flops > 0, "{what}");
                    // Sums of two bf16 stand for what is computed on the way: the bounds of f32 hold.
                    assert_close(&answers, dtype, &what);
                    assert_close(&answers.others[0], F32, &what);
                }
            }
        }
    }
}

#[test]
fn bits_of_the_scan_depend_on_its_tiles_alone() {
    for state in [32, 256] {
        let extents = Extents { heads: 2, groups: 1, head_dim: 32, state };
        let all = extents.inputs(5, 150);
        for target in steady_backends() {
            let run = |parts: &[(usize, usize, Step)]| {
                let mut machine = Machine::new(&target, extents.case("ssd_chunked_dt", 4, F32));
                let mut rows = Vec::new();
                for (from, to, step) in parts {
                    extents.set(&mut machine, cut(&all, *from, *to));
                    rows.extend(machine.run(step, 1).kernel);
                }
                rows
            };
            let together = run(&[(0, 150, Step::of(&[sequence(20, -1, 0), sequence(130, -1, 1)]))]);
            let alone = run(&[(20, 150, Step::of(&[sequence(130, -1, 2)]))]);
            assert!(together[20 * 64..] == alone, "neighbours change bits on {target}");
            let first = (20, 84, Step::of(&[sequence(64, -1, 3)]));
            let parts = run(&[first, (84, 150, Step::of(&[sequence(66, 3, 3)]))]);
            assert!(parts == alone, "a cut between tiles changes bits on {target}");
        }
    }
}

fn conv(channels: usize, taps: usize, slots: usize) -> Case {
    let mut random = Random::new(32);
    let operands = vec![
        Given::view(random.tensor(&[1, channels], -2.0, 2.0), BF16, Symbol::T, channels + 8),
        Given::weight(random.tensor(&[channels, taps], -1.0, 1.0), F32),
        Given::weight(random.tensor(&[channels], -1.0, 1.0), F32),
        Given::State {
            tensor: random.tensor(&[slots, taps - 1, channels], -2.0, 2.0),
            dtype: BF16,
            units: Symbol::S,
        },
    ];
    Case { op: "causal_conv1d", attrs: vec![BF16.into()], operands }
}

#[test]
fn windows_move_on_in_place_wherever_sequences_cross_tiles() {
    // Sequences shorter than the window and longer than a tile of rows, which begin and end around its borders.
    let lengths = [[15, 1, 2, 14, 33, 1, 40, 3], [1, 1, 1, 13, 1, 46, 2, 1], [16, 16, 1, 30, 1, 17, 15, 2]];
    for (channels, taps) in [(528, 4), (24, 7), (40, 2), (10, 3)] {
        for target in steady_backends() {
            let mut machine = Machine::new(&target, conv(channels, taps, 8));
            for (index, lengths) in lengths.iter().enumerate() {
                let slots = (0..8).map(|at| if index == 1 { (at, 7 - at) } else { (at, at) });
                // Slots that change places would be read and written by different sequences.
                let slots = slots.map(|(from, to)| if from == to { (from, to) } else { (from, from) });
                let sequences: Vec<_> = lengths
                    .iter()
                    .zip(slots)
                    .map(|(tokens, (from, to))| sequence(*tokens, from, to))
                    .collect();
                let step = Step::of(&sequences);
                let rows = step.tokens.len();
                machine.set(0, Random::new(index as u64).tensor(&[rows, channels], -2.0, 2.0));
                let what = format!("{channels} channels, {taps} taps, step {index} on {target}");
                let answers = machine.run(&step, 1);
                assert_close(&answers, BF16, &what);
                assert_eq!(answers.others[0].kernel, answers.others[0].reference, "{what}");
            }
        }
    }
}

/// Nano 9B v2.
const NANO: Extents = Extents { heads: 128, groups: 8, head_dim: 80, state: 128 };

#[test]
fn a_decoded_token_reads_and_writes_its_state_once() {
    for sm in Sm::ALL {
        let mut machine =
            Machine::new(&Backend::Sim(sm, Phase::Decode), NANO.case("ssd_recurrent_dt", 1, F32));
        NANO.set(&mut machine, NANO.inputs(1, 1));
        let answers = machine.run(&Step::of(&[sequence(1, 0, 0)]), 1);
        assert_close(&answers, F32, "y");
        assert_close(&answers.others[0], F32, "the state");
        let counts = machine.counts().expect("it is simulated");
        let state = (NANO.inner() * NANO.state * 4) as u64;
        let small = (NANO.inner() * 6 + NANO.shared() * 4 + NANO.heads * 14) as u64;
        let (loads, stores) = (&counts.global_loads, &counts.global_stores);
        let ideal = 2 * state + small;
        assert!((loads.bytes + stores.bytes) as f64 <= 1.05 * ideal as f64, "{loads:?} {stores:?}");
        let unique = 32 * (counts.unique_load_sectors + counts.unique_store_sectors);
        assert!(unique as f64 <= 1.01 * ideal as f64, "{unique} bytes of sectors");
        let full =
            (loads.full_sectors + stores.full_sectors) as f64 / (loads.sectors + stores.sectors) as f64;
        assert!(full >= 0.99, "{full} of the sectors are used in full");
        assert!(counts.shared_loads.replays + counts.shared_stores.replays <= 16, "bank conflicts");
    }
}
