//! Embedding and sampling at the sizes of real vocabularies, and draws that rounding cannot move.

use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;
use nemo_tests::sampling::{self, Settings, peaked, sample, sample_tiled};

use super::kernels::rows;
use super::traffic::assert_lean;
use super::{backends, steady_backends};

const F32: Dtype = Dtype::F32;
const BF16: Dtype = Dtype::Bf16;
const TILE: usize = 256;

fn sequence(settings: Settings, seed: u32) -> Sequence {
    sampling::sequence(1, settings, [seed, 5])
}

#[test]
fn tokens_of_whole_vocabularies() {
    let settings = [
        (0.0, 0, 1.0, 0.0),
        (1.0, 0, 1.0, 0.0),
        (0.8, 20, 0.9, 0.0),
        (1.2, 1000, 0.99, 0.02),
        (0.6, 0, 0.95, 0.0),
    ];
    for vocab in [131_072, 128_256] {
        let logits = peaked(settings.len(), vocab, vocab as u64);
        let sequences: Vec<_> = (1..).zip(settings).map(|(seed, of)| sequence(of, seed)).collect();
        for backend in steady_backends() {
            for case in [sample(&logits), sample_tiled(&logits, TILE)] {
                let op = case.op;
                let answers = Machine::new(&backend, case).run(&Step::of(&sequences), 1);
                assert_eq!(answers.kernel, answers.reference, "{op} of {vocab} on {backend}");
            }
        }
    }
}

/// Every tie at a cut-off stays in, zeros of either sign are equal, and -inf is never drawn. With logits so far apart,
/// rounding cannot move a draw.
#[test]
fn ties_and_tokens_that_are_ruled_out() {
    let settings = [
        (1.0, 3, 1.0, 0.0),
        (0.7, 40, 1.0, 0.0),
        (1.0, 299, 1.0, 0.0),
        (1.0, 0, 0.3, 0.0),
        (2.0, 0, 0.9, 0.0),
        (1.0, 0, 0.0, 0.0),
        (1.0, 0, 1.0, 0.3),
        (1.0, 0, 1.0, 1.0),
        (1e-30, 0, 0.5, 0.0),
        (50.0, 7, 0.8, 0.5),
    ];
    let vocab = 300;
    let mut random = Random::new(60);
    let mut logit = || match random.below(8) {
        0 => f64::NEG_INFINITY,
        1 => -0.0,
        _ => random.below(9) as f64 / 2.0 - 3.0,
    };
    let count = settings.len() * 4;
    let logits = Tensor::real([count, vocab], (0..count * vocab).map(|_| logit()).collect());
    let sequences: Vec<_> =
        (0..count).map(|index| sequence(settings[index % settings.len()], index as u32)).collect();
    for backend in steady_backends() {
        let answers = Machine::new(&backend, sample(&logits)).run(&Step::of(&sequences), 1);
        for (index, (token, wanted)) in answers.kernel.iter().zip(&answers.reference).enumerate() {
            assert_eq!(token, wanted, "{:?} on {backend}", settings[index % settings.len()]);
        }
    }
}

#[test]
fn an_infinite_logit_is_the_token() {
    let mut logits = Random::new(61).tensor(&[2, 70], -1.0, 1.0);
    let data = logits.as_real_mut().expect("it is real");
    data[33] = f64::INFINITY;
    data[70 + 69] = f64::INFINITY;
    let step = Step::of(&[sequence((0.0, 0, 1.0, 0.0), 1), sequence((1.0, 0, 1.0, 0.0), 1)]);
    for backend in backends() {
        for case in [sample(&logits), sample_tiled(&logits, TILE)] {
            assert_eq!(Machine::new(&backend, case).run(&step, 1).kernel, [33.0, 69.0], "{backend}");
        }
    }
}

#[test]
fn embeddings_are_copied() {
    for width in [4480, 16384] {
        let table = Random::new(62).tensor(&[5, width], -1.0, 1.0);
        for backend in backends() {
            for dtype in [BF16, F32] {
                let operands = vec![Given::weight(table.clone(), BF16)];
                let case = Case { op: "embed", attrs: vec![dtype.into()], operands };
                let mut machine = Machine::new(&backend, case);
                let answers = machine.run(&rows(1), 1);
                let what = format!("{dtype} of {width} on {backend}");
                assert_eq!(answers.kernel, answers.reference, "{what}");
                if dtype == BF16 {
                    assert_lean(&machine, width * 2, width * 2, &what);
                }
                let tokens = Sequence { tokens: vec![4, -1, 0], ..Sequence::default() };
                let answers = machine.run(&Step::of(&[tokens]), 1);
                assert_eq!(answers.kernel, answers.reference, "{what}");
            }
        }
    }
}

#[test]
fn maxima_are_found_in_one_pass() {
    let vocab = 128_256;
    for backend in steady_backends() {
        let logits = Random::new(63).tensor(&[1, vocab], -5.0, 5.0);
        let operands = vec![Given::rows(logits, F32, Symbol::T)];
        let mut machine =
            Machine::new(&backend, Case { op: "tile_max", attrs: vec![(TILE as u64).into()], operands });
        let answers = machine.run(&rows(1), 1);
        assert_eq!(answers.kernel, answers.reference, "{backend}");
        let counts = machine.counts().expect("it ran in the simulator");
        assert_eq!(counts.unique_load_sectors, vocab as u64 / 8);
        assert!(counts.global_loads.bytes == vocab as u64 * 4, "{} bytes", counts.global_loads.bytes);
    }
}
