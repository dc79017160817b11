//! The pipeline: lower, plan, check, generate code, package.

use nemo_ir::artifact::{self, ArtifactError, Contents};
use nemo_ir::graph::Program;
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_ir::verify::verify_program;
use nemo_kernels::host::{self, HostError, Listings, Object};
use nemo_kernels::target::HostTarget;
use nemo_models::Model;
use thiserror::Error;

use crate::lower::{self, LowerError, LowerOptions};
use crate::package;
use crate::plan::check::{CheckError, check};
use crate::plan::{self, PlanError, PlanOptions, Planned, RangedProgram};

/// Most sequences in one step.
pub const MAX_SEQS: u64 = 256;

/// Most tokens in one prefill step.
pub const MAX_CHUNK: u64 = 8192;

/// What a compilation is asked for.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// Targets of the artifact; one that is named twice counts once.
    pub targets: Vec<HostTarget>,
    /// Dtype of the values between kernels; `None` for the model's own.
    pub activations: Option<Dtype>,
    /// Sequences in one step, 1 to [`MAX_SEQS`].
    pub max_seqs: u64,
    /// Positions that a sequence may reach; `None` for all that the model has.
    pub max_context: Option<u64>,
    /// Tokens in one prefill step, `max_seqs` to [`MAX_CHUNK`].
    pub chunk: u64,
    /// Texts to keep beside the machine code.
    pub listings: Listings,
}

impl CompileOptions {
    /// The defaults: 8 sequences, chunks of 512 tokens, everything else as the model says.
    pub fn new(targets: Vec<HostTarget>) -> Self {
        Self {
            targets,
            activations: None,
            max_seqs: 8,
            max_context: None,
            chunk: 512,
            listings: Listings::default(),
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
    pub target: HostTarget,
    /// The graphs that were planned, each with its range of tokens.
    pub programs: Vec<RangedProgram>,
    /// Plan and kernel specs.
    pub planned: Planned,
    /// Machine code, and its texts where asked for.
    pub object: Object,
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
    /// A block that no op takes.
    #[error(transparent)]
    Lower(#[from] LowerError),
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
    /// Contents that cannot become an artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Where a compilation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Model to graph.
    Lower,
    /// Graph to plan, for one target.
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

/// Compiles a model.
///
/// # Errors
/// [`CompileError`].
pub fn compile(
    model: &Model,
    options: &CompileOptions,
    progress: Progress<'_>,
) -> Result<Compiled, CompileError> {
    let sizes = sizes(model, options)?;
    let activations = options.activations.unwrap_or_else(|| lower::stored(model.dtype));
    progress(&Stage::Lower);
    let lowering = LowerOptions { activations, max_context: sizes.max_context };
    let mut programs = Vec::with_capacity(Phase::ALL.len());
    for phase in Phase::ALL {
        let program = lower::lower(model, phase, lowering)?;
        verify_program(&program).map_err(|errors| CompileError::Graph {
            model: model.name.clone(),
            phase: phase.name(),
            what: errors.first().map_or_else(String::new, ToString::to_string),
        })?;
        programs.push(program);
    }
    let mut targets: Vec<CompiledTarget> = Vec::new();
    for target in &options.targets {
        if targets.iter().all(|other| other.target != *target) {
            targets.push(compile_target(model, &programs, target, sizes, options.listings, progress)?);
        }
    }
    let contents = package::contents(model, activations, &targets);
    Ok(Compiled { programs, targets, contents })
}

fn compile_target(
    model: &Model,
    programs: &[Program],
    target: &HostTarget,
    sizes: PlanOptions,
    listings: Listings,
    progress: Progress<'_>,
) -> Result<CompiledTarget, CompileError> {
    let name = target.to_string();
    progress(&Stage::Plan { target: name.clone() });
    let programs: Vec<_> =
        programs.iter().map(|program| RangedProgram::whole(program.clone(), sizes)).collect();
    let planned = plan::plan(model, &programs, &name, sizes)?;
    check(&programs, &planned)?;
    progress(&Stage::Codegen { target: name, kernels: planned.kernels.len() });
    let object = host::compile(target, &planned.kernels, listings)?;
    Ok(CompiledTarget { target: target.clone(), programs, planned, object })
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
