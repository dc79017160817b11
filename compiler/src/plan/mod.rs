//! Graph IR to plan: where every value lies, which kernels run on it, and what each call binds.
//!
//! Before: verified programs. After: a [`Plan`] that the runtime can interpret, and
//! the specs of the kernels that it launches. [`check`] replays the result against the graphs it came from.

mod bind;
pub mod check;
mod launch;
mod place;
mod print;
mod storage;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use nemo_ir::graph;
use nemo_ir::ops::{Op, Recipe, Source};
use nemo_ir::plan::{Call, Geometry, Kernel, Limits, Phase, Plan, Program, Workspace};
use nemo_ir::types::Symbol;
use nemo_kernels::nvptx::NvptxError;
use nemo_kernels::spec::{KernelSpec, Steps};
use nemo_kernels::target::{Sm, Target};
use nemo_models::Model;
use thiserror::Error;

pub use print::print;

use crate::cost::{self, Situation};
use crate::device::Device;
use crate::fuse::situation;

/// Every buffer starts at a multiple of this many bytes: a cache line, and the widest vector.
const ALIGNMENT: u64 = 64;

/// Largest arena that is taken for what was meant: 64 GiB of activations for one step.
const MAX_ARENA: u64 = 64 << 30;

/// Sizes that the plan is laid out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// Sequences in one step.
    pub max_seqs: u64,
    /// Positions that a sequence may reach.
    pub max_context: u64,
    /// Tokens in one prefill step.
    pub chunk: u64,
}

impl PlanOptions {
    /// The steps that a program's kernels are for. A sequence takes part in a step with one token at least.
    pub fn steps(&self, phase: Phase, range: &RangeInclusive<u64>) -> Steps {
        let (min_tokens, max_tokens) = (*range.start(), *range.end());
        Steps { phase, min_tokens, max_tokens, max_seqs: self.max_seqs.min(max_tokens) }
    }
}

/// A program and the steps that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct RangedProgram {
    /// The graph.
    pub program: graph::Program,
    /// The values of T that it serves; in decode T = R.
    pub tokens: RangeInclusive<u64>,
}

impl RangedProgram {
    /// A program that serves all steps of its phase.
    pub fn whole(program: graph::Program, options: PlanOptions) -> Self {
        let most = match program.phase {
            Phase::Decode => options.max_seqs,
            Phase::Prefill => options.chunk,
        };
        Self { program, tokens: 1..=most }
    }

    /// Phase and range as file names have them: `decode-1-8`.
    pub fn label(&self) -> String {
        format!("{}-{}-{}", self.program.phase.name(), self.tokens.start(), self.tokens.end())
    }
}

/// A plan and what its kernels compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What the runtime interprets.
    pub plan: Plan,
    /// Symbol and spec of each kernel, in the order of [`Plan::kernels`].
    pub kernels: Vec<(String, KernelSpec)>,
}

