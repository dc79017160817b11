//! Products of many rows on the tensor cores of every target: a CTA multiplies a tile of rows of x by a block of strips, in
//! stages that are copied while others are multiplied.
//!
//! Where the tiles of a step are fewer than a GPU's places for CTAs, several CTAs share one, each a stretch of K; the last
//! of them to be done adds their sums in order. How a tile is cut depends on shapes and the range of steps alone, so the
//! order in which an element is summed does, too.

mod input;
mod multistage;
mod split;

use inkwell::IntPredicate;
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::types::{Dim, Dtype, Symbol};

use super::cut::most_rows;
use super::epilogue::{Done, Staged, finish};
use super::plan::Plan;
use super::strips::{Blocks, STRIP};
use crate::nvptx::{
    self, COMBINING, Candidate, Emit, Float, Form, Int, Kernel, Needs, Ptr, SharedBytes, geometry,
};
use crate::spec::KernelSpec;
use crate::target::Sm;
use input::Input;
use multistage::{PIECE, Shape, Side, multiply};

/// Row tiles that are worked on together, so that a block of W is read from memory once for them.
const TOGETHER: u32 = 8;
/// Elements between the rows of staged sums, beyond their columns: no bank is met twice.
const GAP: u32 = 8;

/// How the work is cut.
pub(super) struct Cut {
    shape: Shape,
    /// Stretches of K.
    splits: u32,
    blocks: Blocks,
    /// Tiles of rows of the longest step.
    row_tiles: u64,
    norm_groups: u32,
}

/// CTAs that are at work at once: two share a multiprocessor.
fn places(sm: Sm) -> u64 {
    2 * sm.multiprocessors()
}

/// A tile's shape, by the most rows there are and the columns that an epilogue needs at once.
fn shape(plan: &Plan, rows: u64) -> Result<Shape, String> {
    let wide = plan.parts() * STRIP > 128;
    // Few rows want logits, however long the step is.
    let few = matches!(plan.rows, Dim::Symbolic { symbol: Symbol::L, .. });
    let shape = match (rows, wide) {
        (..=32, false) => Shape { rows: 32, columns: 128, depth: 32, stages: 4, warps: (1, 4) },
        (..=32, true) => Shape { rows: 32, columns: 256, depth: 32, stages: 4, warps: (1, 4) },
        (_, true) => Shape { rows: 64, columns: 256, depth: 32, stages: 4, warps: (2, 4) },
        (33..=64, false) => Shape { rows: 64, columns: 128, depth: 32, stages: 4, warps: (2, 4) },
        (_, false) if few => Shape { rows: 64, columns: 128, depth: 32, stages: 4, warps: (2, 4) },
        (_, false) => Shape { rows: 128, columns: 128, depth: 32, stages: 3, warps: (2, 4) },
    };
    if plan.parts() * STRIP > u64::from(shape.columns) {
        return Err(format!("{} columns are needed at once", plan.parts() * STRIP));
    }
    Ok(shape)
}

impl Cut {
    /// For products in bf16 whose rows, and K, are whole pieces of 16 bytes.
    pub fn of(sm: Sm, spec: &KernelSpec, plan: &Plan) -> Result<Self, String> {
        input::check(plan)?;
        let pieces = plan.k.is_multiple_of(PIECE.into());
        let [((Dtype::Bf16, _, PIECE), _)] = plan.classes()[..] else {
            return Err("the weights are not bf16 in whole pieces of 16 bytes".to_owned());
        };
        if !pieces {
            return Err(format!("a row of {} is no multiple of {PIECE} elements", plan.k));
        }
        let rows = most_rows(spec, plan.rows).max(1);
        let shape = shape(plan, rows)?;
        let blocks = Blocks::of(plan, u64::from(shape.columns) / STRIP);
        let row_tiles = rows.div_ceil(shape.rows.into());
        let tiles = blocks.count() * row_tiles;
        let steps_of_k = plan.k.div_ceil(shape.depth.into());
        // Sums that are put aside and read again are to be no more than a quarter of the weights.
        let splits = (places(sm) / tiles).min(steps_of_k / 4).min(plan.k / (16 * u64::from(shape.rows)));
        // Every stretch has its part.
        let splits = steps_of_k.div_ceil(steps_of_k.div_ceil(splits.max(1)));
        let norm_groups = plan.x.norm.as_ref().map_or(0, |norm| (plan.k / norm.group) as u32);
        Ok(Self { shape, splits: splits as u32, blocks, row_tiles, norm_groups })
    }

