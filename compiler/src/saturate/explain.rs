//! What a choice bought, and which laws led to it.

use nemo_ir::ops::{Op, Recipe};
use nemo_kernels::nvptx::Form;
use serde::{Deserialize, Serialize};

use super::analysis::{Firing, Signature};
use super::extract::facts;
use super::kernel_cost;
use super::law::Class;
use super::laws;
use super::term::{Head, Term, Terms};
use crate::cost::Situation;

/// One block: its kernels, and what it costs in each way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockReport {
    /// The block's name.
    pub name: String,
    /// Its kernels, in order.
    pub kernels: Vec<KernelReport>,
    /// As it was lowered: every op a kernel.
    pub off: Totals,
    /// By greedy rewriting.
    pub greedy: Totals,
    /// As it was chosen.
    pub chosen: Totals,
    /// How far saturation went; none where there was none.
    pub saturation: Option<Saturation>,
}

/// The size of a block's e-graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saturation {
    /// Nodes.
    pub nodes: usize,
    /// Classes of equal nodes.
    pub classes: usize,
    /// Rounds over all laws.
    pub rounds: usize,
    /// Whether a limit ended it.
    pub limited: bool,
}

/// What a whole block costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Kernels.
    pub kernels: usize,
    /// Bytes moved.
    pub bytes: u64,
    /// Operations.
    pub flops: u64,
    /// Predicted seconds.
    pub seconds: f64,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The op that it computes.
    pub op: String,
    /// The ops that it stands for, in order.
    pub replaces: Vec<String>,
    /// The laws that led to it, in the order in which they were applied.
    pub laws: Vec<String>,
    /// What those laws do to the bits, the worst of them.
    pub class: Class,
    /// Bytes moved.
    pub bytes: u64,
    /// Operations.
    pub flops: u64,
    /// Predicted seconds.
    pub seconds: f64,
    /// The form that it is built in, where a GPU has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
}

impl KernelReport {
    /// The op, and the form in which it is built where there are several.
    pub fn title(&self) -> String {
        self.form.map_or_else(|| self.op.clone(), |form| format!("{}, {form}", self.op))
    }
}

impl BlockReport {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kernels: Vec::new(),
            off: Totals::default(),
            greedy: Totals::default(),
            chosen: Totals::default(),
            saturation: None,
        }
    }
}

impl Totals {
    /// Of the terms of a block.
    pub(super) fn of(terms: &Terms, at: &Situation<'_>) -> Self {
        let data = facts(terms);
        let mut totals = Self::default();
        for id in terms.order() {
            let term = &terms.expr[id];
            if !is_kernel(term) {
                continue;
            }
            let cost = kernel_cost(term, |id| data[usize::from(id)].clone(), at);
            totals.kernels += 1;
            totals.bytes += cost.bytes;
            totals.flops += cost.flops;
            totals.seconds += cost.seconds;
        }
        totals
    }
}

/// Views are no kernels.
fn is_kernel(term: &Term) -> bool {
    matches!(term.head, Head::Op(name) if name != "slice")
}

/// The kernels of a block, each with the laws among `firings` that made it.
pub(super) fn kernels(terms: &Terms, at: &Situation<'_>, firings: &[Firing]) -> Vec<KernelReport> {
    let data = facts(terms);
    let table = laws::parsed();
    let kernels = terms.order().into_iter().map(|id| &terms.expr[id]).filter(|term| is_kernel(term));
    kernels
        .filter_map(|term| {
            let op = term.op()?;
            let cost = kernel_cost(term, |id| data[usize::from(id)].clone(), at);
            let mut chain = Chain { firings, seen: Vec::new(), laws: Vec::new() };
            chain.to(&Signature::of(term, |id| &data[usize::from(id)])?);
            Some(KernelReport {
                op: op.name.to_owned(),
                replaces: replaced(op),
                laws: chain.laws.iter().map(|law| table[*law].law.name.to_owned()).collect(),
                class: chain.laws.iter().map(|law| table[*law].law.class).max().unwrap_or(Class::Exact),
                bytes: cost.bytes,
                flops: cost.flops,
                seconds: cost.seconds,
                form: cost.form.filter(|form| *form != Form::Sole),
            })
        })
        .collect()
}

fn replaced(op: Op) -> Vec<String> {
    let steps = |recipe: &Recipe| recipe.steps.iter().map(|step| step.op.name.to_owned()).collect();
    Recipe::of(op).map_or_else(|| vec![op.name.to_owned()], steps)
}

/// The laws from the original ops to a fused one.
struct Chain<'a> {
    firings: &'a [Firing],
    seen: Vec<Signature>,
    laws: Vec<usize>,
}

impl Chain<'_> {
    /// The law that made an op, after those that made what it matched.
    fn to(&mut self, made: &Signature) {
        if self.seen.contains(made) {
            return;
        }
        self.seen.push(made.clone());
        let Some(firing) = self.firings.iter().find(|firing| firing.made == *made) else { return };
        for matched in &firing.matched {
            self.to(matched);
        }
        self.laws.push(firing.law);
    }
}
