//! Rotation of the two halves of each head by the angle of the token's position.

use nemo_ir::types::Dtype;

use crate::nvptx::{Emit, Float, Int, Link, Ptr, Written};
use crate::spec::{KernelSpec, Layout};

/// The angles of every position.
#[derive(Clone, Copy)]
pub(crate) struct Angles<'c, 'm> {
    table: (Ptr<'c>, &'m Layout),
    positions: Ptr<'c>,
    /// Elements of a head.
    pub head_dim: u64,
    /// What the rotated values are rounded to.
    pub dtype: Dtype,
}

/// Cosines and sines of a stretch of pairs.
pub(crate) struct Turns<'c> {
    cos: Vec<Float<'c>>,
    sin: Vec<Float<'c>>,
    dtype: Dtype,
}

/// The width of the table that a rotation takes: the dimension of a head.
pub(crate) fn head_dim(spec: &KernelSpec, link: &Link) -> Result<u64, String> {
    let width = spec.layout_of(link, "table")?.ty.width();
    width.ok_or_else(|| "the table's shape is not constant".to_owned())
}

/// Pairs of a head that a thread takes best, given the accesses that the tensors involved allow: a power of two that
/// divides the half, and as many as the widest access to the table has, so that neighbours share no sector of it.
pub(crate) fn vector(head_dim: u64, others: u32) -> u32 {
    others.min(1 << (head_dim / 2).trailing_zeros().min(2))
}

impl<'c, 'm> Angles<'c, 'm> {
    /// Those of a step `rope` of the chain.
    pub fn of(e: &Emit<'c, 'm>, link: &Link) -> Result<Self, String> {
        let (table, positions) = (e.taken(link, "table")?, e.taken(link, "positions")?);
        Ok(Self { table, positions: positions.0, head_dim: head_dim(e.spec(), link)?, dtype: link.dtype() })
    }

    /// The turns of pairs `first` to `first + count` at a row's position; `first` is a multiple of `vector`, which comes
    /// from [`vector`].
    pub fn turns(
        &self,
        e: &Emit<'c, '_>,
        row: Int<'c>,
        first: Int<'c>,
        (count, vector): (u32, u32),
    ) -> Turns<'c> {
        // A padded row has no position; its result is never read, so any row of the table will do.
        let position = e.max(e.load_int(self.positions, row), e.word(0));
        let line = e.row(self.table, position);
        let vector = vector.min(self.table.1.vector());
        let load = |offset: u64| {
            let place = e.at(line, Dtype::F32, e.plus(first, offset));
            e.load(place, Dtype::F32, (count, vector), Written::Before)
        };
        Turns { cos: load(0), sin: load(self.head_dim / 2), dtype: self.dtype }
    }
}

impl<'c> Turns<'c> {
    /// The pair of that index in the stretch, element i of a head and element i + head_dim / 2, rotated and rounded.
    pub fn rotate(&self, e: &Emit<'c, '_>, index: usize, [low, high]: [Float<'c>; 2]) -> [Float<'c>; 2] {
        let (cos, sin) = (self.cos[index], self.sin[index]);
        let turned = [e.fma(low, cos, e.fneg(e.fmul(high, sin))), e.fma(high, cos, e.fmul(low, sin))];
        turned.map(|value| e.round(self.dtype, value))
    }

    /// As [`Turns::rotate`], whole stretches of both halves.
    pub fn rotate_all(&self, e: &Emit<'c, '_>, [low, high]: [&[Float<'c>]; 2]) -> [Vec<Float<'c>>; 2] {
        let pairs = low.iter().zip(high).enumerate();
        let turned: Vec<_> = pairs.map(|(index, (low, high))| self.rotate(e, index, [*low, *high])).collect();
        [0, 1].map(|half: usize| turned.iter().map(|pair| pair[half]).collect())
    }
}
