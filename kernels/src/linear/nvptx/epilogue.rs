//! What becomes of products before they leave: all threads of a CTA take their share of a tile of sums that lies in shared
//! memory, as the main loops left it.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::types::Dtype;

use super::plan::{Group, Plan, Rows};
use super::sink::{Sink, Value};
use super::strips::{Blocks, STRIP};
use crate::nvptx::{Emit, Float, Int, Ptr, Written};

const F32: Dtype = Dtype::F32;
/// The most columns that a thread takes at once: more would have the lanes of a warp meet in banks of shared memory, and
/// four bf16 a lane still fill sectors.
const MOST: u32 = 4;

/// A tile of sums, f32, a row of the tile for each row of x: column c of strip s of the block, as [`Blocks::strip`] counts
/// them, is column 16 s + c.
///
/// The sum of an element may lie in several parts, which are added in order. Rows begin at multiples of 16 bytes. A warp that
/// writes a column a lane and a row for each t = lane % 4 (`mma` with weights as its first operand) meets no bank twice
/// where the distance of rows is 4 more than a multiple of 16; one that writes two columns a lane and a row for each
/// lane / 4 (x as its first operand), where it is 8 more than a multiple of 32.
#[derive(Clone, Copy)]
pub(super) struct Staged<'c> {
    pub base: Ptr<'c>,
    /// Elements from row to row.
    pub stride: u64,
    pub parts: u64,
    /// Elements from part to part.
    pub part: u64,
}

/// What a CTA has computed.
#[derive(Clone, Copy)]
pub(super) struct Done<'c> {
    /// Index of its block.
    pub block: Int<'c>,
    /// The row of x that is the tile's first, and how many rows there are, i32.
    pub rows: (Int<'c>, Int<'c>),
    pub staged: Staged<'c>,
}

/// The tile of one group.
#[derive(Clone, Copy)]
pub(super) struct Tile<'c> {
    pub done: Done<'c>,
    /// Its first unit, i32.
    pub unit: Int<'c>,
    /// Units of the tile; the last of them may not be there.
    pub units: u64,
}

impl<'c> Staged<'c> {
    /// Some elements of a row, next to one another, by one access a part.
    pub fn load(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>, count: u32) -> Vec<Float<'c>> {
        let place = e.at(self.base, F32, e.add(e.times(row, self.stride), column));
        let part = |index: u64| {
            let place = e.at(place, F32, e.word((index * self.part) as u32));
            e.load(place, F32, (count, count), Written::Now)
        };
        (1..self.parts)
            .map(part)
            .fold(part(0), |sums, more| sums.iter().zip(more).map(|(sum, more)| e.fadd(*sum, more)).collect())
    }
}

/// Finishes a block that belongs to one of `groups`; all threads of the CTA come here after a barrier.
pub(super) fn finish<'c>(
    e: &Emit<'c, '_>,
    plan: &Plan,
    (blocks, groups): (&Blocks, &[usize]),
    done: Done<'c>,
) {
    blocks.when_of(e, groups, done.block, |index| {
        let unit = blocks.first_unit(e, index, done.block);
        let tile = Tile { done, unit, units: blocks.units(index) };
        plan.groups[index].finish(e, tile);
    });
}

/// The largest power of two up to [`MOST`] that divides a width.
fn dividing(width: u64) -> u32 {
    1 << width.trailing_zeros().min(MOST.trailing_zeros())
}

