//! Tiles of bf16 in shared memory: panels of 16 columns, two 16-byte units a row, which the copies fill and matrix
//! instructions read without bank conflicts.
//!
//! The two units of a row change places every four rows, so that eight rows' units of one column lie in different banks; and
//! panels are a row apart from a multiple of the banks, so that the units of one long row do, too.

use nemo_ir::types::Dtype;

use crate::nvptx::{Emit, Int, Ptr};

/// Rows of a panel.
pub(super) const ROWS: u32 = 64;
/// Bytes of a row in a panel.
const ROW: u32 = 32;
/// Bytes from panel to panel.
pub(super) const PANEL: u32 = ROWS * ROW + ROW;
/// Bytes of 16 rows.
pub(super) const BLOCK: u32 = 16 * ROW;

/// What a lane reads of 16 x 16 elements: the four 8 x 8 matrices by one instruction.
#[derive(Clone, Copy)]
pub(super) struct Corners<'c> {
    /// Offset of the lane's row where matrix 1 lies below matrix 0.
    down: Int<'c>,
    /// Where it lies beside it.
    across: Int<'c>,
    /// A lane's pair of elements in fragments of sums: of row lane / 4, columns 2 (lane % 4) on, in the first unit.
    pair: Int<'c>,
}

/// In which order matrices are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Left column first.
    Down,
    /// Upper row first.
    Across,
}

impl<'c> Corners<'c> {
    pub fn of(e: &Emit<'c, '_>) -> Self {
        let lane = e.lane();
        let (row, matrix) = (e.and(lane, e.word(7)), e.shift_right(lane, 3));
        let (low, high) = (e.and(matrix, e.word(1)), e.shift_right(matrix, 1));
        let place = |down, unit| offset(e, e.add(e.times(down, 8), row), unit);
        let first = offset(e, e.shift_right(lane, 2), e.word(0));
        Self {
            down: place(low, high),
            across: place(high, low),
            pair: e.add(first, e.times(e.and(lane, e.word(3)), 4)),
        }
    }

    /// The four matrices of the 16 x 16 elements at `block`.
    pub fn load(&self, e: &Emit<'c, '_>, block: Ptr<'c>, order: Order, transposed: bool) -> [Int<'c>; 4] {
        let lane = match order {
            Order::Down => self.down,
            Order::Across => self.across,
        };
        e.ldmatrix(e.offset(block, lane), transposed)
    }

    /// The place of the lane's pair in row `8 half + lane / 4` and the columns `8 unit` on of the elements at `block`.
    pub fn pair(&self, e: &Emit<'c, '_>, block: Ptr<'c>, half: u32, unit: u32) -> Ptr<'c> {
        let place = e.xor(self.pair, e.word(16 * unit));
        e.offset(block, e.plus(place, (8 * half * ROW).into()))
    }
}

/// The offset of a unit (0 or 1) of a row.
fn offset<'c>(e: &Emit<'c, '_>, row: Int<'c>, unit: Int<'c>) -> Int<'c> {
    let swap = e.and(e.shift_right(row, 2), e.word(1));
    e.add(e.times(row, ROW.into()), e.times(e.xor(unit, swap), 16))
}

/// Rows of a tensor that become panels.
#[derive(Clone, Copy)]
pub(super) struct Source<'c> {
    pub base: Ptr<'c>,
    /// Elements from row to row.
    pub stride: u64,
    pub columns: u64,
}

impl<'c> Source<'c> {
    /// Lets the copies of [`ROWS`] rows begin, by all threads: zeros from row `end` on.
    pub fn copy(&self, e: &Emit<'c, '_>, panels: Ptr<'c>, first: Int<'c>, end: Int<'c>) {
        let units = self.columns / 8;
        let last = e.sub(end, e.word(1));
        e.each_strided(e.word(ROWS * units as u32), |at| {
            let (row, unit) = (e.div(at, e.word(units as u32)), e.rem(at, e.word(units as u32)));
            let from = e.add(first, row);
            let there = e.cmp(inkwell::IntPredicate::SLT, from, end);
            let element = e.times(e.long(e.min(from, last)), self.stride);
            let element = e.add(element, e.long(e.times(unit, 8)));
            let panel = e.times(e.shift_right(unit, 1), PANEL.into());
            let place = e.add(panel, offset(e, row, e.and(unit, e.word(1))));
            let bytes = e.select(there, e.word(16), e.word(0));
            e.copy_async(e.offset(panels, place), e.at(self.base, Dtype::Bf16, element), bytes);
        });
    }
}
