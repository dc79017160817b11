use nemo_ir::interp::{Logits, Sequence, Step, Tensor};
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;
use nemo_tests::sampling;

use super::backends;

/// Sampling from all logits, and by the maxima of tiles of them: both give the same tokens.
fn cases(logits: &Tensor) -> [Case; 2] {
    [sampling::sample(logits), sampling::sample_tiled(logits, 16)]
}

fn sequence(temperature: f32, top_k: i32, top_p: f32, min_p: f32, seed: u32) -> Sequence {
    sampling::sequence(2, (temperature, top_k, top_p, min_p), [seed, 77])
}

#[test]
fn greedy_forced_and_rows_without_logits() {
    let step = Step::of(&[
        sequence(0.0, 0, 1.0, 0.0, 1),
        Sequence { forced: 3, ..sequence(1.0, 0, 1.0, 0.0, 1) },
        Sequence { logits: Logits::None, ..sequence(0.0, 0, 1.0, 0.0, 1) },
        Sequence { logits: Logits::All, ..sequence(0.0, 0, 1.0, 0.0, 1) },
    ]);
    for vocab in [5, 16, 37, 130] {
        let mut logits = Random::new(50).tensor(&[4, vocab], -5.0, 5.0);
        let data = logits.as_real_mut().unwrap();
        // A tie: the lowest id wins.
        data[2] = 9.0;
        data[4] = 9.0;
        for target in backends() {
            for (threads, case) in [1, 3].into_iter().zip(cases(&logits)) {
                let answers = Machine::new(&target, case).run(&step, threads);
                assert_eq!(answers.kernel, answers.reference, "vocab {vocab} on {target}");
                assert_eq!(answers.kernel[..3], [2.0, 3.0, -1.0]);
            }
        }
    }
}

#[test]
fn draws_agree_with_the_reference() {
    let settings = [
        (0.7, 0, 1.0, 0.0),
        (1.0, 3, 1.0, 0.0),
        (1.3, 0, 0.6, 0.0),
        (1.0, 0, 1.0, 0.2),
        (0.9, 20, 0.8, 0.05),
        (2.0, 1000, 0.999, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 0, 0.0, 0.0),
    ];
    for vocab in [7, 64, 250] {
        for target in backends() {
            let (mut agree, mut total) = (0, 0);
            let mut distinct = std::collections::BTreeSet::new();
            for round in 0..6 {
                let sequences: Vec<_> = (0..40)
                    .map(|i| {
                        let (temperature, top_k, top_p, min_p) = settings[i % settings.len()];
                        sequence(temperature, top_k, top_p, min_p, (round * 100 + i) as u32)
                    })
                    .collect();
                let logits = Random::new(51 + round as u64).tensor(&[40, vocab], -4.0, 4.0);
                let [whole, tiled] = cases(&logits);
                let answers = Machine::new(&target, whole).run(&Step::of(&sequences), 2);
                let by_tiles = Machine::new(&target, tiled).run(&Step::of(&sequences), 1);
                assert_eq!(by_tiles.kernel, answers.kernel, "vocab {vocab} on {target}");
                total += 40;
                agree += answers.kernel.iter().zip(&answers.reference).filter(|(a, b)| a == b).count();
                distinct.extend(answers.kernel.iter().map(|token| *token as i64));
            }
            // Sums in f32 may fall on the other side of a draw now and then, never often.
            assert!(agree * 100 >= total * 98, "{agree} of {total} draws agree, vocab {vocab} on {target}");
            assert!(distinct.len() > 4, "draws do not vary: {distinct:?}");
        }
    }
}

#[test]
fn a_row_with_nan_gives_no_token() {
    for vocab in [5, 33] {
        let mut logits = Random::new(52).tensor(&[2, vocab], -1.0, 1.0);
        logits.as_real_mut().unwrap()[vocab - 1] = f64::NAN;
        let step = Step::of(&[sequence(0.0, 0, 1.0, 0.0, 1), sequence(1.0, 0, 1.0, 0.0, 1)]);
        for target in backends() {
            for case in cases(&logits) {
                let answers = Machine::new(&target, case).run(&step, 2);
                assert_eq!(answers.kernel, answers.reference, "vocab {vocab} on {target}");
                assert_eq!(answers.kernel[0], f64::from(nemo_ir::step::NOT_A_NUMBER));
            }
        }
    }
}

#[test]
fn a_row_without_a_finite_logit_gives_no_token_of_the_vocabulary() {
    let logits = Tensor::real([1, 40], vec![f64::NEG_INFINITY; 40]);
    let step = Step::of(&[sequence(0.0, 0, 1.0, 0.0, 1)]);
    for target in backends() {
        for case in cases(&logits) {
            let answers = Machine::new(&target, case).run(&step, 1);
            assert!(!(0.0..40.0).contains(&answers.kernel[0]), "{} on {target}", answers.kernel[0]);
        }
    }
}

#[test]
fn maxima_of_tiles() {
    for (width, tile) in [(5, 8), (32, 8), (37, 16), (130, 1)] {
        let mut x = Random::new(53).tensor(&[3, width], -5.0, 5.0);
        x.as_real_mut().unwrap()[width + 1] = f64::NAN;
        for target in backends() {
            let case = Case {
                op: "tile_max",
                attrs: vec![(tile as u64).into()],
                operands: vec![Given::rows(x.clone(), Dtype::F32, Symbol::T)],
            };
            let answers = Machine::new(&target, case).run(&super::rows(3), 2);
            let bits = |values: &[f64]| values.iter().map(|x| (x.is_nan(), x.to_bits())).collect::<Vec<_>>();
            let (found, wanted) = (bits(&answers.kernel), bits(&answers.reference));
            for (found, wanted) in found.into_iter().zip(wanted) {
                assert!(found == wanted || (found.0 && wanted.0), "{width} by {tile} on {target}");
            }
        }
    }
}
