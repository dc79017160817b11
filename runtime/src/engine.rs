//! The engine: an artifact and its weights on a device, ready to run steps.

use std::path::PathBuf;

use nemo_ir::artifact::{Artifact, ArtifactError, Needs};
use nemo_ir::plan::{Arg, Limits, Phase, Plan, Program};
use thiserror::Error;

use crate::device::choice::{self, Choice, ChoiceError, DeviceChoice, Machine, NoGpus, Wanted};
use crate::device::gpu::driver::{DriverError, Facts};
use crate::device::gpu::{Gpu, GpuError, GpuOptions, Kernels};
use crate::device::host::pool::Pinning;
use crate::device::host::{Host, HostError, HostOptions, cpu, pool};
use crate::device::{Device, DeviceError, LaunchTime, MemoryUse, Profiling, cuda};
use crate::step::{Bounds, Step, StepError, Written};
use crate::weights::stream::Supply;
use crate::weights::{Progress, Weights, WeightsError, WeightsSource};

/// How an engine is set up; the defaults suit a library user who has one model.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Target of the artifact; the best that this machine can run unless given.
    pub target: Option<String>,
    /// Where it runs.
    pub device: DeviceChoice,
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
            device: DeviceChoice::default(),
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
    /// No target that runs here.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
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
    /// The CPU.
    #[error("cannot load artifact `{}`: {source}", file.display())]
    Host {
        /// The artifact.
        file: PathBuf,
        /// What went wrong.
        source: HostError,
    },
    /// A GPU's driver.
    #[error("cannot use the GPU: {0}")]
    Driver(#[from] DriverError),
    /// The GPU.
    #[error("cannot load artifact `{}`: {source}", file.display())]
    Gpu {
        /// The artifact.
        file: PathBuf,
        /// What went wrong.
        source: GpuError,
    },
}

/// What a step gives.
#[derive(Debug, Clone, Copy)]
pub struct StepOutput<'a> {
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
    /// Rows of logits that the last step kept, if it kept any.
    rows: Option<usize>,
    notes: Vec<String>,
}

impl Engine {
    /// Chooses a target, checks and places the weights, and loads the kernels.
    ///
    /// # Errors
    /// [`EngineError`]: everything that can be wrong with the files is found here, before a step runs.
    pub fn load(artifact: &Artifact, options: &EngineOptions) -> Result<Self, EngineError> {
        let given = match &options.device {
            DeviceChoice::Driver(factory) => Some(factory.make()?),
            _ => None,
        };
        let gpus = match &given {
            Some(driver) => Ok(vec![driver.facts().clone()]),
            None => gpus(artifact, &options.device),
        };
        let choice = choose_among(artifact, options.target.as_deref(), &options.device, &gpus)?;
        let target = artifact.target(&choice.target.name)?;
        let plan = &target.plan;
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
        let bounds = Bounds::of(plan, max_seqs, max_context);
        let file = || artifact.file().to_owned();
        let mut notes: Vec<String> = choice.note.into_iter().collect();
        let device: Box<dyn Device> = match (&choice.target.needs, choice.gpu) {
            (Needs::Cuda(needs), Some(number)) => {
                let weights = Supply::open(&options.weights, &plan.weights, options.progress)?;
                let driver = match given {
                    Some(driver) => driver,
                    None => Box::new(cuda::Cuda::open(number)?),
                };
                let kernels = Kernels { needs, ptx: target.object, cubin: target.cubin };
                let gpu = GpuOptions { driver, profiling: options.profiling, bounds };
                let (gpu, more) = Gpu::new(plan, kernels, &weights, gpu)
                    .map_err(|source| EngineError::Gpu { file: file(), source })?;
                notes.extend(more);
                Box::new(gpu)
            }
            _ => {
                let weights = Weights::load(&options.weights, &plan.weights, threads, options.progress)?;
                let (pinning, profiling) = (options.pinning, options.profiling);
                let host = HostOptions { threads, pinning, profiling, bounds };
                let host = Host::new(plan, target.object, weights, host)
                    .map_err(|source| EngineError::Host { file: file(), source })?;
                Box::new(host)
            }
        };
        let keeps_logits = plan.programs.iter().map(keeps_logits).collect();
        let written = Written::new(&bounds);
        Ok(Self { device, plan: target.plan, bounds, written, keeps_logits, rows: None, notes })
    }

