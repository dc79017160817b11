use std::path::Path;

use nemo_ir::artifact::{self, Artifact};
use nemo_ir::plan::Phase;
use nemort::device::Profiling;
use nemort::device::host::pool::Pinning;
use nemort::engine::{Engine, EngineOptions};
use nemort::step::Step;
use nemort::weights::WeightsSource;

use crate::toy;

pub fn options(weights: &Path) -> EngineOptions {
    EngineOptions {
        threads: Some(2),
        pinning: Pinning::None,
        ..EngineOptions::new(WeightsSource::Directory(weights.to_owned()))
    }
}

pub fn engine() -> Engine {
    let (dir, _) = toy::directory();
    Engine::load(&toy::artifact(), &options(dir.path())).unwrap()
}

fn message(artifact: &Artifact, options: &EngineOptions) -> String {
    Engine::load(artifact, options).unwrap_err().to_string()
}

/// Token ids that differ from place to place.
fn prompt(length: usize, salt: usize) -> Vec<i32> {
    (0..length).map(|n| ((n * 7 + salt) % 16) as i32).collect()
}

/// A step of one sequence: these tokens after `context` others, in slot 0.
fn single<'a>(
    tokens: &'a [i32],
    positions: &'a [i32],
    pages: &'a [i32],
    rows: &'a [i32],
    ends: &'a [i32; 2],
) -> Step<'a> {
    Step {
        tokens,
        positions,
        seq_start: ends,
        slot_in: if positions[0] == 0 { &[-1] } else { &[0] },
        slot_out: &[0],
        context: &positions[..1],
        pages,
        rows,
        forced: &[-1],
        temperature: &[0.0],
        top_k: &[0],
        top_p: &[1.0],
        min_p: &[0.0],
        seed: &[[0, 0]],
        ..Step::default()
    }
}

/// Logits of every token of one sequence, fed in chunks.
fn logits(engine: &mut Engine, tokens: &[i32], chunk: usize, phase: Option<Phase>) -> Vec<f32> {
    // Any order of pages will do.
    let pages: Vec<i32> = (0..engine.bounds().pages_per_seq as i32).rev().collect();
    let mut all = Vec::new();
    for (n, part) in tokens.chunks(chunk).enumerate() {
        let positions: Vec<_> = (0..part.len()).map(|at| (n * chunk + at) as i32).collect();
        let rows: Vec<_> = (0..part.len() as i32).collect();
        let ends = [0, part.len() as i32];
        let step = Step { phase, ..single(part, &positions, &pages, &rows, &ends) };
        engine.step(&step).unwrap();
        all.extend_from_slice(engine.logits().unwrap().unwrap());
    }
    all
}

#[test]
fn chunks_decode_and_threads_give_the_same_logits() {
    let (dir, _) = toy::directory();
    let tokens = prompt(100, 3);
    let mut engine = engine();
    let whole = logits(&mut engine, &tokens, 8, None);
    assert_eq!(whole.len(), 100 * 16);
    for at in [0, 50, 99] {
        let history: Vec<u32> = tokens[..=at].iter().map(|token| *token as u32).collect();
        let row = &whole[at * 16..(at + 1) * 16];
        assert_eq!(row[toy::next(&history) as usize], 0.0, "row {at}: {row:?}");
    }
    assert_eq!(logits(&mut engine, &tokens, 3, None), whole);
    assert_eq!(logits(&mut engine, &tokens, 1, Some(Phase::Decode)), whole);
    assert_eq!(logits(&mut engine, &tokens, 1, Some(Phase::Prefill)), whole);
    let single = EngineOptions { threads: Some(1), max_context: Some(100), ..options(dir.path()) };
    let mut single = Engine::load(&toy::artifact(), &single).unwrap();
    assert_eq!(single.bounds().pages_per_seq, 2);
    assert_eq!(logits(&mut single, &tokens, 8, None), whole);
}

