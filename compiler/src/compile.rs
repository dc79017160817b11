//! The pipeline: lower, fuse, plan, check, generate code, package.

use std::path::PathBuf;

use nemo_ir::artifact::{self, ArtifactError, Contents};
use nemo_ir::graph::Program;
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_ir::verify::verify_program;
use nemo_kernels::host::{self, HostError, Listings, Object};
use nemo_kernels::nvptx::{self, Form, Module, NvptxError};
use nemo_kernels::target::{Target, TargetError};
use nemo_models::Model;
use thiserror::Error;

use crate::assemble::{AssembleError, Assembled, assemble};
use crate::device::Device;
use crate::fuse::{self, Explanation, FuseError, ProgramReport};
use crate::lower::{self, LowerError, LowerOptions};
use crate::package;
use crate::plan::check::{CheckError, check};
use crate::plan::{self, PlanError, PlanOptions, Planned, RangedProgram};
use crate::saturate;

/// Most sequences in one step.
pub const MAX_SEQS: u64 = 256;

/// Most tokens in one prefill step.
pub const MAX_CHUNK: u64 = 8192;

/// What a compilation is asked for.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// Targets of the artifact; one that is named twice counts once.
    pub targets: Vec<Target>,
    /// Dtype of the values between kernels; `None` for the model's own.
    pub activations: Option<Dtype>,
    /// Sequences in one step, 1 to [`MAX_SEQS`].
    pub max_seqs: u64,
    /// Positions that a sequence may reach; `None` for all that the model has.
    pub max_context: Option<u64>,
    /// Tokens in one prefill step, `max_seqs` to [`MAX_CHUNK`].
    pub chunk: u64,
    /// How blocks are fused.
    pub fusion: saturate::Options,
    /// The device whose facts decide, for the targets that it runs; the built-in one of each target unless given.
    pub device: Option<Device>,
    /// Texts to keep beside the machine code.
    pub listings: Listings,
    /// The assembler that turns the PTX of GPU targets into machine code, where that is wanted.
    pub assembler: Option<PathBuf>,
}

impl CompileOptions {
    /// The defaults: 8 sequences, chunks of 512 tokens, everything else as the model says.
    pub fn new<T: Into<Target>>(targets: Vec<T>) -> Self {
        Self {
            targets: targets.into_iter().map(Into::into).collect(),
            activations: None,
            max_seqs: 8,
            max_context: None,
            chunk: 512,
            fusion: saturate::Options::default(),
            device: None,
            listings: Listings::default(),
            assembler: None,
        }
    }
}

/// A compiled model with what every stage gave.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The graphs as the model was lowered, decode first.
    pub programs: Vec<Program>,
    /// One entry per distinct target, in the order asked for.
    pub targets: Vec<CompiledTarget>,
    /// What goes into the artifact.
    pub contents: Contents,
}

impl Compiled {
    /// The artifact; equal inputs give equal bytes.
    ///
    /// # Errors
    /// [`CompileError::Artifact`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CompileError> {
        Ok(artifact::to_bytes(&self.contents)?)
    }
}

/// What one target got.
#[derive(Debug, Clone)]
pub struct CompiledTarget {
    /// The target.
    pub target: Target,
    /// The graphs that were planned, each with its range of tokens.
    pub programs: Vec<RangedProgram>,
    /// Plan and kernel specs.
    pub planned: Planned,
    /// What fusion bought.
    pub explanation: Explanation,
    /// The kernels, once they are generated.
    pub code: Option<Code>,
}

/// The kernels of a target, and their texts where asked for.
#[derive(Debug, Clone)]
pub enum Code {
    /// A CPU's.
    Host(Object),
    /// A GPU's, and their machine code where it was asked for.
    Gpu(Module, Option<Assembled>),
}