    /// Runs one step.
    ///
    /// # Errors
    /// [`StepError`] when an input is out of its range, and nothing has run; or when a GPU's driver fails, after which the
    /// engine is of no use any more.
    pub fn step(&mut self, step: &Step<'_>) -> Result<StepOutput<'_>, StepError> {
        let step = step.check(&self.bounds, &mut self.written)?;
        self.rows = None;
        self.device.run(&step)?;
        let dims = step.dims();
        let program = self.plan.program_for(step.phase(), dims.tokens);
        let keeps_logits = program.is_some_and(|program| self.keeps_logits[program]);
        self.rows = keeps_logits.then_some(dims.rows as usize);
        Ok(StepOutput { next: self.device.next(dims.seqs as usize) })
    }

    /// The logits of the last step, `[L, V]`; `None` where its program keeps none, and before the first step.
    ///
    /// A device with a memory of its own brings them when they are asked for.
    ///
    /// # Errors
    /// [`DeviceError`] when they cannot be brought.
    pub fn logits(&mut self) -> Result<Option<&[f32]>, DeviceError> {
        match self.rows {
            Some(rows) => self.device.logits(rows).map(Some),
            None => Ok(None),
        }
    }

    /// What the users of a command may want to know of the load, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
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

    /// Bytes a second that a plain stream over a large buffer moves, measured now: reads on a CPU, a copy's reads and
    /// writes on a GPU. `None` where that cannot be measured.
    pub fn read_bandwidth(&mut self) -> Option<f64> {
        self.device.read_bandwidth()
    }

    /// Floating-point operations a second that dot products between registers reach, measured now, in the
    /// dtype of the device's fastest product of bf16. `None` where that cannot be measured.
    pub fn product_peak(&mut self) -> Option<f64> {
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

/// This machine's GPUs, where it matters: an artifact for CPUs alone opens no driver.
fn gpus(artifact: &Artifact, device: &DeviceChoice) -> Result<Vec<Facts>, NoGpus> {
    let for_gpus = artifact.manifest().targets.iter().any(|target| matches!(target.needs, Needs::Cuda(_)));
    match device {
        DeviceChoice::Best | DeviceChoice::Cuda(_) if for_gpus => cuda::gpus(),
        _ => Ok(Vec::new()),
    }
}

/// The target asked for, if this machine runs it where it was asked to; else the best that it runs.
///
/// # Errors
/// [`EngineError`], which says what the artifact has and what this machine lacks.
pub fn choose_target<'a>(
    artifact: &'a Artifact,
    wanted: Option<&str>,
    device: &DeviceChoice,
) -> Result<Choice<'a>, EngineError> {
    let gpus = match device {
        DeviceChoice::Driver(factory) => Ok(vec![factory.make()?.facts().clone()]),
        device => gpus(artifact, device),
    };
    choose_among(artifact, wanted, device, &gpus)
}

fn choose_among<'a>(
    artifact: &'a Artifact,
    wanted: Option<&str>,
    device: &DeviceChoice,
    gpus: &Result<Vec<Facts>, NoGpus>,
) -> Result<Choice<'a>, EngineError> {
    let targets = &artifact.manifest().targets;
    if let Some(wanted) = wanted.filter(|wanted| targets.iter().all(|target| target.name != *wanted)) {
        return Err(artifact.missing_target(wanted).into());
    }
    let device = match device {
        DeviceChoice::Best => Wanted::Best,
        DeviceChoice::Host => Wanted::Host,
        DeviceChoice::Cuda(number) => Wanted::Gpu(*number),
        DeviceChoice::Driver(_) => Wanted::Gpu(None),
    };
    Ok(choice::choose(artifact.file(), targets, wanted, device, &Machine { lacks: cpu::missing, gpus })?)
}
