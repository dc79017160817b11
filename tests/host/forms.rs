//! Which kernels a phase runs.

use nemo_ir::plan::Phase;
use nemo_tests::golden::{Runner, references};

use super::targets;

/// The ops that a prompt of fixture `hybrid` ran.
fn ops(phase: Phase) -> Vec<String> {
    let [a, _] = references("hybrid");
    let target = targets().pop().expect("at least one target runs here");
    let mut runner = Runner::profiled("hybrid", &target);
    runner.whole(&a.prompt[..80], phase);
    runner.ops_run()
}

#[test]
fn prefill_runs_the_chunked_scan_and_decode_the_recurrent_one() {
    let prefill = ops(Phase::Prefill);
    assert!(prefill.iter().any(|op| op == "ssd_chunked"), "{prefill:?}");
    assert!(prefill.iter().all(|op| op != "ssd_recurrent"), "{prefill:?}");
    let decode = ops(Phase::Decode);
    assert!(decode.iter().any(|op| op == "ssd_recurrent"), "{decode:?}");
    assert!(decode.iter().all(|op| op != "ssd_chunked"), "{decode:?}");
}
