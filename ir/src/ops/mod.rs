//! The op table: every op of the graph IR, declared once.
//!
//! Printer, parser, verifier, interpreter dispatch and the generated reference (`docs/ops.md`) read
//! this table. Adding an op is one entry in its family's file, and its kernel.

mod attention;
mod ffn;
mod head;
mod linear;
mod norm;
mod recipe;
mod scan;
mod typing;

use std::fmt;

use crate::step::StepInput;
use crate::types::{Dtype, Type};

pub use recipe::{AttrSource, Recipe, Source, Step};
pub use typing::{OpArgs, TypeError};

/// The folder of kernels and the file of rules that an op belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// RMSNorm and its gated, grouped form.
    Norm,
    /// Products with weights, and what moves or adds activations unchanged.
    Linear,
    /// Activations of the feed-forward layers.
    Ffn,
    /// Mamba-2: convolution, step sizes, state-space scan.
    Scan,
    /// RoPE, KV cache, attention.
    Attention,
    /// Embedding, row selection, sampling.
    Head,
}

impl Family {
    /// Every family, in the order of the reference.
    pub const ALL: [Self; 6] = [Self::Norm, Self::Linear, Self::Ffn, Self::Scan, Self::Attention, Self::Head];

    /// Name of the folder and of the rule file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Norm => "norm",
            Self::Linear => "linear",
            Self::Ffn => "ffn",
            Self::Scan => "scan",
            Self::Attention => "attention",
            Self::Head => "head",
        }
    }
}

/// What an op does beside computing its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: equal operands give equal results.
    Pure,
    /// Reads state that another op may have written.
    ReadsState,
    /// Consumes a state value and gives the next one.
    WritesState,
}

/// What may stand in an operand's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandKind {
    /// A block input or another op's result.
    Value,
    /// A checkpoint tensor of the layer.
    Weight,
    /// A weight that the model may not have.
    OptionalWeight,
    /// A state value.
    State,
    /// A constant table computed at load.
    Table,
    /// This input of the step.
    Step(StepInput),
}

/// One operand of an op.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    /// Name in the reference.
    pub name: &'static str,
    /// What may stand here.
    pub kind: OperandKind,
    /// Shape, for the reference; the op's result rule checks it.
    pub shape: &'static str,
}

/// The kind of value that an attribute has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttrKind {
    /// Unsigned integer.
    Int,
    /// Real number, `inf` included.
    Float,
    /// Element type.
    Dtype,
}

/// An attribute of an op; each one is required.
#[derive(Debug, Clone, Copy)]
pub struct AttrSpec {
    /// Name in the text form.
    pub name: &'static str,
    /// Kind of its value.
    pub kind: AttrKind,
}

/// A value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attr {
    /// Unsigned integer.
    Int(u64),
    /// Real number.
    Float(f64),
    /// Element type.
    Dtype(Dtype),
}

impl Attr {
    /// The kind that the table declares for such a value.
    pub const fn kind(self) -> AttrKind {
        match self {
            Self::Int(_) => AttrKind::Int,
            Self::Float(_) => AttrKind::Float,
            Self::Dtype(_) => AttrKind::Dtype,
        }
    }
}

impl From<u64> for Attr {
    fn from(n: u64) -> Self {
        Self::Int(n)
    }
}

impl From<f64> for Attr {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}

impl From<Dtype> for Attr {
    fn from(dtype: Dtype) -> Self {
        Self::Dtype(dtype)
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            // Debug prints the shortest digits that read back as the same number, with a point.
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Dtype(dtype) => write!(f, "{dtype}"),
        }
    }
}

/// The values of an op's attributes, in the table's order.
pub type Attrs = Vec<Attr>;

