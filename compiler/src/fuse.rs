//! Fusion of whole programs: which ranges of steps there are, and the form of each block in each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use nemo_ir::graph::{Block, BuildError, Node, Program};
use nemo_ir::ops::{Attr, Recipe, Source};
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_ir::verify::verify_program;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cost::Situation;
use crate::device::{Device, Kind};
use crate::plan::{PlanOptions, RangedProgram};
use crate::saturate::law::Class;
use crate::saturate::{self, BlockReport, Fused, Options, Totals};

/// Where ranges of decode steps end: one sequence, a few, as many as a tile of rows takes, all.
const DECODE_ENDS: &[u64] = &[1, 8, 64, u64::MAX];
/// The same on a GPU, whose products stream weights past up to 16 rows and tile them above.
const GPU_DECODE_ENDS: &[u64] = &[1, 8, 16, 64, u64::MAX];

/// The explanation of one target's programs: entry `explain/<target>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the model.
    pub model: String,
    /// Name of the target.
    pub target: String,
    /// Name of the device whose facts decided.
    pub device: String,
    /// What that device takes for a launch alone, in microseconds.
    pub launch_us: f64,
    /// How laws were applied.
    pub rules: saturate::Rules,
    /// The least exact laws that were.
    pub numerics: Class,
    /// Programs in the order of the plan.
    pub programs: Vec<ProgramReport>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Phase.
    pub phase: Phase,
    /// Smallest T that it serves.
    pub first_tokens: u64,
    /// Largest T that it serves.
    pub last_tokens: u64,
    /// The T for which the costs are.
    pub tokens: u64,
    /// Blocks in order of first use, each with how often it is called.
    pub blocks: Vec<(u64, BlockReport)>,
}

/// Totals of all calls of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProgramTotals {
    /// As it was lowered.
    pub off: Totals,
    /// By greedy rewriting.
    pub greedy: Totals,
    /// As it was chosen.
    pub chosen: Totals,
}

impl ProgramReport {
    /// `decode-1-8`, as file names have it.
    pub fn label(&self) -> String {
        format!("{}-{}-{}", self.phase.name(), self.first_tokens, self.last_tokens)
    }

    /// The sums over all calls.
    pub fn totals(&self) -> ProgramTotals {
        let sum = |of: fn(&BlockReport) -> Totals| {
            self.blocks.iter().fold(Totals::default(), |sum, (calls, block)| {
                let one = of(block);
                Totals {
                    kernels: sum.kernels.saturating_add(one.kernels.saturating_mul(*calls as usize)),
                    bytes: sum.bytes.saturating_add(one.bytes.saturating_mul(*calls)),
                    flops: sum.flops.saturating_add(one.flops.saturating_mul(*calls)),
                    seconds: sum.seconds + one.seconds * *calls as f64,
                }
            })
        };
        ProgramTotals { off: sum(|b| b.off), greedy: sum(|b| b.greedy), chosen: sum(|b| b.chosen) }
    }
}

/// Why a program could not be fused: a mistake in the compiler.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FuseError {
    /// A form that the op table does not admit.
    #[error("block `{block}`: {source}")]
    Build {
        /// The block.
        block: String,
        /// What the op table says.
        source: BuildError,
    },
    /// A form that breaks a rule of the graph IR.
    #[error("the fused {program} program: {what}")]
    Graph {
        /// Its label.
        program: String,
        /// The first broken rule.
        what: String,
    },
}

