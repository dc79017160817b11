//! The largest of each tile of logits, so that sampling need not read them all.

use inkwell::IntPredicate;
use nemo_ir::plan::Extent;

use super::stream::{Stretch, stream};
use crate::nvptx::{Kernel, geometry};
use crate::spec::KernelSpec;

/// Threads of a CTA, whose warps take a tile each.
const THREADS: u32 = 128;
const WARPS: u64 = 4;

pub(super) fn kernel(spec: &KernelSpec) -> Result<Kernel, String> {
    let (x, y) = (spec.operand("x").1, &spec.results[0]);
    let width = x.ty.width().ok_or("the width of x is not constant")?;
    let (tile, tiles) = (spec.int("tile"), y.ty.width().ok_or("the number of tiles is not constant")?);
    if width.saturating_add(tile) > i32::MAX as u64 {
        return Err(format!("tiles of {tile} in {width} columns exceed what 32 bits index"));
    }
    // A tile begins and ends at whole pieces, and so does the row.
    let vector = x.vector().min(1 << width.trailing_zeros().min(tile.trailing_zeros()).min(2));
    let grid = [geometry::rows(x.ty.shape[0]), Extent::Const(tiles.div_ceil(WARPS)), Extent::Const(1)];
    Ok(Kernel::new(geometry::of(grid, THREADS), move |e| {
        let row = e.cta(0);
        let index = e.add(e.times(e.cta(1), WARPS), e.warp());
        e.when(e.cmp(IntPredicate::ULT, index, e.word(tiles as u32)), || {
            let start = e.times(index, tile);
            let stretch = Stretch {
                base: e.row(e.operand("x"), row),
                from: e.add(start, e.times(e.lane(), vector.into())),
                to: e.min(e.plus(start, tile), e.word(width as u32)),
                vector,
                stride: 32 * vector,
            };
            let lowest = e.float(f64::NEG_INFINITY);
            let largest = stream::<2>(e, &stretch, &[lowest.into()], |_, x, largest| {
                vec![e.maximum(x, largest[0].into_float_value()).into()]
            });
            let largest = e.across(largest[0].into_float_value(), 32, |a, b| e.maximum(a, b));
            e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
                let y = e.row(e.result(), row);
                e.store_aligned(e.at(y, nemo_ir::types::Dtype::F32, index), largest, 4);
            });
        });
        Ok(())
    }))
}
