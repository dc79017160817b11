//! Fusion: the forms that the laws give a block, and the cheapest of them.
//!
//! Before: a verified block, every op a kernel of its own. After: an equal block of fewer, larger kernels, chosen for
//! one device and one range of steps. Nothing else in the compiler fuses.

pub mod analysis;
pub mod egraph;
mod explain;
pub mod extract;
mod greedy;
pub mod law;
pub mod laws;
pub mod term;

use nemo_ir::graph::{Block, BuildError};
use nemo_ir::ops::OperandKind;
use nemo_ir::types::Type;
use serde::{Deserialize, Serialize};

use self::analysis::{Data, Firing};
use self::extract::Forms;
use self::law::Class;
use self::term::{Term, Terms, written};
use crate::cost::{self, Cost, Situation};

pub use explain::{BlockReport, KernelReport, Saturation, Totals};

/// How laws are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// Not at all: every op is a kernel.
    Off,
    /// The first match that lowers the cost, until none does.
    Greedy,
    /// All of them, in an e-graph; the cheapest form of all is taken.
    Saturate,
}

impl Rules {
    /// Every way, the plainest first.
    pub const ALL: [Self; 3] = [Self::Off, Self::Greedy, Self::Saturate];

    /// `off`, `greedy` or `saturate`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Greedy => "greedy",
            Self::Saturate => "saturate",
        }
    }
}

/// What may happen to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How laws are applied.
    pub rules: Rules,
    /// The least exact laws that are.
    pub numerics: Class,
}

impl Default for Options {
    fn default() -> Self {
        Self { rules: Rules::Saturate, numerics: Class::Reassociating }
    }
}

/// A block in its chosen form.
#[derive(Debug, Clone)]
pub struct Fused {
    /// The block.
    pub block: Block,
    /// Its kernels, and what they replaced.
    pub report: BlockReport,
}

/// Chooses the form of a block for a situation.
///
/// # Errors
/// [`BuildError`] when a form does not fit the op table: a wrong law.
pub fn fuse(block: &Block, at: &Situation<'_>, options: Options) -> Result<Fused, BuildError> {
    let off = Terms::of(block);
    let (greedy, steps) = greedy::rewrite(&off, at.phase, options.numerics, at);
    let mut report = BlockReport::new(&block.name);
    report.off = Totals::of(&off, at);
    report.greedy = Totals::of(&greedy, at);
    let terms = match options.rules {
        Rules::Off => {
            report.kernels = explain::kernels(&off, at, &[]);
            off
        }
        Rules::Greedy => {
            report.kernels = explain::kernels(&greedy, at, &steps);
            greedy
        }
        Rules::Saturate => saturate(&off, (greedy, &steps), at, options.numerics, &mut report),
    };
    report.chosen = Totals::of(&terms, at);
    let block = if options.rules == Rules::Off { block.clone() } else { terms.to_block()? };
    Ok(Fused { block, report })
}

/// What a block costs as it stands.
pub fn predict(block: &Block, at: &Situation<'_>) -> Totals {
    Totals::of(&Terms::of(block), at)
}

/// The cheapest form with other kernels than the chosen one, to measure the choice by; `None` where there is one form
/// only.
///
/// # Errors
/// As [`fuse`].
pub fn runner_up(block: &Block, at: &Situation<'_>, numerics: Class) -> Result<Option<Fused>, BuildError> {
    let off = Terms::of(block);
    let saturated = egraph::saturate(&off, at.phase, numerics);
    let forms = Forms::of(&saturated, &off, at);
    let Some((choice, _)) = forms.runner_up(&forms.best().0) else { return Ok(None) };
    let terms = forms.terms(&choice, &off);
    let mut report = BlockReport::new(&block.name);
    report.off = Totals::of(&off, at);
    report.chosen = Totals::of(&terms, at);
    report.kernels = explain::kernels(&terms, at, &saturated.graph.analysis.firings);
    Ok(Some(Fused { block: terms.to_block()?, report }))
}

/// The best form that the search finds; that of greedy rewriting where the search, which is no proof, has missed it.
fn saturate(
    off: &Terms,
    (greedy, steps): (Terms, &[Firing]),
    at: &Situation<'_>,
    most: Class,
    report: &mut BlockReport,
) -> Terms {
    let saturated = egraph::saturate(off, at.phase, most);
    let forms = Forms::of(&saturated, off, at);
    let (choice, _) = forms.best();
    let terms = forms.terms(&choice, off);
    report.saturation = Some(Saturation {
        nodes: saturated.graph.total_number_of_nodes(),
        classes: saturated.graph.number_of_classes(),
        rounds: saturated.rounds,
        limited: saturated.limited,
    });
    if seconds(&greedy, at) < seconds(&terms, at) * (1.0 - 1e-9) {
        report.kernels = explain::kernels(&greedy, at, steps);
        return greedy;
    }
    report.kernels = explain::kernels(&terms, at, &saturated.graph.analysis.firings);
    terms
}

/// The cost of one term, given what is known of its children.
fn kernel_cost(term: &Term, data: impl Fn(egg::Id) -> Data, at: &Situation<'_>) -> Cost {
    let Some(op) = term.op() else { return Cost::NOTHING };
    let (operands, attrs) = term.children.split_at(written(op));
    let operands: Vec<Data> = operands.iter().map(|child| data(*child)).collect();
    let attrs: Vec<_> = attrs.iter().filter_map(|child| data(*child).attr()).collect();
    let mut given = operands.iter();
    let types: Vec<Option<&Type>> = op
        .operands
        .iter()
        .map(|operand| match operand.kind {
            OperandKind::Step(_) => None,
            _ => given.next().and_then(Data::value).map(|fact| &fact.ty),
        })
        .collect();
    let all: Vec<Type> = all_types(op, &types);
    let all: Vec<&Type> = all.iter().collect();
    let results = nemo_ir::ops::OpArgs::new(op, &all, &attrs).and_then(|args| (op.infer)(&args));
    match results {
        Ok(results) => cost::kernel(op, &types, &attrs, &results, at),
        Err(_) => Cost::IMPOSSIBLE,
    }
}

/// The types of all operands that are there, step inputs included.
fn all_types(op: nemo_ir::ops::Op, written: &[Option<&Type>]) -> Vec<Type> {
    let operands = op.operands.iter().zip(written);
    operands
        .filter_map(|(operand, ty)| match operand.kind {
            OperandKind::Step(input) => Some(input.ty()),
            _ => ty.cloned(),
        })
        .collect()
}

/// Seconds of everything that terms compute.
fn seconds(terms: &Terms, at: &Situation<'_>) -> f64 {
    Totals::of(terms, at).seconds
}
