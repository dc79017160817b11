//! The GPU device on a fake GPU: what it hands to a driver, and what it makes of a step.

use std::fmt::Write;
use std::path::Path;

use nemo_ir::artifact::{self, Artifact, Contents, CudaNeeds, Needs};
use nemo_ir::plan::{Arg, Extent, Geometry, Phase, Plan, TensorMap, Workspace};
use nemo_ir::step::StepInput;
use nemo_ir::types::{Dtype, Symbol};
use nemort::device::Profiling;
use nemort::device::gpu::driver::{Address, DriverError, Facts, GraphId, Launch};
use nemort::engine::{Engine, EngineOptions};
use nemort::session::{Request, Session};
use nemort::step::Step;
use nemort::weights::WeightsSource;

use crate::fake::{Asked, Fake, Setup};
use crate::toy::{self, continued};

/// Sequences in one step.
const SEQS: u64 = 6;

/// The toy for a GPU, with programs for 1, 2 to 4, and 5 to 6 sequences, and tensor maps of a weight and a value.
fn plan() -> Plan {
    let mut plan = toy::plan("sm_86");
    plan.limits.max_seqs = SEQS;
    let [decode, prefill] = [&plan.programs[0], &plan.programs[1]].map(Clone::clone);
    let range = |min_tokens, max_tokens| nemo_ir::plan::Program {
        min_tokens,
        max_tokens,
        max_seqs: max_tokens,
        ..decode.clone()
    };
    plan.programs = vec![range(1, 1), range(2, 4), range(5, 6)];
    plan.programs.push(nemo_ir::plan::Program { max_seqs: SEQS, ..prefill });
    let map = |arg, rows| TensorMap {
        arg,
        dtype: Dtype::Bf16,
        rows,
        columns: 2,
        row_bytes: 4,
        box_rows: 8,
        box_columns: 2,
        swizzle: 32,
    };
    for (n, kernel) in plan.kernels.iter_mut().enumerate() {
        kernel.geometry = Some(Geometry {
            grid: [Extent::per(Symbol::T, 2), Extent::Const(3), Extent::each(Symbol::R)],
            threads: 128,
            shared: 1024 * n as u32,
            counters: 0,
            partials: 0,
            maps: Vec::new(),
        });
    }
    // No row, no CTA.
    let head = plan.kernels[3].geometry.as_mut().unwrap();
    head.grid = [Extent::each(Symbol::L), Extent::Const(1), Extent::Const(1)];
    let embed = plan.kernels[0].geometry.as_mut().unwrap();
    embed.maps = vec![map(0, Extent::Const(16)), map(3, Extent::each(Symbol::T))];
    plan.workspace = Some(Workspace { counters: 10, partials: 100 });
    plan
}

fn ptx(plan: &Plan) -> String {
    let entry = |kernel: &nemo_ir::plan::Kernel| format!(".visible .entry {}() {{ ret; }}\n", kernel.symbol);
    ".version 7.8\n.target sm_86\n".to_owned() + &plan.kernels.iter().map(entry).collect::<String>()
}

pub fn contents() -> Contents {
    let mut contents = toy::contents(&[("sm_86", &[])]);
    let target = &mut contents.targets[0];
    target.plan = plan();
    target.needs = Needs::Cuda(CudaNeeds { capability: (8, 6), forward: true, ptx: (7, 8), driver: 520 });
    target.object = ptx(&target.plan).into_bytes();
    target.fused = Vec::new();
    contents
}

fn artifact(contents: &Contents) -> Artifact {
    Artifact::from_bytes(Path::new("toy.nemo"), artifact::to_bytes(contents).unwrap()).unwrap()
}

fn options(fake: &Fake, weights: WeightsSource) -> EngineOptions {
    EngineOptions { device: fake.device(), threads: Some(1), ..EngineOptions::new(weights) }
}

fn load_with(fake: &Fake, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    toy::checkpoint(dir.path());
    let mut options = options(fake, WeightsSource::Directory(dir.path().to_owned()));
    change(&mut options);
    Engine::load(&artifact(&contents()), &options).unwrap_or_else(|error| panic!("{error}"))
}

fn load(fake: &Fake) -> Engine {
    load_with(fake, |_| {})
}

