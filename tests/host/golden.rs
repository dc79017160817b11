//! Every fixture, compiled for every target that this CPU runs, against independent implementations.

use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_kernels::target::HostTarget;
use nemo_tests::golden::{FIXTURES, Reference, Runner, greedy, references};
use nemoc::saturate::law::Class;
use nemoc::saturate::{Options, Rules};

use super::targets;

/// Largest difference over largest magnitude.
fn relative(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    // A maximum passes over NaN.
    assert!(found.iter().all(|x| x.is_finite()), "logits are not finite");
    let largest = wanted.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let difference = found.iter().zip(wanted).fold(0.0f32, |d, (a, b)| d.max((a - b).abs()));
    f64::from(difference) / f64::from(largest)
}

fn rms(found: &[f32], wanted: &[f32]) -> f64 {
    let squares = found.iter().zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    (squares / found.len() as f64).sqrt()
}

fn assert_same(found: &[f32], wanted: &[f32], what: &str) {
    let error = relative(found, wanted);
    println!("{what}: {error:.1e}");
    assert!(error <= 2e-5, "{what}: {error:e} of the largest logit");
}

#[test]
fn f32_agrees_with_the_references() {
    for name in FIXTURES {
        let [a, b] = references(name);
        for target in targets() {
            let runner = || Runner::new(name, &target, Dtype::F32, 2);
            for phase in Phase::ALL {
                let what = format!("{name} {} on {target}", phase.name());
                assert_same(&runner().whole(&a.prompt, phase), &a.f32, &what);
            }
            let [found_a, found_b] = runner().interleaved([&a.prompt, &b.prompt]);
            assert_same(&found_a, &a.f32, &format!("{name} interleaved, first, on {target}"));
            assert_same(&found_b, &b.f32, &format!("{name} interleaved, second, on {target}"));
        }
    }
}

#[test]
fn f32_agrees_however_blocks_are_fused() {
    let target = HostTarget::detect().expect("tests of the host run on one");
    for name in FIXTURES {
        let [a, b] = references(name);
        for rules in [Rules::Off, Rules::Greedy] {
            let options = Options { rules, ..Options::default() };
            let runner = || Runner::fused(name, &target, Dtype::F32, options);
            for phase in Phase::ALL {
                let what = format!("{name} {} with rules {}", phase.name(), rules.name());
                assert_same(&runner().whole(&a.prompt, phase), &a.f32, &what);
            }
            let [first, second] = runner().interleaved([&a.prompt, &b.prompt]);
            assert_same(&first, &a.f32, &format!("{name} interleaved, first, with rules {}", rules.name()));
            assert_same(&second, &b.f32, &format!("{name} interleaved, second, with rules {}", rules.name()));
        }
    }
}

#[test]
fn exact_laws_change_no_bit() {
    let targets = targets();
    for name in FIXTURES {
        let [a, b] = references(name);
        // The plainest kernels and the fullest.
        for target in [targets.first(), targets.last()].into_iter().flatten() {
            for activations in [Dtype::Bf16, Dtype::F32] {
                let logits = |rules| {
                    let options = Options { rules, numerics: Class::Exact };
                    let runner = || Runner::fused(name, target, activations, options);
                    let whole = Phase::ALL.map(|phase| runner().whole(&a.prompt[..70], phase));
                    (whole, runner().interleaved([&a.prompt[..90], &b.prompt[..30]]))
                };
                let off = logits(Rules::Off);
                assert!(logits(Rules::Greedy) == off, "{name} {activations} on {target}, greedy");
                assert!(logits(Rules::Saturate) == off, "{name} {activations} on {target}, saturate");
            }
        }
    }
}

#[test]
fn f32_continues_greedily_like_the_references() {
    for name in FIXTURES {
        let [a, _] = references(name);
        let wanted = greedy(name);
        for target in targets() {
            let mut runner = Runner::new(name, &target, Dtype::F32, 1);
            let mut next = runner.feed(&[(0, &a.prompt)], Phase::Prefill).1[0];
            let mut found = vec![next];
            while found.len() < wanted.len() {
                next = runner.feed(&[(0, &[next])], Phase::Decode).1[0];
                found.push(next);
            }
            assert_eq!(found, wanted, "{name} on {target}");
        }
    }
}