impl Group {
    /// Columns that the epilogue takes at once: so many divide whatever its columns are cut into, and lie together in every
    /// tensor that is read or written on the way.
    pub fn vector(&self) -> u32 {
        let vector = |tensors: &[&Rows]| tensors.iter().map(|rows| rows.layout.vector()).min();
        let piece = self.span().map_or(self.width, |span| span.piece);
        let (tensors, columns) = match &self.sink {
            Sink::Map { value, to } => {
                let mut tensors = vec![to];
                value.tensors(&mut tensors);
                (vector(&tensors), dividing(piece))
            }
            Sink::Rotated { angles, to } => (vector(&[&angles.table, to]), dividing(piece)),
            Sink::Cache { angles: Some(angles), cache, .. } => {
                (vector(&[&angles.table, &cache.kv]), dividing(piece))
            }
            Sink::Cache { angles: None, cache, .. } => (vector(&[&cache.kv]), dividing(piece)),
            Sink::Conv { taps, to } => {
                let bias = taps.bias.as_ref().unwrap_or(to);
                (vector(&[&taps.state, bias, to]), dividing(piece))
            }
            Sink::Maxima { tile, to, .. } => (vector(&[to]), dividing(piece).min(dividing(*tile))),
        };
        tensors.unwrap_or(1).min(columns)
    }

    fn finish<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>) {
        match &self.sink {
            Sink::Map { value, to } => self.map(e, tile, (value, to)),
            Sink::Rotated { angles, to } => self.rotate(e, tile, (angles, to)),
            Sink::Cache { angles, cache, part } => self.append(e, tile, angles.as_ref(), (cache, *part)),
            Sink::Conv { taps, to } => self.convolve(e, tile, (taps, to)),
            Sink::Maxima { tile: columns, to, maxima } => self.maxima(e, tile, *columns, (to, maxima)),
        }
    }

    /// Products of some columns of a part of a unit of the tile (i32 each), rounded to what they are.
    pub fn products<'c>(
        &self,
        e: &Emit<'c, '_>,
        tile: Tile<'c>,
        (row, unit): (Int<'c>, Int<'c>),
        (part, column): (u64, Int<'c>),
    ) -> Vec<Float<'c>> {
        let first = e.times(e.plus(unit, part * tile.units), STRIP);
        let product = self.products.get(part as usize).unwrap_or(&self.products[0]);
        let sums = tile.done.staged.load(e, row, e.add(first, column), self.vector());
        sums.into_iter().map(|sum| e.round(product.dtype, sum)).collect()
    }

    /// Runs `body` for each row of the tile and each piece of a strip.
    pub fn each_piece<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>, body: impl FnOnce(Piece<'c>)) {
        let vector = u64::from(self.vector());
        let per_strip = STRIP / vector;
        let per_row = tile.units * per_strip;
        let (first, rows) = tile.done.rows;
        // The rows of one strip: eight lanes take two of them at once, which lie in different banks when they are four apart.
        let narrow = per_row == STRIP / u64::from(MOST);
        let lines = if narrow { e.and(e.plus(rows, 7), e.word(!7)) } else { rows };
        e.each_strided(e.times(lines, per_row), |item| {
            let line = e.div(item, e.word(per_row as u32));
            let place = e.rem(item, e.word(per_row as u32));
            let row = if narrow { swapped(e, line) } else { line };
            let unit = e.div(place, e.word(per_strip as u32));
            let column = e.times(e.rem(place, e.word(per_strip as u32)), vector);
            let of_all = e.add(tile.unit, unit);
            let there = e.cmp(IntPredicate::SLT, of_all, e.word(self.units() as u32));
            let there = if narrow { e.and(there, e.cmp(IntPredicate::SLT, row, rows)) } else { there };
            e.when(there, || body(Piece { x_row: e.add(first, row), row, of_all, unit, column }));
        });
    }

    fn map<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>, (value, to): (&Value, &Rows)) {
        let vector = self.vector();
        self.each_piece(e, tile, |piece| {
            let column = e.add(e.times(piece.of_all, STRIP), piece.column);
            let there = e.cmp(IntPredicate::SLT, column, e.word(self.width as u32));
            e.when(there, || {
                let products = |part| self.products(e, tile, (piece.row, piece.unit), (part, piece.column));
                let products: Vec<_> = (0..self.products.len() as u64).map(products).collect();
                let values = value.elements(e, &products, (piece.x_row, column, vector));
                e.store(to.at(e, piece.x_row, column), to.dtype(), &values, vector);
            });
        });
    }

    /// A warp takes the columns of a unit in a row.
    fn maxima<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>, columns: u64, (to, maxima): (&Rows, &Rows)) {
        let (vector, units) = (self.vector(), tile.units);
        let (first, rows) = tile.done.rows;
        let warps = u64::from(e.warps());
        e.step_by(e.warp(), e.times(rows, units), warps, |pair| {
            let row = e.div(pair, e.word(units as u32));
            let unit = e.rem(pair, e.word(units as u32));
            let (x_row, of_all) = (e.add(first, row), e.add(tile.unit, unit));
            e.when(e.cmp(IntPredicate::SLT, of_all, e.word(self.units() as u32)), || {
                let start = e.times(of_all, columns);
                let end = e.min(e.word(columns as u32), e.sub(e.word(self.width as u32), start));
                let own = e.times(e.lane(), vector.into());
                let lowest = [e.float(f64::NEG_INFINITY).into()];
                let found = e.fold((own, end, u64::from(32 * vector)), &lowest, |column, largest| {
                    let strip = e.times(e.shift_right(column, STRIP.trailing_zeros().into()), units);
                    let inside = e.and(column, e.word(STRIP as u32 - 1));
                    let values = self.products(e, tile, (row, e.add(strip, unit)), (0, inside));
                    let place = to.at(e, x_row, e.add(start, column));
                    e.store(place, to.dtype(), &values, vector);
                    let largest = largest[0].into_float_value();
                    vec![values.iter().fold(largest, |largest, value| larger(e, largest, *value)).into()]
                });
                let found = e.across(found[0].into_float_value(), 32, |a, b| larger(e, a, b));
                e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
                    e.store(maxima.at(e, x_row, of_all), maxima.dtype(), &[found], 1);
                });
            });
        });
    }
}

