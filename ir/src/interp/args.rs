//! What an op's function sees: its operands and attributes by name.

use std::ops::Range;

use thiserror::Error;

use super::step::StepError;
use super::tensor::Tensor;
use crate::ops::{Attr, Op};
use crate::step::PAGE_TOKENS;
use crate::types::Type;
use crate::verify::VerifyError;

/// The reference semantics of one op: results in the table's order.
///
/// The caller has checked kinds, types and extents of the operands against the table.
pub type Eval = fn(&EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError>;

/// What happens to the result of each op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Nothing: f64 throughout.
    F64,
    /// Every real result is rounded to f32.
    F32,
    /// Every real result is rounded to its declared dtype, as the kernels round.
    Declared,
}

/// Why a block or a program could not be executed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EvalError {
    /// The block breaks a rule of the graph IR.
    #[error(transparent)]
    Malformed(Box<VerifyError>),
    /// The step contradicts itself or the engine's extents.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A value that the caller has to give is not there.
    #[error("block `{block}` needs {what} `{name}`, and none was given")]
    Missing {
        /// Block name.
        block: String,
        /// `input` or `state`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A given tensor is not what the block declares.
    #[error("block `{block}`: {what} `{name}` is declared {wanted}, the tensor given has {found}")]
    Shape {
        /// Block name.
        block: String,
        /// `input`, `weight` or `state`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The declared type and its extents in this step.
        wanted: String,
        /// Kind and extents of the tensor.
        found: String,
    },
    /// A call of a block with state has no layer to keep it under.
    #[error("block `{0}` has state, and its call names no layer")]
    NoLayer(String),
    /// A call refers to a block that the program does not have.
    #[error("call {call} runs block {block}, and the program has {blocks}")]
    NoBlock {
        /// Index of the call.
        call: usize,
        /// The block it names.
        block: usize,
        /// Blocks in the program.
        blocks: usize,
    },
    /// The last call lacks an output that a program gives.
    #[error("the program's last call gives no `{0}`")]
    NoOutput(&'static str),
    /// A token id at or past the vocabulary's end.
    #[error("token {token} in row {row} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: i32,
        /// Its row in the step.
        row: usize,
        /// Rows of the embedding table.
        vocab: usize,
    },
    /// A position for which the block table has no column.
    #[error("sequence {seq} reaches position {position}, and its block table ends at {end}")]
    PastBlockTable {
        /// Index of the sequence in the step.
        seq: usize,
        /// The position.
        position: usize,
        /// Positions that the block table covers.
        end: usize,
    },
}

/// The operands and attributes of one op in execution.
#[derive(Debug)]
pub struct EvalArgs<'a> {
    op: Op,
    /// One entry per operand of the table; `None` where an optional weight is absent.
    operands: Vec<Option<(&'a Tensor, &'a Type)>>,
    attrs: &'a [Attr],
    numerics: Numerics,
}

/// A real matrix by rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub rows: usize,
    pub width: usize,
    pub data: &'a [f64],
}

impl<'a> Matrix<'a> {
    pub fn row(self, row: usize) -> &'a [f64] {
        &self.data[row * self.width..][..self.width]
    }
}

/// One sequence of the step: its rows and the state slots that it reads and writes.
#[derive(Debug, Clone)]
pub(super) struct SequenceRows {
    pub rows: Range<usize>,
    pub slot_in: Option<usize>,
    pub slot_out: Option<usize>,
}

/// One sequence of the step as attention sees it.
#[derive(Debug, Clone)]
pub(super) struct CachedSequence<'a> {
    pub index: usize,
    pub rows: Range<usize>,
    pub context: usize,
    pages: &'a [i32],
}

impl CachedSequence<'_> {
    /// Position of a row of this sequence.
    pub fn position(&self, row: usize) -> usize {
        self.context + (row - self.rows.start)
    }

    /// Page and place in it of a position; `None` where the sequence has no page there.
    pub fn place(&self, position: usize) -> Result<Option<(usize, usize)>, EvalError> {
        let page_tokens = PAGE_TOKENS as usize;
        match self.pages.get(position / page_tokens) {
            Some(page) => Ok(usize::try_from(*page).ok().map(|page| (page, position % page_tokens))),
            None => Err(EvalError::PastBlockTable {
                seq: self.index,
                position,
                end: self.pages.len() * page_tokens,
            }),
        }
    }
}