fn refused(fake: &Fake, contents: &Contents) -> String {
    Engine::load(&artifact(contents), &options(fake, WeightsSource::Random { seed: 1 }))
        .unwrap_err()
        .to_string()
}

/// Runs a decode step of so many sequences, each in its own slot and page, from nothing.
fn decode(engine: &mut Engine, seqs: usize) -> Vec<i32> {
    let all = 0..seqs as i32;
    let pages = engine.bounds().pages_per_seq as i32;
    let table: Vec<_> = all.clone().flat_map(|seq| seq * pages..(seq + 1) * pages).collect();
    let tokens: Vec<_> = all.clone().map(|seq| seq + 3).collect();
    let step = Step {
        phase: Some(Phase::Decode),
        tokens: &tokens,
        positions: &vec![0; seqs],
        seq_start: &(0..=seqs as i32).collect::<Vec<_>>(),
        slot_in: &vec![-1; seqs],
        slot_out: &all.clone().collect::<Vec<_>>(),
        context: &vec![0; seqs],
        pages: &table,
        rows: &all.collect::<Vec<_>>(),
        forced: &vec![-1; seqs],
        temperature: &vec![0.5; seqs],
        top_k: &vec![7; seqs],
        top_p: &vec![0.25; seqs],
        min_p: &vec![0.125; seqs],
        seed: &vec![[8, 9]; seqs],
    };
    engine.step(&step).unwrap_or_else(|error| panic!("{error}")).next.to_vec()
}

/// What the toy says after one token.
fn after(seqs: usize) -> Vec<i32> {
    (0..seqs as u32).map(|seq| toy::next(&[seq + 3]) as i32).collect()
}

#[test]
fn sequences_of_all_lengths_come_out_as_on_a_cpu() {
    let fake = Fake::new(Setup::default());
    let mut engine = load(&fake);
    let mut session = Session::new(&mut engine);
    let prompts: Vec<Vec<u32>> =
        (1..12).map(|n| (0..n * n % 23 + 1).map(|k| (k * 3 + n) % 16).collect()).collect();
    let mut ids = Vec::new();
    for (n, prompt) in prompts.iter().enumerate() {
        ids.push(session.submit(Request::new(prompt.clone(), 5 + n * 7)).unwrap());
    }
    let mut tokens = vec![Vec::new(); ids.len()];
    while !session.is_idle() {
        for event in session.advance().unwrap() {
            let at = ids.iter().position(|id| *id == event.sequence).unwrap();
            tokens[at].extend(event.token);
        }
    }
    for (n, prompt) in prompts.iter().enumerate() {
        assert_eq!(tokens[n], continued(prompt, 5 + n * 7), "sequence {n}");
    }
    // Nobody asked for logits, so none were brought: each download is a token for each of at most six sequences.
    for asked in fake.asked() {
        assert!(!matches!(asked, Asked::Download(_, bytes) if bytes > 4 * SEQS as usize), "{asked:?}");
    }
}

#[test]
fn steps_run_as_recorded_where_a_bucket_holds_them() {
    let fake = Fake::new(Setup::default());
    let mut engine = load(&fake);
    let mut told = String::new();
    for seqs in [1, 2, 3, 4, 5, 6, 1, 3] {
        fake.asked();
        assert_eq!(decode(&mut engine, seqs), after(seqs), "{seqs}");
        let launched: Vec<_> = fake
            .asked()
            .into_iter()
            .filter(|asked| matches!(asked, Asked::Run(_) | Asked::Record(..) | Asked::Replay(_)))
            .map(|asked| format!("{asked:?}"))
            .collect();
        writeln!(told, "{seqs} sequences: {}", launched.join(", ")).unwrap();
    }
    insta::assert_snapshot!("buckets", told);
}

/// An address among the parameters of a launch.
fn pointer(launch: &Launch, n: usize) -> Address {
    Address(u64::from_le_bytes(launch.parameters[n * 8..][..8].try_into().unwrap()))
}

