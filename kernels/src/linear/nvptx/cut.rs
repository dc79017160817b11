//! What the kernels of few rows share: tiles of rows, and CTAs that share K.

use nemo_ir::plan::Extent;
use nemo_ir::types::{Dim, Dtype, Symbol};

use super::epilogue::{Done, Staged};
use crate::nvptx::{Emit, Int, SharedBytes, geometry};
use crate::spec::KernelSpec;
use crate::target::Sm;

const F32: Dtype = Dtype::F32;
/// The most CTAs that share K.
const MOST_SPLITS: u64 = 8;

/// The most rows that a step has.
pub(super) fn most_rows(spec: &KernelSpec, rows: Dim) -> u64 {
    let steps = spec.steps.expect("`kernel` refuses specs without steps");
    match rows {
        Dim::Const(n) => n,
        Dim::Symbolic { factor, symbol: Symbol::R } => factor * steps.max_seqs,
        Dim::Symbolic { factor, .. } => factor * steps.max_tokens,
    }
}

/// How many CTAs share K, so that a card is busy: each has two of the rounds that its warps make at least.
pub(super) fn splits(sm: Sm, blocks: u64, rounds: u64) -> u64 {
    (sm.multiprocessors() / blocks).clamp(1, MOST_SPLITS).min((rounds / 2).max(1))
}

/// The most CTAs along y.
const MOST_BLOCKS: u64 = 65_535;

/// CTAs for each tile of rows, block of columns and share of K. Tiles of the same weights follow one another, so that the
/// second finds them in cache.
pub(super) fn grid(tiles: Rows16, blocks: u64, splits: u64) -> Result<[Extent; 3], String> {
    if blocks > MOST_BLOCKS {
        return Err(format!("{blocks} blocks of columns exceed the {MOST_BLOCKS} that a grid takes"));
    }
    Ok([tiles.extent(), Extent::Const(blocks), Extent::Const(splits)])
}

/// Tiles of up to 16 rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows16 {
    pub dim: Dim,
    /// Rows of a tile.
    pub rows: u64,
    /// The most rows of a step.
    pub most: u64,
}

impl Rows16 {
    pub fn extent(&self) -> Extent {
        geometry::tiles(self.dim, self.rows)
    }

    /// The most tiles.
    pub fn count(&self) -> u64 {
        self.most.div_ceil(self.rows)
    }

    /// The first row of a tile, and how many there are.
    pub fn of_tile<'c>(&self, e: &Emit<'c, '_>, tile: Int<'c>) -> (Int<'c>, Int<'c>) {
        let first = e.times(tile, self.rows);
        (first, e.min(e.sub(e.dim(self.dim), first), e.word(self.rows as u32)))
    }
}

/// CTAs that share K: the last of them adds what all have left in the workspace, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splits {
    /// How many.
    pub count: u64,
    /// Rows of a tile.
    pub rows: u64,
    /// Columns of a block.
    pub columns: u64,
}

impl Splits {
    pub fn counters(&self, tiles: u64, blocks: u64) -> u64 {
        if self.count > 1 { tiles * blocks } else { 0 }
    }

    pub fn partials(&self, tiles: u64, blocks: u64) -> u64 {
        self.counters(tiles, blocks) * self.count * self.rows * self.columns * 4
    }

    /// With the shared memory that it takes.
    pub fn space(&self, sum: SharedBytes) -> SharedBytes {
        if self.count > 1 { sum.and(4, 4) } else { sum }
    }

    /// Runs `body` where all of K is in the sums. All threads come here after a barrier; the tile's index along x and the
    /// number of blocks say which counter it is.
    pub fn when_complete<'c>(
        &self,
        e: &Emit<'c, '_>,
        (tile, blocks): (Int<'c>, u64),
        done: Done<'c>,
        body: impl FnOnce(Done<'c>),
    ) {
        if self.count == 1 {
            body(done);
            return;
        }
        let space = e.shared(4, 4);
        let which = e.add(e.times(tile, blocks), done.block);
        let part = self.rows * self.columns;
        let all = e.times(e.long(which), self.count * part);
        let base = e.at(e.partials(), F32, all);
        let own = e.at(base, F32, e.times(e.cta(2), part));
        let per_row = self.columns / 4;
        e.each_strided(e.times(done.rows.1, per_row), |item| {
            let row = e.div(item, e.word(per_row as u32));
            let column = e.times(e.rem(item, e.word(per_row as u32)), 4);
            let sums = done.staged.load(e, row, column, 4);
            e.store(e.at(own, F32, e.add(e.times(row, self.columns), column)), F32, &sums, 4);
        });
        let counter = e.at(e.counters(), F32, which);
        e.when(e.is_last_cta(counter, e.word(self.count as u32), space), || {
            let staged = Staged { base, stride: self.columns, parts: self.count, part };
            body(Done { staged, ..done });
        });
    }
}
