//! What every kernel must do, whatever runs it: the tests of the CPU include these, and those of the simulated GPUs.

mod attention;
mod elementwise;
mod fused;
mod linear;
mod norm;
mod sample;
mod scan;

use nemo_ir::interp::{Sequence, Step};
use nemo_ir::types::Dtype;
use nemo_tests::kernel::{Answers, Backend, Case, Machine};

use super::{backends, steady_backends};

/// A step of one sequence with this many rows and no state.
pub(crate) fn rows(count: usize) -> Step {
    Step::of(&[Sequence { tokens: vec![0; count], ..Sequence::default() }])
}

/// bf16: every element within 2^-7 (|ref| + rms(ref)); f32: relative L2 of 1e-5.
pub(crate) fn assert_close(answers: &Answers, dtype: Dtype, what: &str) {
    let count = answers.reference.len().max(1) as f64;
    let norm = answers.reference.iter().map(|x| x * x).sum::<f64>();
    let pairs = || answers.kernel.iter().zip(&answers.reference);
    if dtype == Dtype::F32 {
        let error = pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        assert!(
            error.sqrt() <= 1e-5 * norm.sqrt().max(1e-12),
            "{what}: relative L2 {}",
            (error / norm).sqrt()
        );
        return;
    }
    let rms = (norm / count).sqrt();
    for (index, (a, b)) in pairs().enumerate() {
        assert!((a - b).abs() <= (b.abs() + rms) / 128.0, "{what}: element {index} is {a}, reference {b}");
    }
}

/// Runs a case once on every backend: on CPUs with several thread counts, all of which give the same bits; on GPUs in every
/// form that the kernel has.
fn check(case: impl Fn() -> Case, step: &Step, dtype: Dtype, what: &str) {
    for target in backends() {
        if matches!(target, Backend::Sim(..)) {
            for form in Machine::new(&target, case()).forms(step) {
                let answers = Machine::new(&target, case()).built_by(form).run(step, 1);
                assert_close(&answers, dtype, &format!("{what} on {target}, {form}"));
            }
            continue;
        }
        let mut bits = None;
        for threads in [1, 2, 5] {
            let answers = Machine::new(&target, case()).run(step, threads);
            let what = format!("{what} on {target}, {threads} threads");
            assert_close(&answers, dtype, &what);
            let first = bits.get_or_insert_with(|| answers.kernel.clone());
            assert!(*first == answers.kernel, "{what}: bits depend on the number of threads");
        }
    }
}
