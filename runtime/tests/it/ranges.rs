//! A phase with several programs: the number of tokens says which one runs.

use std::path::Path;

use nemo_ir::artifact::{self, Artifact};
use nemo_ir::plan::{Arg, Block, Call, Kernel, Launch, Phase, Plan, Program};
use nemort::device::Profiling;
use nemort::engine::{Engine, EngineOptions};
use nemort::step::Step;
use nemort::weights::WeightsSource;

use crate::toy;

/// Sequences in one step.
const SEQS: u64 = 7;

/// A decode program that gives `constant` for every sequence.
fn marking(plan: &mut Plan, constant: u64, (min_tokens, max_tokens): (u64, u64)) {
    let mut launch = |name: String, arg: Arg| {
        plan.kernels.push(Kernel { symbol: name.clone(), what: name.clone(), args: 1, geometry: None });
        Launch { kernel: plan.kernels.len() - 1, op: name, args: vec![arg] }
    };
    let mut launches = vec![launch(format!("mark_{constant}"), Arg::Next)];
    if constant == 2 {
        launches.push(launch("mark_logits".to_owned(), Arg::Logits));
    }
    plan.programs.push(Program {
        phase: Phase::Decode,
        min_tokens,
        max_tokens,
        max_seqs: max_tokens,
        arena_bytes: 64,
        blocks: vec![Block { name: format!("block_{constant}"), launches }],
        calls: vec![Call { block: 0, layer: None, weights: vec![], states: vec![] }; 2],
    });
}

/// The toy with three decode programs, the second of which alone keeps logits, and two prefill programs.
fn engine() -> Engine {
    let mut contents = toy::contents(&[("x86-64", &["sse2"])]);
    let plan = &mut contents.targets[0].plan;
    plan.limits.max_seqs = SEQS;
    plan.programs.retain(|program| program.phase == Phase::Prefill);
    let small = Program { max_tokens: 2, max_seqs: 2, ..plan.programs[0].clone() };
    plan.programs[0].min_tokens = 3;
    plan.programs[0].max_seqs = SEQS;
    plan.programs.insert(0, small);
    for (constant, range) in [(1, (1, 1)), (2, (2, 4)), (3, (5, 6))] {
        marking(plan, constant, range);
    }
    let bytes = artifact::to_bytes(&contents).unwrap();
    let artifact = Artifact::from_bytes(Path::new("toy.nemo"), bytes).unwrap();
    let options = EngineOptions {
        profiling: Profiling::EachLaunch,
        threads: Some(2),
        ..EngineOptions::new(WeightsSource::Random { seed: 1 })
    };
    Engine::load(&artifact, &options).unwrap()
}

/// The tokens that a step of new sequences with one token each gives, whether it gives logits, and the
/// blocks that ran with the ranges of their programs and the number of their calls, for each kernel.
fn run(engine: &mut Engine, seqs: usize, phase: Option<Phase>) -> Result<(Vec<i32>, bool, String), String> {
    let pages_per_seq = engine.bounds().pages_per_seq as usize;
    let count = |from: usize, to: usize| (from as i32..to as i32).collect::<Vec<_>>();
    let step = Step {
        phase,
        tokens: &vec![3; seqs],
        positions: &vec![0; seqs],
        seq_start: &count(0, seqs + 1),
        slot_in: &vec![-1; seqs],
        slot_out: &count(0, seqs),
        context: &vec![0; seqs],
        pages: &count(0, seqs * pages_per_seq),
        rows: &count(0, seqs),
        forced: &vec![9; seqs],
        temperature: &vec![0.0; seqs],
        top_k: &vec![0; seqs],
        top_p: &vec![1.0; seqs],
        min_p: &vec![0.0; seqs],
        seed: &vec![[0, 0]; seqs],
    };
    let output = engine.step(&step).map_err(|error| error.to_string())?;
    let next = output.next.to_vec();
    let logits = engine.logits().unwrap().map(<[f32]>::len);
    assert!(logits.is_none_or(|length| length == seqs * toy::VOCAB as usize));
    let ran = engine
        .take_profile()
        .into_iter()
        .map(|time| format!("{} {:?} x {}", time.block, time.tokens, time.calls));
    Ok((next, logits.is_some(), ran.collect::<Vec<_>>().join(", ")))
}

#[test]
fn the_number_of_tokens_chooses_the_program() {
    let mut engine = engine();
    assert_eq!((engine.bounds().decode_seqs, engine.bounds().seqs), (6, SEQS));
    assert_eq!(engine.bounds().tokens, toy::CHUNK);
    for (seqs, constant, range) in [
        (1, 1, "1..=1"),
        (2, 2, "2..=4"),
        (3, 2, "2..=4"),
        (4, 2, "2..=4"),
        (5, 3, "5..=6"),
        (6, 3, "5..=6"),
        (1, 1, "1..=1"),
    ] {
        let (next, logits, ran) = run(&mut engine, seqs, None).unwrap();
        assert_eq!(next, vec![constant; seqs]);
        assert_eq!(logits, constant == 2, "{seqs}");
        let kernels = if constant == 2 { 2 } else { 1 };
        assert_eq!(ran, vec![format!("block_{constant} {range} x 2"); kernels].join(", "));
    }
    // What prefill programs are told to give.
    for (seqs, range) in [(1, "1..=2"), (2, "1..=2"), (3, "3..=8"), (7, "3..=8")] {
        let (next, logits, ran) = run(&mut engine, seqs, Some(Phase::Prefill)).unwrap();
        assert_eq!((next, logits), (vec![9; seqs], true));
        assert!(ran.split(", ").all(|block| block.ends_with(&format!("{range} x 1"))), "{ran}");
    }
}

#[test]
fn a_step_past_every_range_is_refused_or_goes_to_the_other_phase() {
    let mut engine = engine();
    let (next, ..) = run(&mut engine, 7, None).unwrap();
    assert_eq!(next, [9; 7]);
    assert_eq!(
        run(&mut engine, 7, Some(Phase::Decode)).unwrap_err(),
        "the decode program cannot run this step: it has more sequences than that program's buffers hold"
    );
    let many = run(&mut engine, 9, None).unwrap_err();
    assert_eq!(many, "the step has 9 tokens, but the engine's steps hold at most 8");
}