#[test]
fn a_mixed_step_keeps_sequences_apart_and_forces_tokens() {
    let mut engine = engine();
    let (a, b) = (prompt(6, 1), prompt(3, 9));
    let pages = [5, 6, 7, 8, 1, 2, 3, 4];
    let tokens = [&a[..], &b[..2]].concat();
    let step = Step {
        tokens: &tokens,
        positions: &[0, 1, 2, 3, 4, 5, 0, 1],
        seq_start: &[0, 6, 8],
        slot_in: &[-1, -1],
        slot_out: &[2, 0],
        context: &[0, 0],
        pages: &pages,
        rows: &[5],
        forced: &[-1, -1],
        temperature: &[0.0; 2],
        top_k: &[0; 2],
        top_p: &[1.0; 2],
        min_p: &[0.0; 2],
        seed: &[[0; 2]; 2],
        ..Step::default()
    };
    let wide = |tokens: &[i32]| tokens.iter().map(|token| *token as u32).collect::<Vec<_>>();
    let first = toy::next(&wide(&a)) as i32;
    assert_eq!(engine.step(&step).unwrap().next, [first, -1]);
    let step = Step {
        tokens: &[first, b[2]],
        positions: &[6, 2],
        seq_start: &[0, 1, 2],
        slot_in: &[2, 0],
        context: &[6, 2],
        rows: &[0, 1],
        ..step
    };
    let second = toy::next(&wide(&[&a[..], &[first]].concat())) as i32;
    assert_eq!(engine.step(&step).unwrap().next, [second, toy::next(&wide(&b)) as i32]);
    // The same step once more: slot 2 now has a token too many, the forced answer stands all the same.
    let again = Step { forced: &[-1, 11], ..step };
    assert_eq!(engine.step(&again).unwrap().next[1], 11);
}

#[test]
fn a_state_can_be_copied_from_slot_to_slot() {
    let mut engine = engine();
    let pages = [0, 1, 2, 3];
    let step = Step { slot_out: &[1], ..single(&[3, 4], &[0, 1], &pages, &[1], &[0, 2]) };
    engine.step(&step).unwrap();
    // From slot 1 into slot 2, twice: slot 1 stays as it was.
    for _ in 0..2 {
        let step = Step { slot_in: &[1], slot_out: &[2], ..single(&[5], &[2], &pages, &[0], &[0, 1]) };
        assert_eq!(engine.step(&step).unwrap().next, [toy::next(&[3, 4, 5]) as i32]);
    }
}

#[test]
fn padding_writes_nothing() {
    let pages = [0, 1, 2, 3];
    // Of a sequence in slot 0 and page 0, where a stray write would land first.
    let continued = |disturb: &dyn Fn(&mut Engine)| {
        let mut engine = engine();
        engine.step(&single(&[3, 4, 9], &[0, 1, 2], &pages, &[2], &[0, 3])).unwrap();
        disturb(&mut engine);
        engine.step(&single(&[5], &[3], &pages, &[0], &[0, 1])).unwrap();
        engine.logits().unwrap().unwrap().to_vec()
    };
    let none = [-1; 4];
    let padding = |tokens, positions, rows, ends| Step {
        slot_in: &[-1],
        slot_out: &[-1],
        ..single(tokens, positions, &none, rows, ends)
    };
    let wanted = continued(&|_| {});
    let padded = continued(&|engine| {
        engine.step(&padding(&[7], &[0], &[0], &[0, 1])).unwrap();
        engine.step(&padding(&[7, 8, 2], &[0, 1, 2], &[2], &[0, 3])).unwrap();
    });
    assert_eq!(padded, wanted);
    // The same tokens with a place to go do disturb it.
    let written = continued(&|engine| {
        engine.step(&single(&[7], &[0], &pages, &[0], &[0, 1])).unwrap();
    });
    assert_ne!(written, wanted);
}

#[test]
fn a_bad_step_runs_nothing() {
    let mut engine = engine();
    let step = single(&[16], &[0], &[0, 1, 2, 3], &[0], &[0, 1]);
    let message = engine.step(&step).unwrap_err().to_string();
    assert_eq!(message, "step input `tokens`, element 0: 16 is not in 0..16");
}

