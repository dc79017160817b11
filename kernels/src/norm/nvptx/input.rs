//! Where the columns of a norm come from.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::types::{Dim, Dtype};

use super::team::Place;
use crate::nvptx::{Chain, Emit, Float, Int, Link, Ptr, Written};
use crate::spec::{KernelSpec, Layout};

/// Places among the operands, or for a sum also among the results.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    /// Rows as they are.
    Plain { x: usize },
    /// Rows by index; zeros where that is negative.
    Gathered { x: usize, indices: usize },
    /// A sum that is stored on the way; its first addend may lie where it goes.
    Sum { addends: [usize; 2], sum: usize },
    /// x * silu(gate).
    Gated { x: usize, gate: usize },
}

/// Columns of a row, and how they are stored.
type Line<'c> = (Ptr<'c>, Dtype);

/// An input at the first columns of one thread.
pub(super) struct Lines<'c> {
    sources: Vec<Line<'c>>,
    /// Where a sum goes.
    sum: Option<Line<'c>>,
    /// Whether there is anything to read; `None` where there always is.
    pub there: Option<IntValue<'c>>,
}

impl Input {
    pub fn of(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Self, String> {
        let place = |link: &Link, name: &str| {
            let what = || format!("`{name}` of `{}` inside `{}` is no operand", link.op.name, spec.op.name);
            spec.given(link.source(name)).ok_or_else(what)
        };
        let giver = link.source("x").and_then(|x| chain.giver(x));
        match giver {
            None if link.op.name == "gated_rms_norm" => {
                Ok(Self::Gated { x: place(link, "x")?, gate: place(link, "gate")? })
            }
            None => Ok(Self::Plain { x: place(link, "x")? }),
            Some(rows) if rows.op.name == "gather_rows" && link.op.name == "rms_norm" => {
                Ok(Self::Gathered { x: place(rows, "x")?, indices: place(rows, "rows")? })
            }
            Some(add) if add.op.name == "add" && link.op.name == "rms_norm" => {
                let result = chain.result(add, 0).ok_or("the normed sum is no result")?;
                let addends = [place(add, "a")?, place(add, "b")?];
                Ok(Self::Sum { addends, sum: spec.result_place(result) })
            }
            Some(other) => Err(format!("`{}` of `{}` in one kernel", link.op.name, other.op.name)),
        }
    }

    /// What counts the rows.
    pub fn rows(self, spec: &KernelSpec) -> Dim {
        let (Self::Plain { x: rows }
        | Self::Gathered { indices: rows, .. }
        | Self::Sum { addends: [rows, _], .. }
        | Self::Gated { x: rows, .. }) = self;
        spec.operands[rows].ty.shape[0]
    }

    /// The tensors that are walked.
    pub fn layouts(self, spec: &KernelSpec) -> Vec<&Layout> {
        let operand = |place: usize| &spec.operands[place];
        match self {
            Self::Plain { x } | Self::Gathered { x, .. } => vec![operand(x)],
            Self::Sum { addends: [a, b], sum } => vec![operand(a), operand(b), &spec.results[sum]],
            Self::Gated { x, gate } => vec![operand(x), operand(gate)],
        }
    }

    /// At a thread's first columns; `width` is that of a group.
    pub fn lines<'c>(self, e: &Emit<'c, '_>, place: &Place<'c>, width: u64) -> Lines<'c> {
        let spec = e.spec();
        let column = e.add(e.times(place.group, width), place.first);
        let line = |argument: usize, layout: &Layout, row: Int<'c>| {
            let dtype = layout.dtype();
            (e.at(e.row((e.arg(argument), layout), row), dtype, column), dtype)
        };
        let of = |operand: usize, row| line(operand, &spec.operands[operand], row);
        let (row, there) = (place.row, place.there);
        match self {
            Self::Plain { x } => Lines { sources: vec![of(x, row)], sum: None, there },
            Self::Gathered { x, indices } => {
                let load = || e.load_int(e.arg(indices), row);
                let index = match there {
                    None => load(),
                    Some(there) => e.choose(there, || vec![load().into()], || vec![e.word(u32::MAX).into()])
                        [0]
                    .into_int_value(),
                };
                let chosen = e.cmp(IntPredicate::SGE, index, e.word(0));
                Lines { sources: vec![of(x, index)], sum: None, there: Some(chosen) }
            }
            Self::Sum { addends, sum } => {
                let target = line(spec.operands.len() + sum, &spec.results[sum], row);
                let sources = addends.map(|addend| of(addend, row)).to_vec();
                Lines { sources, sum: Some(target), there }
            }
            Self::Gated { x, gate } => Lines { sources: vec![of(x, row), of(gate, row)], sum: None, there },
        }
    }
}

impl<'c> Lines<'c> {
    /// The columns of each source from `at` on.
    pub fn load(&self, e: &Emit<'c, '_>, at: Int<'c>, vector: u32) -> Vec<Float<'c>> {
        // A sum may be written over its addend.
        let written = if self.sum.is_some() { Written::Now } else { Written::Before };
        let sources = self.sources.iter();
        sources
            .flat_map(|(line, dtype)| e.load(e.at(*line, *dtype, at), *dtype, (vector, vector), written))
            .collect()
    }

    /// Values of [`Lines::load`] for one piece.
    pub fn loaded(&self, vector: u32) -> usize {
        self.sources.len() * vector as usize
    }

    /// What is normed, of the columns of each source.
    pub fn combine(&self, e: &Emit<'c, '_>, loaded: &[Float<'c>]) -> Vec<Float<'c>> {
        let [first, second] = match self.sources.len() {
            1 => return loaded.to_vec(),
            _ => [&loaded[..loaded.len() / 2], &loaded[loaded.len() / 2..]],
        };
        let pairs = first.iter().zip(second);
        match self.sum {
            Some((_, dtype)) => pairs.map(|(a, b)| e.round(dtype, e.fadd(*a, *b))).collect(),
            None => pairs.map(|(x, gate)| e.fmul(*x, e.silu(*gate))).collect(),
        }
    }

    /// Stores what was combined, where that is wanted.
    pub fn keep(&self, e: &Emit<'c, '_>, at: Int<'c>, values: &[Float<'c>]) {
        if let Some((line, dtype)) = self.sum {
            e.store(e.at(line, dtype, at), dtype, values, values.len() as u32);
        }
    }

    /// The combined values once more, after [`Lines::keep`].
    pub fn again(&self, e: &Emit<'c, '_>, at: Int<'c>, vector: u32) -> Vec<Float<'c>> {
        match self.sum {
            Some((line, dtype)) => e.load(e.at(line, dtype, at), dtype, (vector, vector), Written::Now),
            None => self.combine(e, &self.load(e, at, vector)),
        }
    }
}