#[test]
fn a_step_is_filled_up_with_sequences_that_write_nothing() {
    let fake = Fake::new(Setup::default());
    let mut engine = load_with(&fake, |options| options.max_context = Some(128));
    fake.asked();
    decode(&mut engine, 3);
    let uploads: Vec<_> =
        fake.asked().into_iter().filter(|asked| matches!(asked, Asked::Upload(..))).collect();
    let [Asked::Upload(first, bytes)] = uploads[..] else { panic!("{uploads:?}") };
    let mut state = fake.state();
    // Where each input is, the kernels' parameters say; the others follow from the contract.
    let launches = state.launches.clone();
    let plan = plan();
    let mut told = String::new();
    let block = plan.programs[1].blocks.iter().flat_map(|block| &block.launches);
    let mut places = std::collections::BTreeMap::new();
    for (launch, given) in block.zip(&launches) {
        for (n, arg) in launch.args.iter().enumerate() {
            if let Arg::Step(input) = arg {
                places.insert(*input, pointer(given, n));
            }
        }
    }
    assert_eq!(places[&StepInput::Tokens], first);
    assert!(places.values().all(|place| (place.0 - first.0).is_multiple_of(256)));
    // Nothing is uploaded after the block table of four sequences of two pages.
    let pages = places[&StepInput::Pages];
    assert_eq!(first.offset(bytes as u64), pages.offset(4 * 2 * 4));
    for (input, place) in &places {
        let count = match input {
            StepInput::SeqStart => 5,
            StepInput::Pages => 8,
            _ => 4,
        };
        let values: Vec<_> = (0..count).map(|n| state.i32(*place, n)).collect();
        writeln!(told, "{}: {values:?}", input.name()).unwrap();
    }
    // What no kernel of the toy reads lies between `forced` and the block table.
    let forced = places[&StepInput::Forced];
    let mut at = forced;
    for name in ["temperature", "top_k", "top_p", "min_p", "seed"] {
        // Each input of a step of at most eight sequences takes less than 256 bytes.
        at = at.offset(256);
        let count = if name == "seed" { 8 } else { 4 };
        let bits: Vec<_> = (0..count).map(|n| state.i32(at, n)).collect();
        match name {
            "top_k" | "seed" => writeln!(told, "{name}: {bits:?}").unwrap(),
            _ => {
                let values: Vec<_> = bits.iter().map(|bits| f32::from_bits(*bits as u32)).collect();
                writeln!(told, "{name}: {values:?}").unwrap();
            }
        }
    }
    insta::assert_snapshot!("padding", told);
}

#[test]
fn parameters_are_pointers_extents_and_tensor_maps() {
    let fake = Fake::new(Setup::default());
    let mut engine = load(&fake);
    fake.asked();
    decode(&mut engine, 5);
    let asked = fake.asked();
    let launches = fake.state().launches.clone();
    let [embed, scan, cache, head, sample] = &launches[..] else { panic!("{launches:?}") };
    // Four arguments, counters, partial results; T, R, L and P; two maps of 128 bytes at a multiple of 64.
    assert_eq!(embed.parameters.len(), 64 + 256);
    let ints = |launch: &Launch, at: usize| -> Vec<i32> {
        launch.parameters[at..at + 16].as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
    };
    assert_eq!(ints(embed, 48), [5, 5, 5, 4]);
    assert_eq!((scan.parameters.len(), ints(scan, 72)), (88, vec![5, 5, 5, 4]));
    let maps = |launch: &Launch| [64, 192].map(|at| (pointer(launch, at / 8), pointer(launch, at / 8 + 1).0));
    assert_eq!(maps(embed), [(pointer(embed, 0), 16), (pointer(embed, 3), 5)]);
    // Counters and partial results are the same for all; the arena's offsets are the plan's.
    assert_eq!((pointer(embed, 4), pointer(embed, 5)), (pointer(scan, 7), pointer(scan, 8)));
    assert_ne!(pointer(embed, 4), pointer(embed, 5));
    assert_eq!(pointer(embed, 3).offset(1024), pointer(scan, 6));
    assert_eq!(pointer(embed, 3), pointer(scan, 0));
    assert_eq!((pointer(head, 2), pointer(cache, 5)), (pointer(sample, 0), pointer(scan, 6)));
    assert_eq!((embed.grid, embed.threads, embed.shared), ([3, 3, 5], 128, 0));
    assert_eq!((head.grid, head.shared), ([5, 1, 1], 3072));
    // The weight's map was made at load, with those of the largest steps; no map is made twice.
    let made = |asked: &[Asked]| asked.iter().filter(|asked| matches!(asked, Asked::TensorMap(_))).count();
    assert_eq!(made(&asked), 1);
    decode(&mut engine, 6);
    assert_eq!(made(&fake.asked()), 0);
    decode(&mut engine, 5);
    assert_eq!(made(&fake.asked()), 0);
}

