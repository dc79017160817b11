//! Products of many rows on the tensor cores of sm_90a: a CTA multiplies 128 rows of x by 128 or 256 columns, by
//! instructions of whole warpgroups whose operands the tensor memory accelerator brings into shared memory.
//!
//! It can be had where
//!
//! * x and the weights are bf16 whose rows are whole pieces of 16 bytes, and x is read as it is, and
//! * the strips of a block lie in a stretch of rows of each weight ([`boxes`]).
//!
//! Any number of rows, of columns and any K will do: what is read past them is zero.

mod boxes;
mod ring;

use inkwell::IntPredicate;
use nemo_ir::plan::{Extent, Geometry, TensorMap};
use nemo_ir::types::{Dim, Dtype};

use super::cut::most_rows;
use super::epilogue::{Done, Staged, finish};
use super::plan::Plan;
use super::strips::{Blocks, STRIP};
use super::tile::raster;
use crate::nvptx::{self, Candidate, Emit, Float, Form, Int, Kernel, Needs, Ptr, SharedBytes, geometry};
use crate::spec::KernelSpec;
use crate::target::Sm;
use boxes::Boxes;
use ring::{DEPTH, MULTIPLYING, ROW_BYTES, ROWS, Ring, THREADS, multiply};

/// Elements between the rows of staged sums, beyond their columns: no bank is met twice.
const GAP: u32 = 8;
/// A swizzled stage begins at such a multiple of bytes.
const ALIGNED: u32 = 1024;

/// How the work is cut.
pub(super) struct Cut {
    ring: Ring,
    blocks: Blocks,
    /// For each group.
    boxes: Vec<Boxes>,
    /// Of x, then of weights.
    maps: Vec<TensorMap>,
}

impl Cut {
    /// Where the kernel can be had; the reason where not.
    pub fn of(sm: Sm, spec: &KernelSpec, plan: &Plan) -> Result<Self, String> {
        let rows = most_rows(spec, plan.rows);
        if sm != Sm::Sm90 {
            return Err(format!("{} has no instructions of warpgroups", sm.name()));
        }
        if plan.x.norm.is_some() || plan.x.indices.is_some() {
            return Err("x is not read as it is".to_owned());
        }
        let wide = Self::with(plan, 256);
        let tiles = |cut: &Self| cut.blocks.count() * rows.div_ceil(ROWS.into());
        // Wide tiles read less; where they are too few, narrow ones occupy more multiprocessors.
        match wide {
            Ok(wide) if tiles(&wide) >= sm.multiprocessors() => Ok(wide),
            wide => Self::with(plan, 128).or(wide),
        }
    }

    /// With tiles of so many columns.
    fn with(plan: &Plan, columns: u32) -> Result<Self, String> {
        let strips = u64::from(columns) / STRIP;
        if plan.parts() > strips {
            return Err(format!("{} strips are needed at once", plan.parts()));
        }
        let blocks = Blocks::of(plan, strips);
        let mut maps = vec![boxes::map(&plan.x.x, geometry::rows(plan.rows), ROWS)?];
        let boxes = (0..plan.groups.len()).map(|group| Boxes::of(plan, &blocks, group, &mut maps));
        let boxes = boxes.collect::<Result<_, _>>()?;
        Ok(Self { ring: Ring { columns, stages: 4 }, blocks, boxes, maps })
    }

    fn candidate(&self, rows: Dim) -> Candidate {
        Candidate {
            form: Form::Warpgroup,
            geometry: self.geometry(rows),
            needs: Needs { registers: 168, under_way: self.ring.bytes().into(), again: 0, waits: 1 },
            cut: Some(nvptx::Cut { rows: ROWS.into(), columns: self.ring.columns.into(), splits: 1 }),
        }
    }

    fn geometry(&self, rows: Dim) -> Geometry {
        let tiles = geometry::tiles(rows, ROWS.into()).times(self.blocks.count());
        let shared = SharedBytes::default().and(self.ring.bytes(), ALIGNED).and(self.ring.barriers(), 8);
        let grid = [tiles, Extent::Const(1), Extent::Const(1)];
        Geometry { shared: shared.0, maps: self.maps.clone(), ..geometry::of(grid, THREADS) }
    }
}

/// The kernel of a plan that is cut so.
pub(super) fn kernel(plan: Plan, cut: Cut) -> Kernel {
    Kernel::of(cut.candidate(plan.rows), move |e| {
        body(e, &plan, &cut);
        Ok(())
    })
}

fn body(e: &Emit<'_, '_>, plan: &Plan, cut: &Cut) {
    let ring = cut.ring;
    let stages = e.shared(ring.bytes(), ALIGNED);
    let barriers = e.shared(ring.barriers(), 8);
    let rows = e.dim(plan.rows);
    let tiles = e.div(e.plus(rows, u64::from(ROWS - 1)), e.word(ROWS));
    let (row_tile, block) = raster(e, e.cta(0), tiles, cut.blocks.count() as u32);
    let first = e.times(row_tile, ROWS.into());
    let groups: Vec<usize> = (0..plan.groups.len()).collect();
    let count = e.word(plan.k.div_ceil(DEPTH.into()) as u32);
    let sums = multiply(e, ring, (stages, barriers), count, &|index, stage, full| {
        let k = e.times(index, DEPTH.into());
        e.copy_box(stage, e.map(0), (k, first), full);
        cut.blocks.when_of(e, &groups, block, |group| {
            let unit = cut.blocks.first_unit(e, group, block);
            let boxes = &cut.boxes[group];
            let mut row = ROWS;
            for stretch in &boxes.stretches {
                let place = e.offset(stage, e.word(row * ROW_BYTES));
                e.copy_box(place, e.map(stretch.map), (k, boxes.first_row(e, stretch, unit)), full);
                row += stretch.rows;
            }
        });
    });
    let left = e.min(e.sub(rows, first), e.word(ROWS));
    cut.blocks.when_of(e, &groups, block, |group| {
        let staged = stage(e, ring, stages, &sums, &cut.boxes[group].places);
        e.barrier();
        finish(e, plan, (&cut.blocks, &[group]), Done { block, rows: (first, left), staged });
    });
}

/// Puts sums into shared memory, each strip at its place.
fn stage<'c>(e: &Emit<'c, '_>, ring: Ring, space: Ptr<'c>, sums: &[Float<'c>], places: &[u32]) -> Staged<'c> {
    let stride = ring.columns + GAP;
    e.when(e.cmp(IntPredicate::ULT, e.warp(), e.word(MULTIPLYING)), || {
        let row: Int<'c> = e.add(e.times(e.warp(), 16), e.shift_right(e.lane(), 2));
        let column = e.times(e.and(e.lane(), e.word(3)), 2);
        let own = e.at(space, Dtype::F32, e.add(e.times(row, stride.into()), column));
        for (block, sums) in sums.chunks(4).enumerate() {
            // Two blocks of eight columns are a strip.
            let column = places[block / 2] * STRIP as u32 + 8 * (block as u32 % 2);
            for (half, row) in [(0, 0), (2, 8)] {
                let place = e.at(own, Dtype::F32, e.word(row * stride + column));
                e.store(place, Dtype::F32, &sums[half..half + 2], 2);
            }
        }
    });
    Staged { base: space, stride: stride.into(), parts: 1, part: 0 }
}
