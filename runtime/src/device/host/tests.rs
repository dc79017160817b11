use nemo_ir::plan::{Limits, Program as PlanProgram, State};
use nemo_ir::rope::RopeTable;
use nemo_ir::types::Dtype;

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

#[test]
fn no_size_wraps() {
    let mut plan = plan();
    let most = i32::MAX as u64;
    plan.limits = Limits { vocab: most, max_context: most, max_seqs: most, chunk: most };
    plan.programs[0].max_tokens = most;
    plan.programs[0].max_seqs = most;
    plan.programs[0].arena_bytes = 1 << 46;
    plan.tables = vec![RopeTable { theta: 1e4, head_dim: 8192, positions: most, scaling: None }; 3];
    let state = |per| State { name: "s".to_owned(), per, dtype: Dtype::F32, shape: vec![1 << 44] };
    plan.states = vec![state(StateUnit::Slot), state(StateUnit::Page), state(StateUnit::Page)];
    let bounds = Bounds::of(&plan, most, most);
    assert_eq!(bounds.pages, most);
    let sizes = Sizes::of(&plan, &bounds);
    assert_eq!(total(&sizes.states), u64::MAX);
    assert_eq!(sizes.logits, most * most * 4);
    assert!(sizes.buffers() > sizes.logits);
    plan.programs[0].max_tokens = u64::MAX;
    assert_eq!(Sizes::of(&plan, &bounds).buffers(), u64::MAX);
}

#[test]
fn inputs_have_their_places() {
    assert!(StepInput::ALL.iter().enumerate().all(|(n, input)| place(*input) == n));
}