#[test]
fn prefill_is_launched_and_logits_come_when_asked_for() {
    let fake = Fake::new(Setup::default());
    let mut engine = load(&fake);
    assert!(engine.logits().unwrap().is_none());
    fake.asked();
    let step = Step {
        tokens: &[1, 2, 3],
        positions: &[0, 1, 2],
        seq_start: &[0, 3],
        slot_in: &[-1],
        slot_out: &[0],
        context: &[0],
        pages: &[0, 1, 2, 3],
        rows: &[],
        forced: &[-1],
        temperature: &[0.0],
        top_k: &[0],
        top_p: &[1.0],
        min_p: &[0.0],
        seed: &[[0, 0]],
        ..Step::default()
    };
    // No row wants logits: the head has no CTA.
    assert_eq!(engine.step(&step).unwrap().next, [-1]);
    assert!(fake.state().launches[3].is_empty());
    assert!(engine.logits().unwrap().is_some_and(<[f32]>::is_empty));
    assert_eq!(engine.step(&Step { rows: &[1, 2], ..step }).unwrap().next, [toy::next(&[1, 2, 3]) as i32]);
    assert!(fake.asked().contains(&Asked::Run(5)));
    let logits = engine.logits().unwrap().unwrap().to_vec();
    assert_eq!(logits.len(), 2 * 16);
    assert_eq!(logits[16 + toy::next(&[1, 2, 3]) as usize], 0.0);
    let [Asked::Download(_, 128)] = fake.asked()[..] else { panic!("one download of two rows") };
}

#[test]
fn what_does_not_fit_is_a_table() {
    let fake = Fake::new(Setup { free: 10_000, ..Setup::default() });
    insta::assert_snapshot!("no_fit", refused(&fake, &contents()));
    // Nothing was taken before.
    assert_eq!(fake.asked(), []);
}

