//! Where products go, and what becomes of them on the way: the part of the plan that epilogues read.

use nemo_ir::types::{Dim, Dtype};

use super::plan::Rows;
use crate::nvptx::{Link, Pointwise};
use crate::spec::KernelSpec;

/// Where a group of products goes.
pub(super) enum Sink {
    /// Element by element into a result.
    Map { value: Value, to: Rows },
    /// Head by head into a result, rotated.
    Rotated { angles: Angles, to: Rows },
    /// Head by head into the KV cache, as keys (part 0) or values (part 1), maybe rotated.
    Cache { angles: Option<Angles>, cache: Cache, part: u64 },
    /// Through the convolution of each sequence, of one token each, into a result.
    Conv { taps: Taps, to: Rows },
    /// Into a result, and the largest of each `tile` columns into another.
    Maxima { tile: u64, to: Rows, maxima: Rows },
}

/// An element as an expression of the products at its place.
pub(super) enum Value {
    /// One of the group's products.
    Product(usize),
    /// The element of a tensor.
    Tensor(Rows),
    /// An element-wise op, rounded to a dtype.
    Apply(Pointwise, Vec<Value>, Dtype),
}

/// The angles of every position.
pub(super) struct Angles {
    /// Cosines, then sines, of the angles of half a head.
    pub table: Rows,
    /// The argument with the positions of rows.
    pub positions: usize,
    pub head_dim: u64,
    /// What the rotated values are rounded to.
    pub dtype: Dtype,
}

/// The paged cache: `[page, keys and values, head, token, head_dim]`.
pub(super) struct Cache {
    pub kv: Rows,
    pub heads: u64,
    pub head_dim: u64,
    /// Arguments with the step's sequences.
    pub seq_start: usize,
    pub context: usize,
    pub pages: usize,
    /// Pages of a sequence in the block table.
    pub per_sequence: Dim,
}

/// A causal convolution.
pub(super) struct Taps {
    /// A row of taps for each channel.
    pub weight: Rows,
    pub taps: u64,
    pub bias: Option<Rows>,
    /// A row for each slot and age, oldest first.
    pub state: Rows,
    /// Arguments with the slots of sequences.
    pub slot_in: usize,
    pub slot_out: usize,
    /// What its results are rounded to.
    pub dtype: Dtype,
}

impl Angles {
    pub fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let (table, positions) = (Rows::taken(spec, link, "table")?, Rows::taken(spec, link, "positions")?);
        let head_dim = table.width().ok_or("the table's shape is not constant")?;
        Ok(Self { table, positions: positions.arg, head_dim, dtype: link.dtype() })
    }
}

impl Cache {
    pub fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let kv = Rows::taken(spec, link, "kv")?;
        let [_, _, Dim::Const(heads), _, Dim::Const(head_dim)] = kv.layout.ty.shape[..] else {
            return Err("the cache's shape is not constant".to_owned());
        };
        let arg = |name| Rows::taken(spec, link, name).map(|rows| rows.arg);
        let per_sequence = Rows::taken(spec, link, "pages")?.layout.ty.shape[1];
        let (seq_start, context, pages) = (arg("seq_start")?, arg("context")?, arg("pages")?);
        Ok(Self { kv, heads, head_dim, seq_start, context, pages, per_sequence })
    }
}

impl Taps {
    pub fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let weight = Rows::taken(spec, link, "weight")?;
        let taps = weight.width().ok_or("the taps are not constant")?;
        if !(2..=8).contains(&taps) {
            return Err(format!("{taps} taps; 2 to 8 fit the registers"));
        }
        let bias = spec.given(link.source("bias")).map(|arg| Rows::new(arg, &spec.operands[arg]));
        Ok(Self {
            weight,
            taps,
            bias,
            state: Rows::taken(spec, link, "conv")?,
            slot_in: Rows::taken(spec, link, "slot_in")?.arg,
            slot_out: Rows::taken(spec, link, "slot_out")?.arg,
            dtype: link.dtype(),
        })
    }

    /// Inputs before the current one.
    pub fn past(&self) -> u64 {
        self.taps - 1
    }
}

impl Value {
    /// The tensors that it reads.
    pub fn tensors<'v>(&'v self, into: &mut Vec<&'v Rows>) {
        match self {
            Self::Product(_) => {}
            Self::Tensor(rows) => into.push(rows),
            Self::Apply(_, values, _) => values.iter().for_each(|value| value.tensors(into)),
        }
    }
}
