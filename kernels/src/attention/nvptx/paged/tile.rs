//! Tiles of rows in prefill: a CTA takes some rows of one sequence and one query head.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::Extent;

use crate::attention::nvptx::cache::find_last;
use crate::nvptx::{Emit, Int};

/// The tile of a CTA.
#[derive(Clone, Copy)]
pub(super) struct Tile<'c> {
    pub sequence: Int<'c>,
    pub head: Int<'c>,
    /// First row, and one past the last row of the sequence.
    pub rows: (Int<'c>, Int<'c>),
    /// Position of the first row in its sequence.
    pub position: Int<'c>,
}

/// CTAs for tiles of `per` rows, for each of the heads.
pub(super) fn grid(per: u64, heads: u64) -> [Extent; 3] {
    [Extent::Ragged { per, times: heads }, Extent::Const(1), Extent::Const(1)]
}

impl<'c> Tile<'c> {
    /// The tile of this CTA in a [`grid`].
    pub fn of(e: &Emit<'c, '_>, per: u64, heads: u64) -> Self {
        let heads = e.word(heads as u32);
        let (seq_start, layout) = e.operand("seq_start");
        // The last tiles of a sequence have the most to do: they go first. The heads that share keys follow one another.
        let last = e.sub(e.div(e.ctas(0), heads), e.word(1));
        let index = e.sub(last, e.div(e.cta(0), heads));
        let first_tile = |sequence| {
            let start = e.load_int(seq_start, sequence);
            e.add(e.div(start, e.word(per as u32)), sequence)
        };
        let last_sequence = e.sub(e.dim(layout.ty.shape[0]), e.word(1));
        let sequence =
            find_last(e, last_sequence, |sequence| e.cmp(IntPredicate::SLE, first_tile(sequence), index));
        let start = e.load_int(seq_start, sequence);
        let offset = e.times(e.sub(index, first_tile(sequence)), per);
        let end = e.load_int(seq_start, e.plus(sequence, 1));
        let position = e.add(e.load_int(e.operand("context").0, sequence), offset);
        Self { sequence, head: e.rem(e.cta(0), heads), rows: (e.add(start, offset), end), position }
    }

    /// Whether the tile has rows (i1).
    pub fn exists(&self, e: &Emit<'c, '_>) -> IntValue<'c> {
        e.cmp(IntPredicate::SLT, self.rows.0, self.rows.1)
    }
}