    /// Rows of a slice of staged sums.
    fn slice(&self) -> u32 {
        let Shape { rows, columns, warps, .. } = self.shape;
        let fits = |slice: &u32| slice * (columns + GAP) * 4 <= self.shape.ring();
        let whole = |slice: &u32| rows.is_multiple_of(*slice) && slice.is_multiple_of(16 * warps.0);
        (1..=rows).rev().filter(whole).find(fits).unwrap_or(16 * warps.0)
    }

    /// Bytes of the stages, and of the slices of sums that take their place.
    fn ring(&self) -> u32 {
        self.shape.ring().max(self.slice() * (self.shape.columns + GAP) * 4)
    }

    fn scales(&self) -> u32 {
        4 * self.shape.rows * self.norm_groups
    }

    /// Whether a multiprocessor is to hold two CTAs: while one is at its end, another multiplies.
    fn pairs(&self) -> bool {
        self.shape.columns == 128
    }

    fn candidate(&self, rows: Dim) -> Candidate {
        let Shape { rows: tile, columns, .. } = self.shape;
        let registers = if self.pairs() { 128 } else { 160 };
        Candidate {
            form: Form::Tile,
            geometry: self.geometry(rows),
            needs: Needs {
                registers,
                under_way: self.shape.ring().into(),
                again: 0,
                waits: if self.splits > 1 { 1 + COMBINING } else { 1 },
            },
            cut: Some(nvptx::Cut { rows: tile.into(), columns: columns.into(), splits: self.splits.into() }),
        }
    }

    fn geometry(&self, rows: Dim) -> Geometry {
        let blocks = self.blocks.count();
        let tiles = geometry::tiles(rows, self.shape.rows.into()).times(blocks);
        let grid = [tiles, Extent::Const(self.splits.into()), Extent::Const(1)];
        let mut shared = SharedBytes::default().and(self.ring(), 128).and(self.scales(), 16);
        let mut geometry = geometry::of(grid, self.shape.threads());
        if self.splits > 1 {
            shared = shared.and(4, 4);
            geometry.counters = blocks * self.row_tiles;
            geometry.partials = geometry.counters * u64::from(self.splits) * self.partial();
        }
        geometry.shared = shared.0;
        geometry
    }

    /// Bytes of the sums of a tile.
    fn partial(&self) -> u64 {
        u64::from(self.shape.rows) * u64::from(self.shape.columns) * 4
    }
}

/// The kernel of a plan that is cut so.
pub(super) fn kernel(plan: Plan, cut: Cut) -> Kernel {
    Kernel::of(cut.candidate(plan.rows), move |e| {
        body(e, &plan, &cut);
        Ok(())
    })
}

fn body<'c>(e: &Emit<'c, '_>, plan: &Plan, cut: &Cut) {
    let shape = cut.shape;
    if cut.pairs() {
        e.resident(2);
    }
    let ring = e.shared(cut.ring(), 128);
    let scales = e.shared(cut.scales(), 16);
    let rows = e.dim(plan.rows);
    let (row_tile, block) = place(e, cut, rows);
    let first = e.times(row_tile, shape.rows.into());
    let groups: Vec<usize> = (0..plan.groups.len()).collect();
    let x = Input::of(e, shape, plan, (first, rows), scales);
    let w = input::weights(e, shape, plan, &cut.blocks, block);
    let steps = plan.k.div_ceil(shape.depth.into()) as u32;
    let stretch = steps.div_ceil(cut.splits);
    let from = e.times(e.cta(1), stretch.into());
    let range = if cut.splits == 1 {
        (e.word(0), e.word(steps))
    } else {
        (from, e.min(e.plus(from, stretch.into()), e.word(steps)))
    };
    let sums = multiply(e, shape, ring, range, &|index, stage| {
        let k = e.times(index, shape.depth.into());
        x.fill(e, shape, (k, plan.k), stage);
        shape.copy(e, (&w, Side::W), (k, plan.k), stage);
    });
    let leave = |sums: &[Float<'c>]| {
        slices(e, cut, ring, sums, |at, staged| {
            let first = e.add(first, at);
            let left = e.min(e.sub(rows, first), e.word(cut.slice()));
            finish(e, plan, (&cut.blocks, &groups), Done { block, rows: (first, left), staged });
        });
    };
    if cut.splits == 1 {
        leave(&sums);
    } else {
        let flag = e.shared(4, 4);
        let tile = e.add(e.times(row_tile, cut.blocks.count()), block);
        split::combine(e, (cut.splits, cut.partial()), (tile, flag), &sums, leave);
    }
}

