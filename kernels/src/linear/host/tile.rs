//! `x W^T` with x and W as they are stored: both contiguous along K.
//!
//! Every output is a dot product in registers: lanes run along K, and are added in a tree at the end.
//! So nothing is packed, a weight is read in place, and the order of the sum depends on K, the dtypes
//! and the target alone: one row or a thousand, one thread or eight, alone or with others, the bits are
//! the same. A tile of outputs (rows of x by rows of W) shares its loads; with one row of x the kernel
//! streams W once, at the speed of memory.

use inkwell::values::VectorValue;
use nemo_ir::types::Dtype;

use super::plan::Product;
use crate::host::{Any, Emit, Int, Lanes, Ptr, Rows};
use crate::target::{Feature, Level};

/// Shape of a tile of outputs.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows of x.
    pub rows: u32,
    /// Rows of W, those of all products together.
    pub outputs: u32,
}

impl Tile {
    /// Sixteen registers hold eight sums with their operands, thirty-two hold twenty-four.
    pub(super) fn of(e: &Emit<'_, '_>) -> Self {
        match e.target().level() {
            Level::V3 => Self { rows: 2, outputs: 4 },
            Level::V4 => Self { rows: 3, outputs: 8 },
        }
    }
}

/// What the tiles of a panel read.
#[derive(Clone, Copy)]
pub(super) struct Operands<'c, 'p> {
    pub x: Rows<'c>,
    pub k: u64,
    pub products: &'p [Product<'c>],
}

/// What takes a tile: row by row the vectors of each product, filled up to a power of two.
pub(super) type Take<'c, 't> = &'t dyn Fn(Int<'c>, &[VectorValue<'c>]);

impl<'c> Operands<'c, '_> {
    /// `count` columns of every product from `column` on, for rows `first .. end` of x.
    pub(super) fn panel(
        &self,
        e: &Emit<'c, '_>,
        (first, end): (Int<'c>, Int<'c>),
        column: Int<'c>,
        count: u32,
        take: Take<'c, '_>,
    ) {
        let rows = Tile::of(e).rows;
        let step = u64::from(rows);
        let whole = e.times(e.div(e.sub(end, first), e.int(step)), step);
        let middle = e.add(first, whole);
        e.step_by(first, middle, step, |row| self.tile(e, row, rows, (column, count), take));
        e.each(middle, end, |row| self.tile(e, row, 1, (column, count), take));
    }

    /// One tile.
    fn tile(
        &self,
        e: &Emit<'c, '_>,
        row: Int<'c>,
        rows: u32,
        (column, count): (Int<'c>, u32),
        take: Take<'c, '_>,
    ) {
        let xs: Vec<Ptr<'c>> = (0..rows).map(|i| self.x.at(e, e.plus(row, i.into()), e.int(0))).collect();
        let columns = |product: &Product<'c>| {
            let weight = product.weight;
            (0..count).map(move |j| weight.at(e, e.plus(column, j.into()), e.int(0))).collect::<Vec<_>>()
        };
        let ws: Vec<Ptr<'c>> = self.products.iter().flat_map(columns).collect();
        let weight = self.products[0].weight;
        let dot = Dot::of(e, self.x.dtype, weight.dtype);
        let step = dot.step(e);
        let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); xs.len() * ws.len()];
        // One weight at a time: with all of them loaded first, sums would spill.
        let accumulate = |at: Int<'c>, lanes: u32, sums: &[Any<'c>]| -> Vec<Any<'c>> {
            let left: Vec<_> = xs.iter().map(|x| dot.load(e, *x, dot.x, at, lanes)).collect();
            ws.iter()
                .zip(sums.chunks(xs.len()))
                .flat_map(|(w, sums)| {
                    if rows == 1 {
                        // Alone, a row of x waits for memory: the same place of the next tile is asked for.
                        // Past the last tile this asks for nothing that is there, which does no harm.
                        let ahead = e.plus(at, u64::from(count) * weight.stride);
                        e.prefetch(e.at(*w, dot.w, ahead));
                    }
                    let w = dot.load(e, *w, dot.w, at, lanes);
                    let line = left.iter().zip(sums);
                    line.map(|(x, sum)| Any::from(dot.accumulate(e, *x, w, sum.into_vector_value())))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let whole = self.k / step * step;
        let mut sums = zeros;
        if whole > 0 {
            sums =
                e.fold((e.int(0), e.int(whole), step), &sums, |at, sums| accumulate(at, step as u32, sums));
        }
        if whole < self.k {
            sums = accumulate(e.int(whole), (self.k - whole) as u32, &sums);
        }
        let padded = count.next_power_of_two() as usize;
        for i in 0..xs.len() {
            let line: Vec<Lanes<'c>> =
                sums.iter().skip(i).step_by(xs.len()).map(|sum| sum.into_vector_value()).collect();
            let of_product = |sums: &[Lanes<'c>]| {
                let mut vectors = sums.to_vec();
                vectors.resize(padded, e.lanes(0.0));
                e.sums(&vectors)
            };
            let vectors: Vec<_> = line.chunks(count as usize).map(of_product).collect();
            take(e.plus(row, i as u64), &vectors);
        }
    }
}

/// How lanes along K are multiplied and added.
struct Dot {
    x: Dtype,
    w: Dtype,
    /// Pairs of bf16 in one instruction, instead of widening both sides to f32.
    pairs: bool,
}

impl Dot {
    fn of(e: &Emit<'_, '_>, x: Dtype, w: Dtype) -> Self {
        let pairs = x == Dtype::Bf16 && w == Dtype::Bf16 && e.target().has(Feature::Avx512Bf16);
        Self { x, w, pairs }
    }

    /// Elements of K in one step.
    fn step(&self, e: &Emit<'_, '_>) -> u64 {
        u64::from(e.width()) * if self.pairs { 2 } else { 1 }
    }

    fn load<'c>(&self, e: &Emit<'c, '_>, row: Ptr<'c>, dtype: Dtype, at: Int<'c>, count: u32) -> Lanes<'c> {
        let address = e.at(row, dtype, at);
        if self.pairs { e.load_bf16_pairs(address, count) } else { e.load(address, dtype, count) }
    }

    fn accumulate<'c>(&self, e: &Emit<'c, '_>, x: Lanes<'c>, w: Lanes<'c>, sum: Lanes<'c>) -> Lanes<'c> {
        if self.pairs {
            e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", &[], &[sum.into(), x.into(), w.into()])
        } else {
            e.fma(x, w, sum)
        }
    }
}