#[test]
fn random_weights_are_made_on_the_gpu() {
    let fake = Fake::new(Setup::default());
    let mut contents = contents();
    contents.targets[0].plan.weights[0].shape = vec![5 << 20, 1];
    let options = options(&fake, WeightsSource::Random { seed: 7 });
    let engine = Engine::load(&artifact(&contents), &options).unwrap();
    let asked = fake.asked();
    // Nothing but the table of angles crosses the bus.
    let uploaded = asked.iter().filter_map(|asked| match asked {
        Asked::Upload(_, bytes) => Some(*bytes),
        _ => None,
    });
    assert_eq!(uploaded.collect::<Vec<_>>(), [256 * 2 * 4]);
    assert!(asked.contains(&Asked::Kernel("nemort_random".to_owned(), 256, 0)), "{asked:?}");
    assert!(asked.contains(&Asked::Run(2)), "{asked:?}");
    // The matrix of bf16, whose pieces of 4 MiB have 2^21 elements, and the vector of one f32.
    let launches = std::mem::take(&mut fake.state().launches);
    let words = |n: usize, at: usize| -> Vec<u32> {
        launches[n].parameters[at..].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    assert_eq!((launches[0].grid, launches[1].grid), ([4096, 1, 1], [1, 1, 1]));
    assert_eq!((&words(0, 8)[..2], &words(0, 32)[..]), (&[5 << 20, 0][..], &[21, 1][..]));
    assert_eq!((&words(1, 8)[..2], &words(1, 32)[..]), (&[1, 0][..], &[20, 0][..]));
    assert_ne!(words(0, 16)[..2], words(1, 16)[..2], "each weight has a seed of its own");
    assert_eq!(engine.memory().weights, (10 << 20) + 4);
}

#[test]
fn launches_are_timed_one_by_one() {
    let fake = Fake::new(Setup::default());
    let mut engine = load_with(&fake, |options| options.profiling = Profiling::EachLaunch);
    fake.asked();
    assert_eq!(decode(&mut engine, 3), after(3));
    assert!(fake.asked().contains(&Asked::Time(5)));
    let times: Vec<_> = engine
        .take_profile()
        .into_iter()
        .map(|time| (time.tokens, time.block, time.op, time.count, time.total.as_micros()))
        .collect();
    let row = |block: &str, op: &str, micros| (2..=4, block.to_owned(), op.to_owned(), 1, micros);
    assert_eq!(
        times,
        [
            row("embed", "embed", 1),
            row("layer", "scan", 2),
            row("layer", "cache", 3),
            row("head", "head", 4),
            row("head", "sample", 5)
        ]
    );
    assert!(engine.take_profile().is_empty());
    assert_eq!((engine.read_bandwidth(), engine.product_peak()), (Some(1e9), None));
}

#[test]
fn machine_code_is_used_where_it_is_the_gpus_own() {
    let dir = tempfile::tempdir().unwrap();
    toy::checkpoint(dir.path());
    let load = |capability, cubin: Result<(), DriverError>| {
        let facts = Facts { capability, ..Setup::default().facts };
        let fake = Fake::new(Setup { facts, cubin, ..Setup::default() });
        let mut contents = contents();
        contents.targets[0].cubin = Some(vec![1, 2, 3]);
        let options = options(&fake, WeightsSource::Directory(dir.path().to_owned()));
        let engine = Engine::load(&artifact(&contents), &options).unwrap();
        let loaded: Vec<_> =
            fake.asked().into_iter().filter(|asked| matches!(asked, Asked::Ptx | Asked::Cubin)).collect();
        (loaded, engine.notes().join("; "))
    };
    let compiled = "the driver compiled the kernels in 1.5 s";
    assert_eq!(load((8, 6), Ok(())), (vec![Asked::Cubin], String::new()));
    let no = Err(DriverError("no".to_owned()));
    let refused = "the artifact's machine code is not used, its PTX is: no";
    assert_eq!(load((8, 6), no), (vec![Asked::Cubin, Asked::Ptx], format!("{refused}; {compiled}")));
    let later = "GPU 0 (Fake, compute capability 12.0, driver 535) has no target of its own in the artifact: it runs \
                 `sm_86`";
    assert_eq!(load((12, 0), Ok(())), (vec![Asked::Ptx], format!("{later}; {compiled}")));
}

#[test]
fn machine_code_that_cannot_be_kept_is_told() {
    let fake = Fake::new(Setup { not_kept: Some("no room".to_owned()), ..Setup::default() });
    let options = options(&fake, WeightsSource::Random { seed: 1 });
    let engine = Engine::load(&artifact(&contents()), &options).unwrap();
    assert_eq!(engine.notes()[1..], ["what it compiled cannot be kept for the next time: no room"]);
}

#[test]
fn kernels_are_checked_before_the_gpu_is_touched() {
    let fake = Fake::new(Setup::default());
    let mut missing = contents();
    missing.targets[0].plan.kernels[1].symbol = "absent".to_owned();
    let mut no_text = contents();
    no_text.targets[0].object = vec![0xFF; 4];
    let mut for_cpus = contents();
    for_cpus.targets[0].plan.kernels[2].geometry = None;
    let mut large = contents();
    large.targets[0].plan.kernels[0].geometry.as_mut().unwrap().grid[1] = Extent::Const(70_000);
    let all = [missing, no_text, for_cpus, large].map(|contents| refused(&fake, &contents));
    insta::assert_snapshot!("kernels", all.join("\n"));
    assert_eq!(fake.asked(), []);
}

#[test]
fn what_the_driver_says_of_a_step_is_passed_on() {
    let failed = DriverError("an illegal memory access".to_owned());
    let fake = Fake::new(Setup { download: Err(failed), ..Setup::default() });
    let mut engine = load(&fake);
    let mut session = Session::new(&mut engine);
    session.submit(Request::new(vec![1], 1)).unwrap();
    let message = session.advance().unwrap_err().to_string();
    assert_eq!(message, "the GPU failed: an illegal memory access");
}

#[test]
fn a_recording_of_another_bucket_is_another() {
    let fake = Fake::new(Setup::default());
    let mut engine = load_with(&fake, |options| options.max_seqs = Some(3));
    fake.asked();
    decode(&mut engine, 3);
    // Four sequences, though the engine has three: the fourth is always padding.
    assert!(fake.asked().contains(&Asked::Record(GraphId(0), 5)));
    assert_eq!(fake.state().launches[0].grid, [2, 3, 4]);
}
