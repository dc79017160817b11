//! Every fixture on simulated cards: the whole way from a configuration to tokens.

use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_kernels::target::Sm;
use nemo_tests::golden::{FIXTURES, Runner, greedy, references};

/// Decode steps after a prompt.
const STEPS: usize = 8;

fn rms(found: &[f32], wanted: &[f32]) -> f64 {
    let squares = found.iter().zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    (squares / found.len() as f64).sqrt()
}

/// Largest difference over largest magnitude.
fn relative(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().all(|x| x.is_finite()), "logits are not finite");
    let largest = wanted.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let difference = found.iter().zip(wanted).fold(0.0f32, |d, (a, b)| d.max((a - b).abs()));
    f64::from(difference / largest)
}

#[test]
fn f32_continues_like_the_references() {
    for name in FIXTURES {
        let [a, _] = references(name);
        let wanted = greedy(name);
        for sm in Sm::ALL {
            let (mut runner, tally) = Runner::simulated(name, sm, Dtype::F32);
            let (logits, next) = runner.feed(&[(0, &a.prompt)], Phase::Prefill);
            let error = relative(&logits[0], &a.f32);
            println!("{name} on {}: {error:.1e}", sm.name());
            assert!(error <= 2e-5, "{name} on {}: {error:e} of the largest logit", sm.name());
            let mut found = vec![next[0]];
            while found.len() <= STEPS {
                let next = runner.feed(&[(0, &[found[found.len() - 1]])], Phase::Decode).1[0];
                found.push(next);
            }
            assert_eq!(found, wanted[..found.len()], "{name} on {}", sm.name());
            let tally = tally.lock().expect("nothing has panicked while it was held");
            assert_eq!(tally.recorded, 1, "one sequence is one graph");
            assert_eq!(tally.replayed, STEPS, "every decode step runs it");
        }
    }
}

#[test]
fn bf16_is_as_close_as_the_references_own_bf16() {
    for name in FIXTURES {
        let [a, _] = references(name);
        let bar = rms(&a.bf16, &a.f32);
        for sm in Sm::ALL {
            let (mut runner, _) = Runner::simulated(name, sm, Dtype::Bf16);
            let (prompt, rest) = a.prompt.split_at(a.prompt.len() - STEPS);
            let mut found = runner.feed(&[(0, prompt)], Phase::Prefill).0.remove(0);
            for token in rest {
                found.extend(runner.feed(&[(0, &[*token])], Phase::Decode).0.remove(0));
            }
            let error = rms(&found, &a.f32);
            println!("{name} on {}: {:.2} of the reference's own error {bar:.4}", sm.name(), error / bar);
            assert!(
                error <= 1.25 * bar,
                "{name} on {}: RMS error {error}, the reference's is {bar}",
                sm.name()
            );
        }
    }
}

/// Both prompts in uneven chunks, in mixed steps: each sequence gets what it gets alone.
#[test]
fn mixed_steps_in_f32() {
    for name in FIXTURES {
        let [a, b] = references(name);
        let sm = Sm::Sm86;
        let (mut runner, _) = Runner::simulated(name, sm, Dtype::F32);
        let found = runner.interleaved([&a.prompt, &b.prompt]);
        for (found, wanted) in found.iter().zip([&a.f32, &b.f32]) {
            let error = relative(found, wanted);
            assert!(error <= 2e-5, "{name} interleaved on {}: {error:e} of the largest logit", sm.name());
        }
    }
}

/// Two sequences in one decode step run the graph of two; what one of them gets is what it gets alone.
#[test]
fn decode_steps_of_two_sequences() {
    for name in FIXTURES {
        let [a, b] = references(name);
        let (mut runner, tally) = Runner::simulated(name, Sm::Sm90, Dtype::F32);
        let prompts = [&a.prompt[..40], &b.prompt[..23]];
        runner.feed(&[(0, prompts[0]), (1, prompts[1])], Phase::Prefill);
        let vocab = runner.vocab();
        for step in 0..3 {
            let (at_a, at_b) = (40 + step, 23 + step);
            let parts = [(0, &a.prompt[at_a..=at_a]), (1, &b.prompt[at_b..=at_b])];
            let (logits, _) = runner.feed(&parts, Phase::Decode);
            for ((found, reference), at) in logits.iter().zip([&a.f32, &b.f32]).zip([at_a, at_b]) {
                let error = relative(found, &reference[at * vocab..][..vocab]);
                assert!(error <= 5e-5, "{name}, step {step}: {error:e} of the largest logit");
            }
        }
        assert_eq!(tally.lock().expect("nothing has panicked while it was held").recorded, 1);
    }
}