/// Fuses the programs of a model for one device: a program per phase and range, and what was bought.
///
/// On a CPU, neighbouring ranges that come to the same blocks are one. An intermediate that is rounded in one range is rounded
/// in all: where ranges would differ in that, the block keeps every rounding, so that the number of sequences in a
/// step decides no bit.
///
/// # Errors
/// [`FuseError`].
pub fn fuse(
    programs: &[Program],
    device: &Device,
    sizes: PlanOptions,
    options: Options,
) -> Result<Vec<(RangedProgram, ProgramReport)>, FuseError> {
    let situations: Vec<(&Program, RangeInclusive<u64>, Situation<'_>)> = programs
        .iter()
        .flat_map(|program| {
            ranges(program.phase, device.kind, sizes).into_iter().map(move |range| {
                let at = situation(device, program.phase, &range, sizes);
                (program, range, at)
            })
        })
        .collect();
    let mut chosen: Vec<Vec<Fused>> = Vec::with_capacity(situations.len());
    for (program, _, at) in &situations {
        chosen.push(program.blocks.iter().map(|block| one(block, at, options)).collect::<Result<_, _>>()?);
    }
    let exact = Options { numerics: Class::Exact, ..options };
    let torn = torn_blocks(&chosen);
    for ((program, _, at), forms) in situations.iter().zip(&mut chosen) {
        for (block, form) in program.blocks.iter().zip(forms) {
            if torn.contains(&block.name) {
                *form = one(block, at, exact)?;
            }
        }
    }
    let mut fused: Vec<(RangedProgram, ProgramReport)> = Vec::new();
    for ((program, range, at), forms) in situations.into_iter().zip(chosen) {
        let (blocks, reports): (Vec<_>, Vec<_>) =
            forms.into_iter().map(|form| (form.block, form.report)).unzip();
        let calls = |block: usize| program.calls.iter().filter(|call| call.block == block).count() as u64;
        let report = ProgramReport {
            phase: program.phase,
            first_tokens: *range.start(),
            last_tokens: *range.end(),
            tokens: at.tokens,
            blocks: reports.into_iter().enumerate().map(|(n, report)| (calls(n), report)).collect(),
        };
        let program = Program { phase: program.phase, blocks, calls: program.calls.clone() };
        // On a GPU equal graphs are other kernels in another range.
        if let Some((last, reported)) = fused.last_mut()
            && device.kind == Kind::Cpu
            && last.program == program
        {
            last.tokens = *last.tokens.start()..=*range.end();
            reported.last_tokens = *range.end();
            continue;
        }
        let ranged = RangedProgram { program, tokens: range };
        verify_program(&ranged.program).map_err(|errors| FuseError::Graph {
            program: ranged.label(),
            what: errors.first().map_or_else(String::new, ToString::to_string),
        })?;
        fused.push((ranged, report));
    }
    Ok(fused)
}

/// The step that a program is optimised for: the longest of its range.
pub(crate) fn situation<'a>(
    device: &'a Device,
    phase: Phase,
    range: &RangeInclusive<u64>,
    sizes: PlanOptions,
) -> Situation<'a> {
    let at = match phase {
        Phase::Decode => Situation::decode(device, *range.end()),
        Phase::Prefill => Situation::prefill(device, *range.end()),
    };
    let context = at.context.min(sizes.max_context);
    Situation { context, steps: sizes.steps(phase, range), ..at }
}

fn one(block: &Block, at: &Situation<'_>, options: Options) -> Result<Fused, FuseError> {
    saturate::fuse(block, at, options)
        .map_err(|source| FuseError::Build { block: block.name.clone(), source })
}

/// The ranges of T that a phase is planned for.
fn ranges(phase: Phase, kind: Kind, sizes: PlanOptions) -> Vec<RangeInclusive<u64>> {
    match phase {
        Phase::Prefill => vec![1..=sizes.chunk],
        Phase::Decode => {
            let mut first = 1;
            let mut ranges = Vec::new();
            let ends = match kind {
                Kind::Cpu => DECODE_ENDS,
                Kind::Gpu => GPU_DECODE_ENDS,
            };
            for end in ends.iter().map(|end| *end.min(&sizes.max_seqs)) {
                if end >= first {
                    ranges.push(first..=end);
                    first = end + 1;
                }
            }
            ranges
        }
    }
}

/// Blocks, by name, whose forms round differently in different situations.
fn torn_blocks(chosen: &[Vec<Fused>]) -> BTreeSet<String> {
    let mut first: BTreeMap<&str, BTreeMap<String, Dtype>> = BTreeMap::new();
    let mut torn = BTreeSet::new();
    for form in chosen.iter().flatten() {
        let own = roundings(&form.block);
        match first.get(form.block.name.as_str()) {
            Some(other) if *other != own => {
                torn.insert(form.block.name.clone());
            }
            Some(_) => {}
            None => {
                first.insert(&form.block.name, own);
            }
        }
    }
    torn
}

/// For each weight that something is multiplied by, what the product is rounded to: laws drop no other rounding.
fn roundings(block: &Block) -> BTreeMap<String, Dtype> {
    let mut roundings = BTreeMap::new();
    for node in block.order() {
        let Node::Op { op, attrs, .. } = &block.graph[node] else { continue };
        let given = block.operands(node);
        let places = op.places(given.len()).unwrap_or_default();
        let mut note = |weight: Option<usize>, dtype: Option<&Attr>| {
            let value = places.iter().position(|place| Some(*place) == weight).map(|n| given[n]);
            if let (Some(value), Some(Attr::Dtype(dtype))) = (value, dtype)
                && let Node::Weight { name, .. } = &block.graph[value.node]
            {
                roundings.insert(name.clone(), *dtype);
            }
        };
        match Recipe::of(op) {
            None if op.name == "linear" => note(Some(1), attrs.last()),
            None => {}
            Some(recipe) => {
                for step in recipe.steps.iter().filter(|step| step.op.name == "linear") {
                    let weight = match step.operand("weight") {
                        Some(Source::Operand(place)) => Some(place),
                        Some(Source::Step { .. }) | None => None,
                    };
                    note(weight, step.attrs(attrs).last());
                }
            }
        }
    }
    roundings
}