/// Which tile of rows and which block a CTA has: tiles of rows that share a block follow one another, up to [`TOGETHER`].
fn place<'c>(e: &Emit<'c, '_>, cut: &Cut, rows: Int<'c>) -> (Int<'c>, Int<'c>) {
    let index = e.cta(0);
    if cut.row_tiles == 1 {
        return (e.word(0), index);
    }
    let tiles = e.div(e.plus(rows, u64::from(cut.shape.rows - 1)), e.word(cut.shape.rows));
    raster(e, index, tiles, cut.blocks.count() as u32)
}

/// The row and column of the `index`-th tile, of so many rows and columns of them: columns in turn, [`TOGETHER`] rows high.
pub(super) fn raster<'c>(
    e: &Emit<'c, '_>,
    index: Int<'c>,
    rows: Int<'c>,
    columns: u32,
) -> (Int<'c>, Int<'c>) {
    let band = e.word(TOGETHER * columns);
    let first = e.times(e.div(index, band), TOGETHER.into());
    let inside = e.rem(index, band);
    let height = e.min(e.sub(rows, first), e.word(TOGETHER));
    (e.add(first, e.rem(inside, height)), e.div(inside, height))
}

/// Puts sums into shared memory, slice by slice, and has `take` finish each, given its first row of the tile.
fn slices<'c>(
    e: &Emit<'c, '_>,
    cut: &Cut,
    space: Ptr<'c>,
    sums: &[Float<'c>],
    take: impl FnOnce(Int<'c>, Staged<'c>),
) {
    let Shape { rows, columns, warps, .. } = cut.shape;
    let (slice, stride) = (cut.slice(), columns + GAP);
    let (count, height) = (rows / slice, 16 * warps.0);
    let staged = Staged { base: space, stride: stride.into(), parts: 1, part: 0 };
    let (warp, lane) = (e.warp(), e.lane());
    let row = e.add(e.times(e.div(warp, e.word(warps.1)), 16), e.shift_right(lane, 2));
    let own = 8 * cut.shape.column_blocks();
    let column = e.times(e.rem(warp, e.word(warps.1)), own.into());
    let column = e.add(column, e.times(e.and(lane, e.word(3)), 2));
    let place = e.at(space, Dtype::F32, e.add(e.times(row, stride.into()), column));
    let of_slice = sums.len() / count as usize;
    let line = 4 * cut.shape.column_blocks() as usize;
    e.each(e.word(0), e.word(count), |index| {
        for at in 0..of_slice / 4 {
            // Registers have no index: a chain of choices takes the slice's own.
            let own = |number: usize| {
                let number = 4 * at + number;
                (1..count).fold(sums[number], |own, other| {
                    let is = e.cmp(IntPredicate::EQ, index, e.word(other));
                    e.select(is, sums[other as usize * of_slice + number], own)
                })
            };
            let (block, column) = (4 * at / line, 4 * at % line / 4);
            let offset = block as u32 * height * stride + 8 * column as u32;
            for (half, offset) in [(0, offset), (2, offset + 8 * stride)] {
                let place = e.at(place, Dtype::F32, e.word(offset));
                e.store(place, Dtype::F32, &[own(half), own(half + 1)], 2);
            }
        }
        e.barrier();
        take(e.times(index, slice.into()), staged);
        if count > 1 {
            e.barrier();
        }
    });
}
