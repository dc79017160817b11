//! Which kernels a phase runs.

use nemo_ir::ops::{Recipe, op};
use nemo_ir::plan::Phase;
use nemo_tests::golden::{Runner, references};

use super::targets;

/// The simple ops that a prompt of fixture `hybrid` ran, those inside of fused ones included.
fn ops(phase: Phase) -> Vec<&'static str> {
    let [a, _] = references("hybrid");
    let target = targets().pop().expect("at least one target runs here");
    let mut runner = Runner::profiled("hybrid", &target);
    runner.whole(&a.prompt[..80], phase);
    let run = runner.ops_run();
    let ops = run.iter().map(|name| op(name).expect("launches are of the table's ops"));
    let steps = ops.flat_map(|op| match Recipe::of(op) {
        Some(recipe) => recipe.steps.iter().map(|step| step.op.name).collect(),
        None => vec![op.name],
    });
    steps.collect()
}

#[test]
fn prefill_runs_the_chunked_scan_and_decode_the_recurrent_one() {
    let prefill = ops(Phase::Prefill);
    assert!(prefill.contains(&"ssd_chunked"), "{prefill:?}");
    assert!(!prefill.contains(&"ssd_recurrent"), "{prefill:?}");
    let decode = ops(Phase::Decode);
    assert!(decode.contains(&"ssd_recurrent"), "{decode:?}");
    assert!(!decode.contains(&"ssd_chunked"), "{decode:?}");
}