/// The place of a piece of a strip, i32 each.
#[derive(Clone, Copy)]
pub(super) struct Piece<'c> {
    /// The row of x, and of the tile.
    pub x_row: Int<'c>,
    pub row: Int<'c>,
    /// The unit among all, and in the tile.
    pub of_all: Int<'c>,
    pub unit: Int<'c>,
    /// The first column in the strip.
    pub column: Int<'c>,
}

/// A number with its bits 0 and 2 in each other's place.
fn swapped<'c>(e: &Emit<'c, '_>, number: Int<'c>) -> Int<'c> {
    let up = e.shift_left(e.and(number, e.word(1)), e.word(2));
    let down = e.and(e.shift_right(number, 2), e.word(1));
    e.or(e.and(number, e.word(!5)), e.or(up, down))
}

/// The larger of two, NaN where one is.
fn larger<'c>(e: &Emit<'c, '_>, a: Float<'c>, b: Float<'c>) -> Float<'c> {
    // Neither greater nor a number: it stands. A NaN is taken, and nothing is greater than it.
    let above = e.select(e.fcmp(FloatPredicate::UGT, b, a), b, a);
    e.select(e.fcmp(FloatPredicate::UNO, a, a), a, above)
}

impl Value {
    /// Some elements of a row, before the last rounding.
    fn elements<'c>(
        &self,
        e: &Emit<'c, '_>,
        products: &[Vec<Float<'c>>],
        at: (Int<'c>, Int<'c>, u32),
    ) -> Vec<Float<'c>> {
        match self {
            Self::Product(index) => products[*index].clone(),
            // It may lie where the result goes.
            Self::Tensor(rows) => e.load(rows.at(e, at.0, at.1), rows.dtype(), (at.2, at.2), Written::Now),
            Self::Apply(lowered, operands, _) => {
                let rounded = |value: &Self| {
                    let elements = value.elements(e, products, at);
                    match value {
                        Self::Apply(_, _, dtype) => {
                            elements.into_iter().map(|element| e.round(*dtype, element)).collect()
                        }
                        Self::Product(_) | Self::Tensor(_) => elements,
                    }
                };
                let operands: Vec<_> = operands.iter().map(rounded).collect();
                let element = |lane: usize| {
                    lowered(e, &operands.iter().map(|operand| operand[lane]).collect::<Vec<_>>())
                };
                (0..at.2 as usize).map(element).collect()
            }
        }
    }
}