#[test]
fn bf16_is_as_close_as_the_references_own_bf16() {
    for name in FIXTURES {
        let [a, b] = references(name);
        for target in targets() {
            for reference in [&a, &b] {
                let bar = rms(&reference.bf16, &reference.f32);
                for phase in Phase::ALL {
                    let mut runner = Runner::new(name, &target, Dtype::Bf16, 2);
                    let found = runner.whole(&reference.prompt, phase);
                    let error = rms(&found, &reference.f32);
                    let what = format!("{name} {} on {target}", phase.name());
                    println!("{what}: {:.2} of the reference's own error {bar:.4}", error / bar);
                    assert!(error <= 1.25 * bar, "{what}: RMS error {error}, the reference's own is {bar}");
                    same_tokens(&found, reference, runner.vocab(), 4.0 * bar, &what);
                }
            }
        }
    }
}

/// The same arg max wherever the reference's two best logits are further apart than `margin` and its own bf16 does not
/// confuse them either: some positions err by much more than the rest.
fn same_tokens(found: &[f32], reference: &Reference, vocab: usize, margin: f64, what: &str) {
    let best = |row: &[f32]| (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary");
    let rows = found.chunks(vocab).zip(reference.f32.chunks(vocab)).zip(reference.bf16.chunks(vocab));
    let mut decided = 0;
    for (position, ((found, wanted), own)) in rows.enumerate() {
        let first = best(wanted);
        let second = (0..vocab).filter(|id| *id != first).map(|id| wanted[id]).fold(f32::MIN, f32::max);
        if f64::from(wanted[first] - second) > margin && best(own) == first {
            decided += 1;
            assert_eq!(best(found), first, "{what}: position {position}");
        }
    }
    assert!(decided > 0, "{what}: no position is decided");
}

#[test]
fn bits_do_not_depend_on_the_batch_or_the_threads() {
    for name in FIXTURES {
        let [a, b] = references(name);
        for target in targets() {
            for activations in [Dtype::Bf16, Dtype::F32] {
                let what = format!("{name} {activations} on {target}");
                let together = |threads| {
                    Runner::new(name, &target, activations, threads).interleaved([&a.prompt, &b.prompt])
                };
                let [first, second] = together(1);
                assert!([first.clone(), second.clone()] == together(2), "{what}: threads");
                let alone =
                    |prompts: [&[i32]; 2]| Runner::new(name, &target, activations, 2).interleaved(prompts);
                assert!(alone([&a.prompt, &[]])[0] == first, "{what}: first sequence alone");
                assert!(alone([&[], &b.prompt])[1] == second, "{what}: second sequence alone");
                // Decoding in a batch of two.
                let mut batch = Runner::new(name, &target, activations, 2);
                let mut single = Runner::new(name, &target, activations, 1);
                for (x, y) in a.prompt.iter().zip(&b.prompt).take(20) {
                    let (both, _) = batch.feed(&[(0, &[*x]), (1, &[*y])], Phase::Decode);
                    let (one, _) = single.feed(&[(1, &[*y])], Phase::Decode);
                    assert!(both[1] == one[0], "{what}: decoding in a batch");
                }
            }
        }
    }
}

#[test]
fn one_token_gets_the_same_bits_from_both_programs() {
    for name in FIXTURES {
        let [a, _] = references(name);
        for target in targets() {
            let mut decode = Runner::new(name, &target, Dtype::Bf16, 2);
            let mut prefill = Runner::new(name, &target, Dtype::Bf16, 2);
            for token in a.prompt.iter().take(30) {
                let logits = [(&mut decode, Phase::Decode), (&mut prefill, Phase::Prefill)]
                    .map(|(runner, phase)| runner.feed(&[(0, &[*token])], phase).0);
                assert!(logits[0] == logits[1], "{name} on {target}");
            }
        }
    }
}

#[test]
fn cutting_a_prompt_at_tiles_changes_no_bit() {
    for name in FIXTURES {
        let [a, _] = references(name);
        // The last tile is a single token, which the last step brings by itself.
        let tokens = if a.prompt.len() > 129 { 129 } else { 65 };
        let prompt = &a.prompt[..tokens];
        for target in targets() {
            let runner = || Runner::new(name, &target, Dtype::Bf16, 2);
            let whole = runner().whole(prompt, Phase::Prefill);
            let mut cut = runner();
            let parts: Vec<f32> = prompt
                .chunks(64)
                .flat_map(|part| cut.feed(&[(0, part)], Phase::Prefill).0.remove(0))
                .collect();
            assert!(whole == parts, "{name} on {target}");
        }
    }
}
