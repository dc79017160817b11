//! How the strips of a block lie in boxes of weights, and where their sums belong.
//!
//! A box is a stretch of a weight's rows. So the strips of a stage do not come in the order of their units: columns of one
//! product follow one another, and strips find their places when sums are staged.

use nemo_ir::plan::{Extent, TensorMap};
use nemo_ir::types::{Dim, Dtype};

use super::ring::DEPTH;
use crate::linear::nvptx::plan::{Group, Plan, Rows};
use crate::linear::nvptx::sink::Sink;
use crate::linear::nvptx::strips::{Blocks, STRIP};
use crate::nvptx::{Emit, Int};

/// The strips of a group's blocks.
pub(super) struct Boxes {
    /// Rows of a weight that are copied into each block, one stretch after the other.
    pub stretches: Vec<Stretch>,
    /// The place of each strip of a stage among those of the block.
    pub places: Vec<u32>,
    /// Rows of a weight from unit to unit: `rows` for every `units`.
    rows: u64,
    units: u64,
}

/// Rows of one weight.
pub(super) struct Stretch {
    /// Index of its tensor map.
    pub map: usize,
    /// The weight's row where the product begins.
    first: u64,
    /// How many rows a box has.
    pub rows: u32,
}

impl Boxes {
    /// Those of a group, whose tensor maps join `maps`; an error where a block's strips are no stretches of rows.
    pub fn of(plan: &Plan, blocks: &Blocks, group: usize, maps: &mut Vec<TensorMap>) -> Result<Self, String> {
        let (units, group) = (blocks.units(group), &plan.groups[group]);
        let parts = group.parts();
        if units * parts != blocks.strips {
            return Err(format!("{} strips are no whole units of {parts}", blocks.strips));
        }
        let place = |unit: u64, part: u64| (part * units + unit) as u32;
        let (products, places, (rows, every)): (_, Vec<u32>, _) = match (&group.sink, group.span()) {
            (_, Some(span)) => {
                let pieces = span.piece / STRIP;
                if !span.piece.is_multiple_of(STRIP) || !units.is_multiple_of(pieces) {
                    return Err(format!("{units} units are no whole heads of {}", span.head_dim));
                }
                // A head lies as the pieces of its first part, then those of its second.
                let of = |strip: u64| {
                    let (head, inside) = (strip / (parts * pieces), strip % (parts * pieces));
                    place(head * pieces + inside % pieces, inside / pieces)
                };
                (1, (0..blocks.strips).map(of).collect(), (span.head_dim, pieces))
            }
            (Sink::Maxima { tile, .. }, None) => {
                if !tile.is_multiple_of(STRIP) {
                    return Err(format!("tiles of {tile} columns are not whole strips"));
                }
                let of = |strip: u64| place(strip / parts, strip % parts);
                (1, (0..blocks.strips).map(of).collect(), (*tile, 1))
            }
            (_, None) => {
                // The columns of one product, then those of the next.
                let of = |strip: u64| place(strip % units, strip / units);
                (parts, (0..blocks.strips).map(of).collect(), (STRIP, 1))
            }
        };
        let stretches = stretches(group, (blocks.strips / products * STRIP) as u32, maps)?;
        Ok(Self { stretches, places, rows, units: every })
    }

    /// The row of a stretch's weight where its box of a block begins, given the block's first unit.
    pub fn first_row<'c>(&self, e: &Emit<'c, '_>, stretch: &Stretch, unit: Int<'c>) -> Int<'c> {
        let row = e.times(e.div(unit, e.word(self.units as u32)), self.rows);
        e.plus(row, stretch.first)
    }
}

fn stretches(group: &Group, rows: u32, maps: &mut Vec<TensorMap>) -> Result<Vec<Stretch>, String> {
    let stretch = |product: &crate::linear::nvptx::plan::Product| {
        let Dim::Const(all) = product.weight.layout.ty.shape[0] else {
            return Err("the weight's shape is not constant".to_owned());
        };
        let own = map(&product.weight, Extent::Const(all), rows)?;
        let found = maps.iter().position(|map| *map == own);
        let map = found.unwrap_or_else(|| {
            maps.push(own);
            maps.len() - 1
        });
        Ok(Stretch { map, first: product.first, rows })
    };
    group.products.iter().map(stretch).collect()
}

/// The map of a matrix in bf16 that is read in boxes of so many rows.
pub(super) fn map(matrix: &Rows, rows: Extent, box_rows: u32) -> Result<TensorMap, String> {
    let layout = &matrix.layout;
    let columns = matrix.width().ok_or("a matrix has a constant width")?;
    if layout.dtype() != Dtype::Bf16 || layout.vector() < 8 {
        return Err("a matrix is not bf16 in rows of whole pieces of 16 bytes".to_owned());
    }
    let row_bytes = 2 * layout.row_stride;
    let (arg, dtype) = (matrix.arg, layout.dtype());
    Ok(TensorMap { arg, dtype, rows, columns, row_bytes, box_rows, box_columns: DEPTH, swizzle: 128 })
}
