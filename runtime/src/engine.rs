//! The engine: an artifact and its weights on a device, ready to run steps.

use std::path::PathBuf;

use nemo_ir::artifact::{Artifact, ArtifactError, TargetManifest};
use nemo_ir::plan::{Arg, Limits, Phase, Plan, Program};
use thiserror::Error;

use crate::device::host::pool::Pinning;
use crate::device::host::{Host, HostError, HostOptions, cpu, pool};
use crate::device::{Device, LaunchTime, MemoryUse, Profiling};
use crate::step::{Bounds, Step, StepError, Written};
use crate::weights::{Progress, Weights, WeightsError, WeightsSource};

/// How an engine is set up; the defaults suit a library user who has one model.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Target of the artifact; the best that this machine can run unless given.
    pub target: Option<String>,
    /// Where the weights come from.
    pub weights: WeightsSource,
    /// Threads that compute; all cores unless given.
    pub threads: Option<u32>,
    /// Which of them are bound to cores.
    pub pinning: Pinning,
    /// Sequences at once; all that the artifact allows unless given.
    pub max_seqs: Option<u64>,
    /// Positions of a sequence; all that the artifact allows unless given.
    pub max_context: Option<u64>,
    /// Whether loading shows how far it is.
    pub progress: Progress,
    /// Whether launches are timed.
    pub profiling: Profiling,
}

impl EngineOptions {
    /// Defaults, with these weights.
    pub fn new(weights: WeightsSource) -> Self {
        Self {
            target: None,
            weights,
            threads: None,
            pinning: Pinning::default(),
            max_seqs: None,
            max_context: None,
            progress: Progress::default(),
            profiling: Profiling::default(),
        }
    }
}

/// Why an engine could not be set up.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// No target that this CPU runs.
    #[error("artifact `{}` is for another CPU: {targets}", file.display())]
    OtherCpu {
        /// The artifact.
        file: PathBuf,
        /// Its targets, each with the features that this CPU lacks.
        targets: String,
    },
    /// More than the artifact was compiled for.
    #[error("{what} is {wanted}; artifact `{}` was compiled for 1 to {most}", file.display())]
    Limit {
        /// The option.
        what: &'static str,
        /// What was asked for.
        wanted: u64,
        /// What there can be.
        most: u64,
        /// The artifact.
        file: PathBuf,
    },
    /// The device.
    #[error("cannot load artifact `{}`: {source}", file.display())]
    Host {
        /// The artifact.
        file: PathBuf,
        /// What went wrong.
        source: HostError,
    },
}

/// What a step gives.
#[derive(Debug, Clone, Copy)]
pub struct StepOutput<'a> {
    /// `[L, V]`; `None` where the program keeps no logits.
    pub logits: Option<&'a [f32]>,
    /// `[R]`: the next token of each sequence, or -1 where none of its rows wanted logits.
    pub next: &'a [i32],
}

/// A model on a device.
#[derive(Debug)]
pub struct Engine {
    device: Box<dyn Device>,
    plan: Plan,
    bounds: Bounds,
    /// What checks of steps need, used again and again.
    written: Written,
    /// By program: whether it keeps logits.
    keeps_logits: Vec<bool>,
}

impl Engine {
    /// Chooses a target, checks and places the weights, and loads the kernels.
    ///
    /// # Errors
    /// [`EngineError`]: everything that can be wrong with the files is found here, before a step runs.
    pub fn load(artifact: &Artifact, options: &EngineOptions) -> Result<Self, EngineError> {
        let target = artifact.target(&choose_target(artifact, options.target.as_deref())?.name)?;
        let plan = target.plan;
        let limit = |what, wanted: Option<u64>, most| match wanted {
            Some(wanted) if !(1..=most).contains(&wanted) => {
                Err(EngineError::Limit { what, wanted, most, file: artifact.file().to_owned() })
            }
            _ => Ok(wanted.unwrap_or(most)),
        };
        let prefill = plan.programs.iter().filter(|program| program.phase == Phase::Prefill);
        let seqs = prefill.map(|program| program.max_seqs).max().unwrap_or(1);
        let max_seqs = limit("--max-seqs", options.max_seqs, seqs)?;
        let max_context = limit("--max-context", options.max_context, plan.limits.max_context)?;
        let threads = options.threads.unwrap_or_else(pool::default_threads);
        let weights = Weights::load(&options.weights, &plan.weights, threads, options.progress)?;
        let bounds = Bounds::of(&plan, max_seqs, max_context);
        let host = HostOptions { threads, pinning: options.pinning, profiling: options.profiling, bounds };
        let device = Host::new(&plan, target.object, weights, host)
            .map_err(|source| EngineError::Host { file: artifact.file().to_owned(), source })?;
        let keeps_logits = plan.programs.iter().map(keeps_logits).collect();
        Ok(Self { device: Box::new(device), plan, bounds, written: Written::new(&bounds), keeps_logits })
    }