/// An entry of the table.
pub struct OpSpec {
    /// Name in the text form.
    pub name: &'static str,
    /// Family.
    pub family: Family,
    /// One line for the reference.
    pub meaning: &'static str,
    /// Operands in order; optional weights are left out when absent.
    pub operands: &'static [Operand],
    /// Attributes in order.
    pub attrs: &'static [AttrSpec],
    /// Names and shapes of the results, for the reference.
    pub results: &'static [(&'static str, &'static str)],
    /// Effect class.
    pub effect: Effect,
    /// Result types from operand types and attributes, or what is wrong with them.
    pub infer: fn(&OpArgs<'_>) -> Result<Vec<Type>, TypeError>,
    /// Reference semantics.
    pub eval: crate::interp::Eval,
    /// What a fused op is made of, as [`Recipe`] reads it; empty for an op that is not fused.
    pub recipe: &'static str,
}

impl OpSpec {
    /// For each of `given` operands its index in [`OpSpec::operands`]: optional weights are all there or
    /// all left out. `None` when neither fits the number.
    pub fn places(&self, given: usize) -> Option<Vec<usize>> {
        let all = 0..self.operands.len();
        if given == all.len() {
            return Some(all.collect());
        }
        let required = |index: &usize| self.operands[*index].kind != OperandKind::OptionalWeight;
        Some(all.filter(required).collect::<Vec<_>>()).filter(|places| places.len() == given)
    }

    /// The result that supersedes the state in operand `index` of the table: the one of the operand's
    /// name with a prime.
    pub fn state_result(&self, index: usize) -> Option<usize> {
        let operand = self.operands.get(index).filter(|operand| operand.kind == OperandKind::State)?;
        self.results.iter().position(|(name, _)| name.strip_suffix('\'') == Some(operand.name))
    }

    /// The operand of the table whose state result `result` supersedes.
    pub fn superseded(&self, result: usize) -> Option<usize> {
        (0..self.operands.len()).find(|index| self.state_result(*index) == Some(result))
    }
}

impl fmt::Debug for OpSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for OpSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A reference to an entry of the table.
pub type Op = &'static OpSpec;

/// Every op, by family.
pub fn table() -> impl Iterator<Item = Op> {
    [norm::OPS, linear::OPS, ffn::OPS, scan::OPS, attention::OPS, head::OPS].into_iter().flatten()
}

/// The op of that name.
pub fn op(name: &str) -> Option<Op> {
    table().find(|spec| spec.name == name)
}

const fn value(name: &'static str, shape: &'static str) -> Operand {
    Operand { name, kind: OperandKind::Value, shape }
}

const fn weight(name: &'static str, shape: &'static str) -> Operand {
    Operand { name, kind: OperandKind::Weight, shape }
}

const fn state(name: &'static str, shape: &'static str) -> Operand {
    Operand { name, kind: OperandKind::State, shape }
}

const fn step(input: StepInput) -> Operand {
    Operand { name: input.name(), kind: OperandKind::Step(input), shape: "" }
}

const fn int(name: &'static str) -> AttrSpec {
    AttrSpec { name, kind: AttrKind::Int }
}

const fn float(name: &'static str) -> AttrSpec {
    AttrSpec { name, kind: AttrKind::Float }
}

const fn dtype(name: &'static str) -> AttrSpec {
    AttrSpec { name, kind: AttrKind::Dtype }
}

const fn optional_weight(name: &'static str, shape: &'static str) -> Operand {
    Operand { name, kind: OperandKind::OptionalWeight, shape }
}

const fn table_of(name: &'static str, shape: &'static str) -> Operand {
    Operand { name, kind: OperandKind::Table, shape }
}

const DTYPE: AttrSpec = dtype("dtype");

/// What the entry of a fused op says itself; types and semantics follow from the recipe.
struct Fused {
    name: &'static str,
    family: Family,
    meaning: &'static str,
    operands: &'static [Operand],
    attrs: &'static [AttrSpec],
    results: &'static [(&'static str, &'static str)],
    effect: Effect,
    recipe: &'static str,
}

const fn fused(entry: &Fused) -> OpSpec {
    OpSpec {
        name: entry.name,
        family: entry.family,
        meaning: entry.meaning,
        operands: entry.operands,
        attrs: entry.attrs,
        results: entry.results,
        effect: entry.effect,
        infer: recipe::infer,
        eval: recipe::eval,
        recipe: entry.recipe,
    }
}
