//! What fusion buys on this machine, and whether the cost model says so too.
//!
//! `cargo bench -p nemo-tests --bench fusion [-- ablation | prediction | choice]`
//!
//! * ablation: decode and prefill without fusion, by greedy rewriting and by saturation, beside the prediction;
//! * prediction: predicted over measured time of each block, after scaling by what the machine reached in the same run;
//! * choice: each block's chosen form against the best rejected one.
//!
//! Models have random weights and the real architectures. Everything that is compared runs in turn, round by round;
//! figures are medians, and ratios are medians of the rounds' ratios.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nemo_ir::artifact::{self, Artifact, Contents, Needs, TargetContents};
use nemo_ir::graph::Program;
use nemo_ir::plan::Phase;
use nemo_kernels::host::{self, Listings};
use nemo_kernels::target::HostTarget;
use nemo_models::Model;
use nemoc::cost::Situation;
use nemoc::device::{Device, Peak};
use nemoc::fuse::{ProgramReport, fuse};
use nemoc::lower::{LowerOptions, lower, stored};
use nemoc::plan::{PlanOptions, RangedProgram, plan};
use nemoc::saturate::{self, Options, Rules};
use nemort::device::Profiling;
use nemort::engine::{Engine, EngineOptions};
use nemort::session::{Request, Session};
use nemort::weights::WeightsSource;

const ROUNDS: usize = 7;
const PROMPT: u64 = 512;
const NEW: u64 = 48;
const SEQS: u64 = 8;
const SIZES: PlanOptions = PlanOptions { max_seqs: SEQS, max_context: 1024, chunk: PROMPT };
const MODELS: [&str; 2] = ["nano2-mini", "llama-mini"];

fn main() {
    let asked: BTreeSet<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |what: &str| asked.is_empty() || asked.contains(what);
    let target = HostTarget::detect().expect("this bench needs x86-64-v3");
    let device = Device::for_target(&target.to_string()).expect("every CPU target has a device");
    for name in MODELS {
        let model = model(name);
        println!("{name} on {target}");
        if wants("ablation") {
            ablation(&model, &target, &device);
        }
        if wants("prediction") {
            prediction(&model, &target, &device);
        }
        if wants("choice") {
            choice(&model, &target, &device);
        }
    }
}

fn model(name: &str) -> Model {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/mini").join(name);
    let file = folder.join("config.json");
    let text = std::fs::read_to_string(&file).expect("the configuration is there");
    nemo_models::import_hf(&text, &file.display().to_string(), name).unwrap_or_else(|error| panic!("{error}"))
}

fn lowered(model: &Model) -> Vec<Program> {
    let options = LowerOptions { max_context: SIZES.max_context, ..LowerOptions::of(model) };
    let program = |phase| lower(model, phase, options).unwrap_or_else(|error| panic!("{error}"));
    Phase::ALL.into_iter().map(program).collect()
}

/// A way to fuse a model.
struct Variant {
    name: &'static str,
    programs: Vec<RangedProgram>,
    reports: Vec<ProgramReport>,
}

fn variant(model: &Model, device: &Device, rules: Rules) -> Variant {
    let options = Options { rules, ..Options::default() };
    let fused = fuse(&lowered(model), device, SIZES, options).unwrap_or_else(|error| panic!("{error}"));
    let (programs, reports) = fused.into_iter().unzip();
    Variant { name: rules.name(), programs, reports }
}