    /// Runs one step.
    ///
    /// # Errors
    /// [`StepError`] when an input is out of its range; nothing has run then.
    pub fn step(&mut self, step: &Step<'_>) -> Result<StepOutput<'_>, StepError> {
        let step = step.check(&self.bounds, &mut self.written)?;
        self.device.run(&step)?;
        let dims = step.dims();
        let program = self.plan.program_for(step.phase(), dims.tokens);
        let keeps_logits = program.is_some_and(|program| self.keeps_logits[program]);
        let logits = keeps_logits.then(|| self.device.logits(dims.rows as usize));
        Ok(StepOutput { logits, next: self.device.next(dims.seqs as usize) })
    }

    /// What its steps may reach.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What the artifact was compiled for.
    pub fn limits(&self) -> Limits {
        self.plan.limits
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the device is, for people.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// What the device has taken.
    pub fn memory(&self) -> MemoryUse {
        self.device.memory()
    }

    /// Bytes a second that a plain streaming read of a large buffer reaches, measured now.
    pub fn read_bandwidth(&mut self) -> f64 {
        self.device.read_bandwidth()
    }

    /// Floating-point operations a second that dot products between registers reach, measured now, in the
    /// dtype of the device's fastest product of bf16.
    pub fn product_peak(&mut self) -> f64 {
        self.device.product_peak()
    }

    /// Time of each kernel of each block since the last call; empty unless the device was told to profile.
    pub fn take_profile(&mut self) -> Vec<LaunchTime> {
        self.device.take_profile()
    }
}

/// Whether a kernel of the program takes the logits.
fn keeps_logits(program: &Program) -> bool {
    let launches = program.blocks.iter().flat_map(|block| &block.launches);
    launches.flat_map(|launch| &launch.args).any(|arg| *arg == Arg::Logits)
}

/// The target asked for, if this CPU runs it; else the one with the most features that it runs.
///
/// # Errors
/// [`EngineError`], which says what the artifact has and what this CPU lacks.
pub fn choose_target<'a>(
    artifact: &'a Artifact,
    wanted: Option<&str>,
) -> Result<&'a TargetManifest, EngineError> {
    let targets = &artifact.manifest().targets;
    let considered: Vec<&TargetManifest> =
        targets.iter().filter(|target| wanted.is_none_or(|wanted| target.name == wanted)).collect();
    if let (true, Some(wanted)) = (considered.is_empty(), wanted) {
        // The artifact's own error lists the targets there are.
        artifact.target(wanted)?;
    }
    let best = considered
        .iter()
        .filter_map(|target| Some((target, target.needs.cpu_features()?)))
        .filter(|(_, features)| cpu::missing(features).is_empty())
        .max_by_key(|(_, features)| features.len())
        .map(|(target, _)| target);
    best.copied().ok_or_else(|| {
        let describe = |target: &&TargetManifest| {
            let missing = cpu::missing(target.needs.cpu_features().unwrap_or_default()).join(", ");
            format!("target `{}` needs {missing}, which this one lacks", target.name)
        };
        let described: Vec<_> = considered.iter().map(describe).collect();
        let targets = if described.is_empty() { "it has no target".to_owned() } else { described.join("; ") };
        EngineError::OtherCpu { file: artifact.file().to_owned(), targets }
    })
}
