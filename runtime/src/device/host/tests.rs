use nemo_ir::plan::{Limits, Program as PlanProgram};

use super::*;
use crate::step::{Step, Written};
use crate::weights::{Progress, WeightsSource};

/// A plan of a prefill program that does nothing.
fn plan() -> Plan {
    let program = PlanProgram {
        phase: Phase::Prefill,
        min_tokens: 1,
        max_tokens: 4,
        max_seqs: 1,
        arena_bytes: 64,
        blocks: Vec::new(),
        calls: Vec::new(),
    };
    Plan {
        target: "x86-64".to_owned(),
        limits: Limits { vocab: 16, max_context: 64, max_seqs: 1, chunk: 4 },
        kernels: Vec::new(),
        weights: Vec::new(),
        states: Vec::new(),
        tables: Vec::new(),
        workspace: None,
        programs: vec![program],
    }
}

/// A device for a plan without kernels.
fn host(plan: &Plan) -> Host {
    let object = object::tests::compile("int unused(void) { return 0; }", &["-fPIC"]);
    let weights = Weights::load(&WeightsSource::Random { seed: 0 }, &[], 1, Progress::Silent).unwrap();
    let bounds = Bounds::of(plan, 1, 64);
    let (pinning, profiling) = (Pinning::None, Profiling::Off);
    Host::new(plan, &object, weights, HostOptions { threads: 1, pinning, profiling, bounds }).unwrap()
}

#[test]
fn a_step_runs_only_where_it_was_checked() {
    let plan = plan();
    let mut host = host(&plan);
    let step = Step {
        tokens: &[3],
        positions: &[0],
        seq_start: &[0, 1],
        slot_in: &[-1],
        slot_out: &[0],
        context: &[0],
        pages: &[-1],
        rows: &[0],
        forced: &[-1],
        temperature: &[0.0],
        top_k: &[0],
        top_p: &[1.0],
        min_p: &[0.0],
        seed: &[[0, 0]],
        ..Step::default()
    };
    let own = Bounds::of(&plan, 1, 64);
    let mut run = |bounds: Bounds| {
        let checked = step.check(&bounds, &mut Written::new(&bounds)).unwrap();
        host.run(&checked).map_err(|error| error.to_string())
    };
    assert_eq!(run(own), Ok(()));
    let other = Bounds { vocab: 17, ..own };
    assert_eq!(run(other).unwrap_err(), "the step was checked against the bounds of another engine");
    host.programs[0].phase = Phase::Decode;
    let checked = step.check(&own, &mut Written::new(&own)).unwrap();
    assert_eq!(host.run(&checked).unwrap_err().to_string(), "the artifact has no prefill program");
}