fn engine(model: &Model, target: &HostTarget, programs: &[RangedProgram], profiling: Profiling) -> Engine {
    let name = target.to_string();
    let device = Device::for_target(&name).expect("it is this machine's");
    let planned = plan(model, programs, (&target.clone().into(), &device), SIZES)
        .unwrap_or_else(|error| panic!("{error}"));
    nemoc::plan::check::check(programs, &planned).unwrap_or_else(|error| panic!("{error}"));
    let object = host::compile(target, &planned.kernels, Listings::default());
    let contents = Contents {
        model: model.name.clone(),
        compiler: "bench".to_owned(),
        weights: stored(model.dtype),
        activations: stored(model.dtype),
        model_toml: model.to_toml(),
        targets: vec![TargetContents {
            name,
            needs: Needs::Host { cpu_features: target.cpu_features() },
            cubin: None,
            plan: planned.plan,
            object: object.unwrap_or_else(|error| panic!("{error}")).elf,
            fused: Vec::new(),
            explain: None,
        }],
    };
    let bytes = artifact::to_bytes(&contents).unwrap_or_else(|error| panic!("{error}"));
    let artifact = Artifact::from_bytes(Path::new("bench.nemo"), bytes).expect("it was just written");
    let options = EngineOptions { profiling, ..EngineOptions::new(WeightsSource::Random { seed: 0 }) };
    Engine::load(&artifact, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Seconds of reading the prompts, and of decoding.
fn run(engine: &mut Engine, seqs: u64, prompt: u64, new: u64) -> (f64, f64) {
    let vocab = engine.limits().vocab;
    let mut session = Session::new(engine);
    for seq in 0..seqs {
        let token = |n: u64| ((n * 7919 + seq * 104_729 + 17) % vocab) as u32;
        let request = Request::new((0..prompt).map(token).collect(), new as usize);
        session.submit(request).unwrap_or_else(|error| panic!("{error}"));
    }
    let started = Instant::now();
    let mut begun = BTreeSet::new();
    while begun.len() < seqs as usize {
        let events = session.advance().unwrap_or_else(|error| panic!("{error}"));
        begun.extend(events.iter().map(|event| event.sequence));
    }
    let prefill = started.elapsed().as_secs_f64();
    let started = Instant::now();
    while !session.is_idle() {
        session.advance().unwrap_or_else(|error| panic!("{error}"));
    }
    (prefill, started.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ablation(model: &Model, target: &HostTarget, device: &Device) {
    let variants = Rules::ALL.map(|rules| variant(model, device, rules));
    let mut engines: Vec<Engine> =
        variants.iter().map(|v| engine(model, target, &v.programs, Profiling::Off)).collect();
    let mut seconds: Vec<[Vec<f64>; 2]> = vec![Default::default(); variants.len()];
    for round in 0..=ROUNDS {
        for turn in 0..engines.len() {
            let index = (turn + round) % engines.len();
            let (prefill, decode) = run(&mut engines[index], 1, PROMPT, NEW);
            // The first round touches memory that later ones find in place.
            if round > 0 {
                seconds[index][0].push(prefill);
                seconds[index][1].push(decode);
            }
        }
    }
    println!(
        "  ablation, median of {ROUNDS} interleaved rounds: tok/s, time against off, and the prediction of that"
    );
    for (phase, of, tokens) in [(Phase::Prefill, 0, PROMPT), (Phase::Decode, 1, NEW - 1)] {
        for (index, variant) in variants.iter().enumerate() {
            let own = &seconds[index][of];
            let ratios = own.iter().zip(&seconds[0][of]).map(|(own, off)| own / off).collect();
            let report = variant.reports.iter().find(|report| report.phase == phase).expect("both phases");
            let totals = report.totals();
            println!(
                "    {:7} {:8}: {:7.2} tok/s, {:.3} of off, predicted {:.3}; {} kernels a step",
                phase.name(),
                variant.name,
                tokens as f64 / median(own.clone()),
                median(ratios),
                totals.chosen.seconds / totals.off.seconds,
                totals.chosen.kernels,
            );
        }
    }
}

/// Seconds of one call of each block, by program and block.
type Times = BTreeMap<(Phase, u64, String), f64>;

/// Runs one sequence, and then a few for the programs that only those reach; gives the time of each block.
fn profile(engine: &mut Engine) -> Times {
    engine.take_profile();
    let mut times = Times::new();
    for (seqs, prompt, new) in [(1, PROMPT, NEW), (SEQS, 8, NEW / 2)] {
        run(engine, seqs, prompt, new);
        let mut own = Times::new();
        for time in engine.take_profile() {
            let each = time.total.as_secs_f64() / time.calls.max(1) as f64;
            *own.entry((time.phase, *time.tokens.start(), time.block)).or_default() += each;
        }
        for (key, seconds) in own {
            times.entry(key).or_insert(seconds);
        }
    }
    times
}

/// The T that the steps of [`profile`] bring to a program of this range.
fn tokens_of(phase: Phase, range: &RangeInclusive<u64>) -> u64 {
    match phase {
        Phase::Prefill => PROMPT,
        Phase::Decode if *range.start() == 1 => 1,
        Phase::Decode => SEQS,
    }
}

/// The middle of what [`profile`] runs.
fn situation<'a>(device: &'a Device, ranged: &RangedProgram) -> Situation<'a> {
    let tokens = tokens_of(ranged.program.phase, &ranged.tokens);
    match ranged.program.phase {
        Phase::Prefill => Situation::prefill(device, tokens),
        Phase::Decode => {
            let context = if tokens == 1 { PROMPT + NEW / 2 } else { 8 + NEW / 4 };
            Situation { context, ..Situation::decode(device, tokens) }
        }
    }
}

/// The device as fast as it was in this run: memory by its streaming reads, everything else by its products.
fn scaled(device: &Device, bandwidth: f64, peak: f64) -> Device {
    let clock = peak / 1e9 / device.products_gflop_s.bf16;
    Device {
        bandwidth_gb_s: bandwidth / 1e9,
        cache_bandwidth_gb_s: device.cache_bandwidth_gb_s * clock,
        products_gflop_s: Peak {
            bf16: device.products_gflop_s.bf16 * clock,
            f32: device.products_gflop_s.f32 * clock,
        },
        vector_gflop_s: device.vector_gflop_s * clock,
        ..device.clone()
    }
}

/// What the CPU reads in a second, and how many operations it does.
fn meters(engine: &mut Engine) -> (f64, f64) {
    let measured = engine.read_bandwidth().zip(engine.product_peak());
    measured.expect("a CPU can be measured")
}

fn prediction(model: &Model, target: &HostTarget, device: &Device) {
    let variant = variant(model, device, Rules::Saturate);
    let mut engine = engine(model, target, &variant.programs, Profiling::EachLaunch);
    run(&mut engine, SEQS, 8, 4);
    let mut ratios: BTreeMap<(Phase, u64, String), Vec<f64>> = BTreeMap::new();
    let mut measured: BTreeMap<(Phase, u64, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = meters(&mut engine);
        let times = profile(&mut engine);
        let after = meters(&mut engine);
        let device = scaled(device, f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
        for ranged in &variant.programs {
            let at = situation(&device, ranged);
            for block in &ranged.program.blocks {
                let key = (at.phase, *ranged.tokens.start(), block.name.clone());
                let Some(seconds) = times.get(&key) else { continue };
                let predicted = saturate::predict(block, &at).seconds;
                ratios.entry(key.clone()).or_default().push(predicted / seconds);
                measured.entry(key).or_default().push(*seconds);
            }
        }
    }
    println!("  prediction, median of {ROUNDS} rounds: predicted over measured time of a call");
    for ((phase, first, block), ratios) in ratios {
        let seconds = median(measured[&(phase, first, block.clone())].clone());
        println!(
            "    {:7} from {first}: {block:12} {:.2} of {:9.1} us",
            phase.name(),
            median(ratios),
            seconds * 1e6
        );
    }
}

fn choice(model: &Model, target: &HostTarget, device: &Device) {
    let chosen = variant(model, device, Rules::Saturate);
    let numerics = Options::default().numerics;
    let mut predicted: BTreeMap<(Phase, u64, String), f64> = BTreeMap::new();
    let mut rejected = chosen.programs.clone();
    for ranged in &mut rejected {
        let at = situation(device, ranged);
        let program = lowered(model).into_iter().find(|p| p.phase == at.phase).expect("both phases");
        for (block, original) in ranged.program.blocks.iter_mut().zip(&program.blocks) {
            let best = saturate::predict(block, &at).seconds;
            let other =
                saturate::runner_up(original, &at, numerics).unwrap_or_else(|error| panic!("{error}"));
            // A block that keeps its roundings for the sake of other ranges may be the form itself.
            if let Some(other) = other.filter(|other| other.block != *block) {
                let key = (at.phase, *ranged.tokens.start(), block.name.clone());
                predicted.insert(key, best / other.report.chosen.seconds);
                *block = other.block;
            }
        }
    }
    let mut engines =
        [&chosen.programs, &rejected].map(|programs| engine(model, target, programs, Profiling::EachLaunch));
    let mut ratios: BTreeMap<(Phase, u64, String), Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        let first = round % 2;
        let mut times = [Times::new(), Times::new()];
        for index in [first, 1 - first] {
            times[index] = profile(&mut engines[index]);
        }
        if round > 0 {
            for key in predicted.keys() {
                if let (Some(chosen), Some(other)) = (times[0].get(key), times[1].get(key)) {
                    ratios.entry(key.clone()).or_default().push(chosen / other);
                }
            }
        }
    }
    println!(
        "  choice, median of {ROUNDS} interleaved rounds: time of the chosen form over the best rejected one"
    );
    for (key, ratios) in ratios {
        let (phase, first, block) = &key;
        println!(
            "    {:7} from {first}: {block:12} measured {:.3}, predicted {:.3}",
            phase.name(),
            median(ratios),
            predicted[&key]
        );
    }
}
