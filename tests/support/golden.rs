//! Golden fixtures: tiny checkpoints with reference logits of independent implementations.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use half::bf16;
use nemo_ir::artifact::Artifact;
use nemo_ir::interp::{Logits, Sequence, Step};
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;
use nemo_kernels::target::{HostTarget, Sm, Target};
use nemo_models::Model;
use nemoc::saturate::Options;
use nemoc::{CompileOptions, compile};
use nemort::device::Profiling;
use nemort::device::choice::DeviceChoice;
use nemort::device::gpu::driver::Facts;
use nemort::device::host::pool::Pinning;
use nemort::engine::{Engine, EngineOptions};
use nemort::weights::WeightsSource;
use safetensors::SafeTensors;

use gpu_check::card::{Tally, cards};
use nemo_kernels::nvptx;

/// The fixtures, by folder.
pub const FIXTURES: [&str; 4] = ["hybrid", "llama", "nas", "qwen"];

/// A fixture's folder.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// The model that a fixture's configuration describes.
pub fn model(name: &str) -> Model {
    let file = folder(name).join("config.json");
    let text = std::fs::read_to_string(&file).expect("the fixture has a configuration");
    nemo_models::import_hf(&text, &file.display().to_string(), name).unwrap_or_else(|error| panic!("{error}"))
}

/// What the references gave for one prompt.
#[derive(Debug)]
pub struct Reference {
    /// Token ids.
    pub prompt: Vec<i32>,
    /// `[tokens, vocab]` in f32.
    pub f32: Vec<f32>,
    /// The reference's own run in bf16.
    pub bf16: Vec<f32>,
}