impl<'a> EvalArgs<'a> {
    /// Operands must already fit the op; `operands` has an entry for each operand of the table.
    pub(crate) fn new(
        op: Op,
        operands: Vec<Option<(&'a Tensor, &'a Type)>>,
        attrs: &'a [Attr],
        numerics: Numerics,
    ) -> Self {
        Self { op, operands, attrs, numerics }
    }

    pub(crate) fn op(&self) -> Op {
        self.op
    }

    pub(crate) fn attrs(&self) -> &'a [Attr] {
        self.attrs
    }

    pub(crate) fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// An operand and its type, by its index in the table.
    pub(crate) fn by_index(&self, index: usize) -> Option<(&'a Tensor, &'a Type)> {
        self.operands[index]
    }

    /// The type of an operand, by its index in the table.
    pub(crate) fn ty_by_index(&self, index: usize) -> Option<&'a Type> {
        self.operands[index].map(|(_, ty)| ty)
    }

    pub(super) fn optional(&self, name: &str) -> Option<&'a Tensor> {
        let index = self.op.operands.iter().position(|operand| operand.name == name);
        index.and_then(|index| self.operands[index]).map(|(tensor, _)| tensor)
    }

    pub(super) fn tensor(&self, name: &str) -> &'a Tensor {
        match self.optional(name) {
            Some(tensor) => tensor,
            None => unreachable!("`{}` has no operand `{name}`", self.op.name),
        }
    }

    pub(super) fn real(&self, name: &str) -> &'a [f64] {
        match self.tensor(name).as_real() {
            Some(data) => data,
            None => unreachable!("the type of `{name}` was checked to be a float"),
        }
    }

    pub(super) fn ints(&self, name: &str) -> &'a [i32] {
        match self.tensor(name).as_int() {
            Some(data) => data,
            None => unreachable!("the type of `{name}` was checked to be an integer"),
        }
    }

    pub(super) fn matrix(&self, name: &str) -> Matrix<'a> {
        match *self.tensor(name).shape() {
            [rows, width] => Matrix { rows, width, data: self.real(name) },
            _ => unreachable!("the type of `{name}` was checked to be a matrix"),
        }
    }

    fn attr(&self, name: &str) -> Attr {
        match self.op.attrs.iter().position(|spec| spec.name == name) {
            Some(index) => self.attrs[index],
            None => unreachable!("`{}` has no attribute `{name}`", self.op.name),
        }
    }

    pub(super) fn int(&self, name: &str) -> usize {
        match self.attr(name) {
            Attr::Int(n) => n as usize,
            other => unreachable!("`{name}` was checked to be an integer: {other}"),
        }
    }

    pub(super) fn float(&self, name: &str) -> f64 {
        match self.attr(name) {
            Attr::Float(x) => x,
            other => unreachable!("`{name}` was checked to be a number: {other}"),
        }
    }

    /// The rows of each sequence.
    pub(super) fn sequence_rows(&self) -> Vec<Range<usize>> {
        self.ints("seq_start").windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect()
    }

    /// The sequences as ops with slot state see them.
    pub(super) fn slotted_sequences(&self) -> Vec<SequenceRows> {
        let slots = self.ints("slot_in").iter().zip(self.ints("slot_out"));
        let rows = self.sequence_rows().into_iter();
        rows.zip(slots)
            .map(|(rows, (slot_in, slot_out))| SequenceRows {
                rows,
                slot_in: usize::try_from(*slot_in).ok(),
                slot_out: usize::try_from(*slot_out).ok(),
            })
            .collect()
    }

    /// The sequences as ops with paged state see them.
    pub(super) fn cached_sequences(&self) -> Vec<CachedSequence<'a>> {
        let columns = self.tensor("pages").shape()[1];
        let pages = self.ints("pages");
        let contexts = self.ints("context").iter();
        let rows = self.sequence_rows().into_iter();
        rows.zip(contexts)
            .enumerate()
            .map(|(index, (rows, context))| CachedSequence {
                index,
                rows,
                context: *context as usize,
                pages: &pages[index * columns..][..columns],
            })
            .collect()
    }
}