/// Why programs could not be planned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// More memory for one step than any machine gives it.
    #[error(
        "the {phase} program would need {needed} of activations for {tokens} tokens a step, more than the 64 GiB \
         allowed: lower {option}"
    )]
    Arena {
        /// The program.
        phase: &'static str,
        /// The size, in GiB where it can be told.
        needed: String,
        /// Tokens in one step.
        tokens: u64,
        /// The option that sets them.
        option: &'static str,
    },
    /// A value that leaves a block in a form that the next call cannot find.
    #[error("block `{block}` of the {phase} program cannot pass `{name}` on: {why}")]
    Crossing {
        /// The program.
        phase: &'static str,
        /// The block.
        block: String,
        /// Name of the value.
        name: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A weight that the checkpoint does not hold, or not like that.
    #[error("tensor `{name}` {why}")]
    Weight {
        /// Full name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A state that is read after it was overwritten, or that programs see differently.
    #[error("state `{name}` {why}")]
    State {
        /// Name in the block or in the plan.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A kernel that a GPU has no generator for.
    #[error(transparent)]
    Kernel(#[from] NvptxError),
    /// A value where the planner cannot place one.
    #[error("`{op}` in block `{block}` {why}")]
    Op {
        /// The op.
        op: &'static str,
        /// The block.
        block: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Which of the `given` operands may have its buffer take a result of the op: each element of the result depends on no other element
/// of that operand than the one at its place. That is so of a residual sum, alone or at the end of a fused op in which
/// nothing else reads the operand; kernels of such ops promise to read an element before they write it.
fn in_place_operand(op: Op, result: usize, given: usize) -> Option<usize> {
    let Some(recipe) = Recipe::of(op) else { return (op.name == "add" && result == 0).then_some(0) };
    let Source::Step { step, result: 0 } = *recipe.results.get(result)? else { return None };
    let sum = recipe.steps.get(step).filter(|step| step.op.name == "add")?;
    let Some(source @ Source::Operand(operand)) = sum.operand("a") else { return None };
    let reads = recipe.steps.iter().flat_map(|step| step.operands.iter().flatten());
    let alone = reads.filter(|read| **read == source).count() == 1;
    op.places(given)?.iter().position(|place| alone && *place == operand)
}

/// Largest values of the symbols in one program.
#[derive(Debug, Clone, Copy)]
struct Extents {
    tokens: u64,
    seqs: u64,
}

impl Extents {
    /// The largest value of a symbol that counts rows of an activation.
    fn of(self, symbol: Symbol) -> Option<u64> {
        match symbol {
            // Rows that want logits are rows of the step.
            Symbol::T | Symbol::L => Some(self.tokens),
            Symbol::R => Some(self.seqs),
            Symbol::P | Symbol::S | Symbol::N => None,
        }
    }
}

/// The kernels asked for so far; equal specs are one kernel, in whichever block or program they stand.
#[derive(Debug)]
struct Kernels<'a> {
    /// What runs them.
    device: &'a Device,
    /// The GPU that they are for, if it is one.
    gpu: Option<Sm>,
    list: Vec<(String, KernelSpec)>,
    geometries: Vec<Option<Geometry>>,
    by_text: HashMap<String, usize>,
    per_op: HashMap<&'static str, usize>,
}

impl<'a> Kernels<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            device,
            gpu: device.sm(),
            list: Vec::new(),
            geometries: Vec::new(),
            by_text: HashMap::new(),
            per_op: HashMap::new(),
        }
    }

    /// The kernel's index. On a GPU it is given the form that costs least.
    fn intern(&mut self, mut spec: KernelSpec, at: &Situation<'_>) -> Result<usize, PlanError> {
        let mut geometry = None;
        if let Some(sm) = self.gpu {
            let (made, _) = cost::gpu::choose(sm, &spec, at)?;
            spec.form = Some(made.form);
            geometry = Some(made.geometry);
        }
        let text = spec.to_string();
        if let Some(index) = self.by_text.get(&text) {
            return Ok(*index);
        }
        self.geometries.push(geometry);
        let number = self.per_op.entry(spec.op.name).or_default();
        let symbol = format!("{}_{number}", spec.op.name);
        *number += 1;
        self.list.push((symbol, spec));
        self.by_text.insert(text, self.list.len() - 1);
        Ok(self.list.len() - 1)
    }

    /// What the launches of a GPU share; `None` on a CPU.
    fn workspace(&self) -> Option<Workspace> {
        self.gpu?;
        let all = self.geometries.iter().flatten();
        Some(all.fold(Workspace::default(), |most, geometry| Workspace {
            counters: most.counters.max(geometry.counters),
            partials: most.partials.max(geometry.partials),
        }))
    }
}

/// Plans the programs of a model for one target, in this order; on a GPU, `device` decides in which form each kernel is
/// built. The ranges of each phase start at 1 and follow each other.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    model: &Model,
    programs: &[RangedProgram],
    (target, device): (&Target, &Device),
    options: PlanOptions,
) -> Result<Planned, PlanError> {
    let mut kernels = Kernels::of(device);
    let mut bindings = bind::Bindings::new(model);
    let mut planned = Vec::with_capacity(programs.len());
    for program in programs {
        planned.push(plan_program(program, options, &mut kernels, &mut bindings)?);
    }
    let workspace = kernels.workspace();
    let names = kernels.list.iter().zip(kernels.geometries);
    let plan = Plan {
        target: target.to_string(),
        limits: Limits {
            vocab: model.vocab,
            max_context: options.max_context,
            max_seqs: options.max_seqs,
            chunk: options.chunk,
        },
        kernels: names
            .map(|((symbol, spec), geometry)| Kernel {
                symbol: symbol.clone(),
                what: spec.to_string(),
                args: spec.operands.len() + spec.results.len(),
                geometry,
            })
            .collect(),
        weights: bindings.weights,
        states: bindings.states,
        tables: bindings.tables,
        workspace,
        programs: planned,
    };
    Ok(Planned { plan, kernels: kernels.list })
}

fn plan_program(
    ranged: &RangedProgram,
    options: PlanOptions,
    kernels: &mut Kernels<'_>,
    bindings: &mut bind::Bindings<'_>,
) -> Result<Program, PlanError> {
    let RangedProgram { program, tokens } = ranged;
    let at = situation(kernels.device, program.phase, tokens, options);
    let (min_tokens, tokens) = (*tokens.start(), *tokens.end());
    let extents = Extents { tokens, seqs: at.steps.max_seqs };
    let mut storages = Vec::with_capacity(program.blocks.len());
    for block in &program.blocks {
        storages.push(storage::assign(program.phase, block, extents)?);
    }
    let crossings = place::crossings(&storages);
    let mut arena_bytes = ALIGNMENT;
    let mut blocks = Vec::with_capacity(program.blocks.len());
    for (block, storages) in program.blocks.iter().zip(&storages) {
        let offsets = place::place(storages, &crossings);
        let needed = offsets.as_ref().map_or(u64::MAX, |offsets| offsets.end);
        let Some(offsets) = offsets.filter(|offsets| offsets.end <= MAX_ARENA) else {
            return Err(too_large(program.phase, needed, tokens));
        };
        arena_bytes = arena_bytes.max(offsets.end);
        blocks.push(launch::launches(block, storages, &offsets, &at, kernels, bindings)?);
    }
    let mut calls = Vec::with_capacity(program.calls.len());
    for call in &program.calls {
        let block = &program.blocks[call.block];
        let (weights, states) = bindings.bind(block, call)?;
        calls.push(Call { block: call.block, layer: call.layer, weights, states });
    }
    Ok(Program {
        phase: program.phase,
        min_tokens,
        max_tokens: tokens,
        max_seqs: extents.seqs,
        arena_bytes,
        blocks,
        calls,
    })
}

fn too_large(phase: Phase, needed: u64, tokens: u64) -> PlanError {
    let needed =
        if needed == u64::MAX { "2^64 bytes or more".to_owned() } else { format!("{} GiB", needed >> 30) };
    let option = match phase {
        Phase::Decode => "--max-seqs",
        Phase::Prefill => "--chunk",
    };
    PlanError::Arena { phase: phase.name(), needed, tokens, option }
}