#[test]
fn the_target_with_the_most_features_that_fit_is_chosen() {
    let (dir, _) = toy::directory();
    let targets: &[(&str, &[&str])] =
        &[("a", &[]), ("b", &["sse", "sse2"]), ("c", &["sse", "sse2", "avx9000"])];
    let bytes = artifact::to_bytes(&toy::contents(targets)).unwrap();
    let artifact = Artifact::from_bytes(Path::new("toy.nemo"), bytes).unwrap();
    let load = |target: Option<&str>| {
        Engine::load(&artifact, &EngineOptions { target: target.map(str::to_owned), ..options(dir.path()) })
            .map(|engine| engine.plan().target.clone())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(None).unwrap(), "b");
    assert_eq!(load(Some("a")).unwrap(), "a");
    let other = load(Some("c")).unwrap_err();
    assert_eq!(
        other,
        "artifact `toy.nemo` is for another CPU: target `c` needs avx9000, which this one lacks"
    );
    assert_eq!(
        load(Some("sm_90")).unwrap_err(),
        "artifact `toy.nemo` has no target `sm_90`; it has `a`, `b`, `c`"
    );
}

#[test]
fn limits_weights_and_kernels_are_checked_before_anything_runs() {
    let (dir, _) = toy::directory();
    let artifact = toy::artifact();
    let seqs = EngineOptions { max_seqs: Some(4), ..options(dir.path()) };
    assert!(
        message(&artifact, &seqs).contains("--max-seqs is 4; artifact `toy.nemo` was compiled for 1 to 3")
    );
    let context = EngineOptions { max_context: Some(257), ..options(dir.path()) };
    assert!(
        message(&artifact, &context)
            .contains("--max-context is 257; artifact `toy.nemo` was compiled for 1 to 256")
    );
    let nowhere = options(Path::new("/nowhere"));
    assert!(message(&artifact, &nowhere).contains("there is no directory `/nowhere`"));

    let mut contents = toy::contents(&[("x86-64", &[])]);
    contents.targets[0].plan.kernels[0].symbol = "absent".to_owned();
    let bytes = artifact::to_bytes(&contents).unwrap();
    let broken = Artifact::from_bytes(Path::new("toy.nemo"), bytes).unwrap();
    let wanted = "cannot load artifact `toy.nemo`: the kernel object has no function `absent`";
    assert_eq!(message(&broken, &options(dir.path())), wanted);

    let mut contents = toy::contents(&[("x86-64", &[])]);
    contents.targets[0].plan.states[0].shape = vec![1 << 40];
    let bytes = artifact::to_bytes(&contents).unwrap();
    let large = Artifact::from_bytes(Path::new("toy.nemo"), bytes).unwrap();
    let message = message(&large, &options(dir.path()));
    assert!(message.contains("the state of all sequences needs 12288.0 GiB, but only"), "{message}");
}

#[test]
fn random_weights_and_a_profile() {
    let options = EngineOptions {
        profiling: Profiling::EachLaunch,
        threads: Some(1),
        ..EngineOptions::new(WeightsSource::Random { seed: 1 })
    };
    let mut engine = Engine::load(&toy::artifact(), &options).unwrap();
    engine.step(&single(&[1], &[0], &[0, 1, 2, 3], &[0], &[0, 1])).unwrap();
    let profile = engine.take_profile();
    let ops: Vec<_> = profile.iter().map(|time| (time.op.as_str(), time.count)).collect();
    assert_eq!(ops, [("embed", 1), ("scan", 1), ("cache", 1), ("head", 1), ("sample", 1)]);
    let blocks: Vec<_> = profile.iter().map(|time| (time.block.as_str(), time.calls)).collect();
    assert_eq!(blocks, [("embed", 1), ("layer", 1), ("layer", 1), ("head", 1), ("head", 1)]);
    assert!(profile.iter().all(|time| time.phase == Phase::Decode && time.tokens == (1..=3)));
    assert!(engine.take_profile().is_empty());
    assert_eq!(engine.memory().weights, 64 + 4);
}