/// Prompts `a` and `b`.
pub fn references(name: &str) -> [Reference; 2] {
    let bytes =
        std::fs::read(folder(name).join("reference.safetensors")).expect("the fixture has references");
    let file = SafeTensors::deserialize(&bytes).expect("references are safetensors");
    let word = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    ["a", "b"].map(|prompt| {
        let bytes = |name: &str| file.tensor(name).expect("the reference is there").data().to_vec();
        Reference {
            prompt: bytes(&format!("prompt_{prompt}"))
                .chunks(4)
                .map(|b| i32::from_le_bytes(word(b)))
                .collect(),
            f32: bytes(&format!("logits_{prompt}_f32"))
                .chunks(4)
                .map(|b| f32::from_le_bytes(word(b)))
                .collect(),
            bf16: bytes(&format!("logits_{prompt}_bf16"))
                .chunks(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
        }
    })
}

/// The greedy continuation of prompt `a` in f32.
pub fn greedy(name: &str) -> Vec<i32> {
    let bytes =
        std::fs::read(folder(name).join("reference.safetensors")).expect("the fixture has references");
    let file = SafeTensors::deserialize(&bytes).expect("references are safetensors");
    let data = file.tensor("greedy_a").expect("the reference is there").data().to_vec();
    data.chunks(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// What a simulated card of a target's compute capability says of itself.
fn facts(sm: Sm) -> Facts {
    let needs = nvptx::needs(sm);
    Facts { name: format!("simulated {}", sm.name()), capability: needs.capability, driver: needs.driver }
}

/// A fixture compiled and loaded, with two sequences.
pub struct Runner {
    engine: Engine,
    vocab: usize,
    pages: i32,
    done: [i32; 2],
}

impl Runner {
    /// Compiles a fixture for a target.
    pub fn new(name: &str, target: &HostTarget, activations: Dtype, threads: u32) -> Self {
        let weights = WeightsSource::Directory(folder(name));
        let options = EngineOptions { threads: Some(threads), ..EngineOptions::new(weights) };
        Self::with(name, target, (activations, Options::default()), &options)
    }

    /// As [`Runner::new`] with two threads, its blocks fused in this way.
    pub fn fused(name: &str, target: &HostTarget, activations: Dtype, fusion: Options) -> Self {
        let weights = WeightsSource::Directory(folder(name));
        let options = EngineOptions { threads: Some(2), ..EngineOptions::new(weights) };
        Self::with(name, target, (activations, fusion), &options)
    }

    /// As [`Runner::new`] in bf16, timing each launch.
    pub fn profiled(name: &str, target: &HostTarget) -> Self {
        let weights = WeightsSource::Directory(folder(name));
        let options = EngineOptions { profiling: Profiling::EachLaunch, ..EngineOptions::new(weights) };
        Self::with(name, target, (Dtype::Bf16, Options::default()), &options)
    }

    /// Any model with the checkpoint in a folder, with two threads.
    pub fn of(model: &Model, folder: &Path, target: &HostTarget, numerics: (Dtype, Options)) -> Self {
        let weights = WeightsSource::Directory(folder.to_owned());
        let options = EngineOptions { threads: Some(2), ..EngineOptions::new(weights) };
        Self::load(model, &target.clone().into(), numerics, &options)
    }

    /// Compiles a fixture for a GPU and runs it on a simulated card.
    pub fn simulated(name: &str, sm: Sm, activations: Dtype) -> (Self, Arc<Mutex<Tally>>) {
        let (cards, tally) = cards(facts(sm));
        let weights = WeightsSource::Directory(folder(name));
        let options = EngineOptions { device: DeviceChoice::Driver(cards), ..EngineOptions::new(weights) };
        let numerics = (activations, Options::default());
        (Self::load(&model(name), &Target::Gpu(sm), numerics, &options), tally)
    }

    fn with(name: &str, target: &HostTarget, numerics: (Dtype, Options), engine: &EngineOptions) -> Self {
        Self::load(&model(name), &target.clone().into(), numerics, engine)
    }

    fn load(
        model: &Model,
        target: &Target,
        (activations, fusion): (Dtype, Options),
        engine: &EngineOptions,
    ) -> Self {
        let context = model.max_context.min(512);
        let options = CompileOptions {
            activations: Some(activations),
            max_seqs: 2,
            max_context: Some(context),
            chunk: 256,
            fusion,
            ..CompileOptions::new(vec![target.clone()])
        };
        let compiled = compile(model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        let bytes = compiled.to_bytes().unwrap_or_else(|error| panic!("{error}"));
        let artifact =
            Artifact::from_bytes(Path::new("fixture.nemo"), bytes).unwrap_or_else(|error| panic!("{error}"));
        // Tests run side by side: bound to cores, their pools would fight over the same ones.
        let engine = EngineOptions { pinning: Pinning::None, ..engine.clone() };
        let engine = Engine::load(&artifact, &engine).unwrap_or_else(|error| panic!("{error}"));
        let pages = context.div_ceil(PAGE_TOKENS) as i32;
        Self { engine, vocab: model.vocab as usize, pages, done: [0; 2] }
    }

    /// The ops that have run since the last call, for a [`Runner::profiled`] one.
    pub fn ops_run(&mut self) -> Vec<String> {
        self.engine.take_profile().into_iter().map(|time| time.op).collect()
    }

    /// Vocabulary size.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Feeds tokens to sequences 0 and 1 in one step: logits of every row, sequence by sequence, and
    /// the greedy next token of each.
    pub fn feed(&mut self, parts: &[(usize, &[i32])], phase: Phase) -> (Vec<Vec<f32>>, Vec<i32>) {
        let sequences: Vec<Sequence> = parts
            .iter()
            .map(|(which, tokens)| {
                let slot = *which as i32;
                // The page tables of the two sequences interleave.
                let pages = (0..self.pages).map(|page| 2 * page + slot).collect();
                let slot_in = if self.done[*which] == 0 { -1 } else { slot };
                let context = self.done[*which];
                let tokens = tokens.to_vec();
                let logits = Logits::All;
                Sequence { tokens, context, slot_in, slot_out: slot, pages, logits, ..Sequence::default() }
            })
            .collect();
        for (which, tokens) in parts {
            self.done[*which] += tokens.len() as i32;
        }
        let step = Step::of(&sequences);
        let step = nemort::step::Step {
            phase: Some(phase),
            tokens: &step.tokens,
            positions: &step.positions,
            seq_start: &step.seq_start,
            slot_in: &step.slot_in,
            slot_out: &step.slot_out,
            context: &step.context,
            pages: &step.pages,
            rows: &step.rows,
            forced: &step.forced,
            temperature: &step.temperature,
            top_k: &step.top_k,
            top_p: &step.top_p,
            min_p: &step.min_p,
            seed: &step.seed,
        };
        let next = self.engine.step(&step).unwrap_or_else(|error| panic!("{error}")).next.to_vec();
        let logits = self.engine.logits().unwrap_or_else(|error| panic!("{error}"));
        let mut logits = logits.expect("every row wants logits");
        let split = parts
            .iter()
            .map(|(_, tokens)| {
                let (own, rest) = logits.split_at(tokens.len() * self.vocab);
                logits = rest;
                own.to_vec()
            })
            .collect();
        (split, next)
    }

    /// The logits of a whole prompt as sequence 0: in one prefill step, or one decode step a token.
    pub fn whole(&mut self, prompt: &[i32], phase: Phase) -> Vec<f32> {
        let piece = if phase == Phase::Decode { 1 } else { prompt.len() };
        prompt.chunks(piece).flat_map(|tokens| self.feed(&[(0, tokens)], phase).0.remove(0)).collect()
    }

    /// Both prompts in uneven chunks, interleaved in mixed steps.
    pub fn interleaved(&mut self, prompts: [&[i32]; 2]) -> [Vec<f32>; 2] {
        let sizes = [[13, 1, 70, 1, 5, 40, 200], [1, 30, 1, 2, 1, 64, 200]];
        let mut rest = prompts;
        let mut logits = [Vec::new(), Vec::new()];
        for round in 0.. {
            let mut parts: Vec<(usize, &[i32])> = Vec::new();
            for which in 0..2 {
                let take = sizes[which][round % 7].min(rest[which].len());
                let (now, later) = rest[which].split_at(take);
                rest[which] = later;
                if take > 0 {
                    parts.push((which, now));
                }
            }
            if parts.is_empty() {
                break;
            }
            let (step, _) = self.feed(&parts, Phase::Prefill);
            for ((which, _), part) in parts.iter().zip(step) {
                logits[*which].extend(part);
            }
        }
        logits
    }
}
