//! `y = x W^T` with x and W as they are stored: both contiguous along K.
//!
//! Every output is a dot product in registers: lanes run along K, and are added in a tree at the end.
//! So nothing is packed, a weight is read in place, and the order of the sum depends on K, the dtypes
//! and the target alone: one row or a thousand, one thread or eight, the bits are the same. A tile of
//! outputs (rows of x by rows of W) shares its loads; with one row of x the kernel streams W once, at
//! the speed of memory.

use nemo_ir::types::{Dim, Dtype};

use crate::host::{Any, Emit, Int, Lanes, Ptr};
use crate::target::{Feature, Level};

/// Bytes of x that stay in the second-level cache while W streams past.
const X_BLOCK_BYTES: u64 = 512 << 10;

/// Shape of a tile of outputs.
#[derive(Clone, Copy)]
struct Tile {
    /// Rows of x.
    rows: u32,
    /// Rows of W.
    outputs: u32,
}

pub(super) fn linear(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, w) = (e.operand("x"), e.operand("weight"));
    let (Some(Dim::Const(outputs)), Some(k)) = (w.1.ty.shape.first().copied(), w.1.ty.width()) else {
        return Err("the weight's shape is not constant".to_owned());
    };
    // Sixteen registers hold eight sums with their operands, thirty-two hold twenty-four.
    let tile = match e.target().level() {
        Level::V3 => Tile { rows: 2, outputs: 4 },
        Level::V4 => Tile { rows: 3, outputs: 8 },
    };
    let rows = e.dim(x.1.ty.shape[0]);
    let row_bytes = (k * x.1.ty.dtype.bytes()).max(1);
    let block = (X_BLOCK_BYTES / row_bytes).max(1).next_multiple_of(u64::from(tile.rows));
    let whole = outputs / u64::from(tile.outputs);
    let rest = (outputs % u64::from(tile.outputs)) as u32;
    let (from, to) = e.share(e.int(whole));
    e.step_by(e.int(0), rows, block, |first| {
        let end = e.min(e.plus(first, block), rows);
        e.each(from, to, |index| {
            panel(e, k, tile, (first, end), e.times(index, u64::from(tile.outputs)));
        });
        if rest > 0 {
            let tile = Tile { outputs: rest, ..tile };
            e.when(e.is_last_thread(), || {
                panel(e, k, tile, (first, end), e.int(outputs - u64::from(rest)));
            });
        }
    });
    Ok(())
}

/// The outputs from `output` on, for rows `first .. end` of x.
fn panel<'c>(e: &Emit<'c, '_>, k: u64, tile: Tile, (first, end): (Int<'c>, Int<'c>), output: Int<'c>) {
    let step = u64::from(tile.rows);
    let whole = e.times(e.div(e.sub(end, first), e.int(step)), step);
    let middle = e.add(first, whole);
    e.step_by(first, middle, step, |row| products(e, k, tile, row, output));
    e.each(middle, end, |row| products(e, k, Tile { rows: 1, ..tile }, row, output));
}

/// One tile.
fn products<'c>(e: &Emit<'c, '_>, k: u64, tile: Tile, row: Int<'c>, output: Int<'c>) {
    let (x, w, y) = (e.operand("x"), e.operand("weight"), e.result());
    let xs: Vec<Ptr<'c>> = (0..tile.rows).map(|i| e.row(x, e.plus(row, i.into()))).collect();
    let ws: Vec<Ptr<'c>> = (0..tile.outputs).map(|j| e.row(w, e.plus(output, j.into()))).collect();
    let dot = Dot::of(e, x.1.ty.dtype, w.1.ty.dtype);
    let step = dot.step(e);
    let w_stride = w.1.row_stride;
    let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); (tile.rows * tile.outputs) as usize];
    // One weight at a time: with all of them loaded first, sums would spill.
    let accumulate = |at: Int<'c>, count: u32, sums: &[Any<'c>]| -> Vec<Any<'c>> {
        let left: Vec<_> = xs.iter().map(|x| dot.load(e, *x, dot.x, at, count)).collect();
        ws.iter()
            .zip(sums.chunks(xs.len()))
            .flat_map(|(w, sums)| {
                if tile.rows == 1 {
                    // Alone, a row of x waits for memory: the same place of the next tile is asked for.
                    // Past the last tile this asks for nothing that is there, which does no harm.
                    let ahead = e.plus(at, u64::from(tile.outputs) * w_stride);
                    e.prefetch(e.at(*w, dot.w, ahead));
                }
                let w = dot.load(e, *w, dot.w, at, count);
                let line = left.iter().zip(sums);
                line.map(|(x, sum)| Any::from(dot.accumulate(e, *x, w, sum.into_vector_value())))
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let whole = k / step * step;
    let mut sums = zeros;
    if whole > 0 {
        sums = e.fold((e.int(0), e.int(whole), step), &sums, |at, sums| accumulate(at, step as u32, sums));
    }
    if whole < k {
        sums = accumulate(e.int(whole), (k - whole) as u32, &sums);
    }
    let padded = tile.outputs.next_power_of_two() as usize;
    for (i, _) in xs.iter().enumerate() {
        let mut vectors: Vec<Lanes<'c>> =
            sums.iter().skip(i).step_by(xs.len()).map(|sum| sum.into_vector_value()).collect();
        vectors.resize(padded, e.lanes(0.0));
        let dtype = y.1.ty.dtype;
        let address = e.at(e.row(y, e.plus(row, i as u64)), dtype, output);
        e.store(address, dtype, tile.outputs, e.sums(&vectors));
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