/// Why a model was not compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// An option outside its range.
    #[error("{option} is {value}; it must be {wanted}")]
    Option {
        /// The option as the command spells it.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What would be legal.
        wanted: String,
    },
    /// Nothing to compile for.
    #[error("no target was named; `host` is this machine")]
    NoTarget,
    /// A target that cannot be had.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A device for none of the targets.
    #[error("device `{device}` runs target {runs}, and the targets are {targets}")]
    Device {
        /// Its name.
        device: String,
        /// What it runs.
        runs: String,
        /// What was asked for.
        targets: String,
    },
    /// A block that no op takes.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Blocks that cannot be fused: a mistake in the compiler.
    #[error("fusion failed, which is a mistake in nemoc: {0}")]
    Fuse(#[from] FuseError),
    /// A graph that breaks the rules of the IR: a mistake in the compiler.
    #[error("the {phase} graph of model `{model}` is wrong, which is a mistake in nemoc: {what}")]
    Graph {
        /// Name of the model.
        model: String,
        /// The program.
        phase: &'static str,
        /// The first broken rule.
        what: String,
    },
    /// Values that cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan that does not do what its graph says: a mistake in the compiler.
    #[error("the plan is wrong, which is a mistake in nemoc: {0}")]
    Check(#[from] CheckError),
    /// No code for a kernel.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No code for a kernel of a GPU.
    #[error(transparent)]
    Nvptx(#[from] NvptxError),
    /// PTX that could not be assembled.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Contents that cannot become an artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Where a compilation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Model to graph.
    Lower,
    /// Graph to fused graphs and their plan, for one target.
    Plan {
        /// Name of the target.
        target: String,
    },
    /// Kernels to machine code, for one target.
    Codegen {
        /// Name of the target.
        target: String,
        /// Number of distinct kernels.
        kernels: usize,
    },
}

/// Called as each stage begins.
pub type Progress<'a> = &'a mut dyn FnMut(&Stage);

/// The stages before code: a model's graphs, and for each target their fused forms and their plan.
#[derive(Debug, Clone)]
pub struct PlannedModel {
    /// The graphs as the model was lowered, decode first.
    pub programs: Vec<Program>,
    /// One entry per distinct target, in the order asked for; none has machine code.
    pub targets: Vec<CompiledTarget>,
    /// Dtype of the values between kernels.
    pub activations: Dtype,
}

/// Lowers, fuses and plans a model, and generates no code.
///
/// # Errors
/// [`CompileError`].
pub fn plan_for(
    model: &Model,
    options: &CompileOptions,
    progress: Progress<'_>,
) -> Result<PlannedModel, CompileError> {
    let sizes = sizes(model, options)?;
    let activations = options.activations.unwrap_or_else(|| lower::stored(model.dtype));
    progress(&Stage::Lower);
    let lowering = LowerOptions { activations, max_context: sizes.max_context };
    let programs = lower_phases(model, lowering)?;
    check_device(options)?;
    let mut targets: Vec<CompiledTarget> = Vec::new();
    for target in &options.targets {
        if targets.iter().all(|other| other.target != *target) {
            progress(&Stage::Plan { target: target.to_string() });
            targets.push(plan_target(model, &programs, target, sizes, options)?);
        }
    }
    Ok(PlannedModel { programs, targets, activations })
}

/// Compiles a model.
///
/// # Errors
/// [`CompileError`].
pub fn compile(
    model: &Model,
    options: &CompileOptions,
    progress: Progress<'_>,
) -> Result<Compiled, CompileError> {
    let PlannedModel { programs, mut targets, activations } = plan_for(model, options, progress)?;
    for planned in &mut targets {
        let kernels = &planned.planned.kernels;
        progress(&Stage::Codegen { target: planned.target.to_string(), kernels: kernels.len() });
        planned.code = Some(match &planned.target {
            Target::Host(host) => Code::Host(host::compile(host, kernels, options.listings)?),
            Target::Gpu(sm) => {
                let module = nvptx::compile(*sm, kernels, options.listings.llvm)?;
                let assembler = options.assembler.as_ref();
                let assembled = assembler.map(|ptxas| assemble(ptxas, *sm, &module.ptx)).transpose()?;
                Code::Gpu(module, assembled)
            }
        });
    }
    let contents = package::contents(model, activations, &targets)?;
    Ok(Compiled { programs, targets, contents })
}

/// The verified graphs of a model, decode first.
///
/// # Errors
/// [`CompileError::Lower`] and [`CompileError::Graph`].
pub fn lower_phases(model: &Model, options: LowerOptions) -> Result<Vec<Program>, CompileError> {
    let mut programs = Vec::with_capacity(Phase::ALL.len());
    for phase in Phase::ALL {
        let program = lower::lower(model, phase, options)?;
        verify_program(&program).map_err(|errors| CompileError::Graph {
            model: model.name.clone(),
            phase: phase.name(),
            what: errors.first().map_or_else(String::new, ToString::to_string),
        })?;
        programs.push(program);
    }
    Ok(programs)
}

/// The facts that decide for a target.
fn device(target: &Target, options: &CompileOptions) -> Result<Device, CompileError> {
    let name = target.to_string();
    if let Some(device) = options.device.as_ref().filter(|device| runs(device, &name)) {
        return Ok(device.clone());
    }
    Device::for_target(&name).ok_or(CompileError::Target(TargetError::Unknown { name }))
}

/// Whether a device runs a target: the level of a CPU target is its name without features.
fn runs(device: &Device, target: &str) -> bool {
    target.split('+').next() == Some(device.target.as_str())
}

/// A device that was named decides for some target.
fn check_device(options: &CompileOptions) -> Result<(), CompileError> {
    let Some(device) = &options.device else { return Ok(()) };
    let names: Vec<String> = options.targets.iter().map(Target::to_string).collect();
    if names.iter().any(|name| runs(device, name)) {
        return Ok(());
    }
    let (device, runs) = (device.name.clone(), device.target.clone());
    Err(CompileError::Device { device, runs, targets: names.join(", ") })
}

fn plan_target(
    model: &Model,
    programs: &[Program],
    target: &Target,
    sizes: PlanOptions,
    options: &CompileOptions,
) -> Result<CompiledTarget, CompileError> {
    let name = target.to_string();
    let device = device(target, options)?;
    let (programs, mut reports): (Vec<_>, Vec<_>) =
        fuse::fuse(programs, &device, sizes, options.fusion)?.into_iter().unzip();
    let planned = plan::plan(model, &programs, (target, &device), sizes)?;
    check(&programs, &planned)?;
    tell_forms(&mut reports, &planned);
    let explanation = Explanation {
        model: model.name.clone(),
        target: name,
        device: device.name,
        launch_us: device.launch_us,
        rules: options.fusion.rules,
        numerics: options.fusion.numerics,
        programs: reports,
    };
    Ok(CompiledTarget { target: target.clone(), programs, planned, explanation, code: None })
}

/// Puts down the forms in which kernels are built: where a tensor lies worse than fusion took it to, it may be another one.
fn tell_forms(reports: &mut [ProgramReport], planned: &Planned) {
    for (report, program) in reports.iter_mut().zip(&planned.plan.programs) {
        for ((_, report), block) in report.blocks.iter_mut().zip(&program.blocks) {
            let mut left: Vec<_> = report.kernels.iter_mut().collect();
            for launch in &block.launches {
                let form = planned.kernels[launch.kernel].1.form.filter(|form| *form != Form::Sole);
                if let Some(place) = left.iter().position(|kernel| kernel.op == launch.op) {
                    left.remove(place).form = form;
                }
            }
        }
    }
}

fn sizes(model: &Model, options: &CompileOptions) -> Result<PlanOptions, CompileError> {
    if options.targets.is_empty() {
        return Err(CompileError::NoTarget);
    }
    let max_context = options.max_context.unwrap_or(model.max_context);
    for (option, value, most, what) in [
        ("--max-seqs", options.max_seqs, MAX_SEQS, String::new()),
        ("--chunk", options.chunk, MAX_CHUNK, String::new()),
        ("--max-context", max_context, model.max_context, format!(", the context of `{}`", model.name)),
    ] {
        if !(1..=most).contains(&value) {
            let wanted = format!("1 to {most}{what}");
            return Err(CompileError::Option { option, value, wanted });
        }
    }
    // A step that decodes every sequence takes a token of each.
    if options.chunk < options.max_seqs {
        let wanted = format!("at least --max-seqs, which is {}", options.max_seqs);
        return Err(CompileError::Option { option: "--chunk", value: options.chunk, wanted });
    }
    Ok(PlanOptions { max_seqs: options.max_seqs, max_context, chunk: options.chunk })
}
