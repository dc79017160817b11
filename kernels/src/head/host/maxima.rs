//! The largest of each tile of logits, so that sampling need not read them all.

use inkwell::FloatPredicate;
use nemo_ir::types::Dtype;

use crate::host::{Emit, Float, Int, Rows};

pub(super) fn tile_max(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, tile) = (e.operand("x"), e.spec().int("tile"));
    let width = x.1.ty.width().ok_or("the width of x is not constant")?;
    let (source, target) = (Rows::of(e, x), Rows::of(e, e.result()));
    let tiles = width.div_ceil(tile);
    let (whole, rest) = (width / tile, width % tile);
    let (from, to) = e.share(e.times(e.dim(x.1.ty.shape[0]), tiles));
    e.each(from, to, |item| {
        let (row, index) = (e.div(item, e.int(tiles)), e.rem(item, e.int(tiles)));
        let column = e.times(index, tile);
        let largest_of = |columns| vec![largest(e, source, row, column, columns).into()];
        let found = match (whole, rest) {
            (0, _) => largest_of(rest),
            (_, 0) => largest_of(tile),
            _ => e.choose(
                e.cmp(inkwell::IntPredicate::SLT, index, e.int(whole)),
                || largest_of(tile),
                || largest_of(rest),
            ),
        };
        e.store_scalar(target.at(e, row, index), Dtype::F32, found[0].into_float_value());
    });
    Ok(())
}

/// The largest of some columns of a row; NaN where one of them is.
pub(crate) fn largest<'c>(
    e: &Emit<'c, '_>,
    source: Rows<'c>,
    row: Int<'c>,
    column: Int<'c>,
    columns: u64,
) -> Float<'c> {
    let lowest = e.lanes(f64::NEG_INFINITY);
    let found = e.fold_columns(columns, &[lowest.into()], |at, lanes, largest| {
        let value = e.load_or(source.at(e, row, e.add(column, at)), lanes, lowest);
        let largest = largest[0].into_vector_value();
        // Neither greater nor a number: it stands. A NaN is taken, and nothing is greater than it.
        let above = e.vcmp(FloatPredicate::UGT, value, largest);
        let stands = e.vcmp(FloatPredicate::UNO, largest, largest);
        vec![e.select(stands, largest, e.select(above, value, largest)).into()]
    });
    let lanes = found[0].into_vector_value();
    let is_nan = e.any(e.vcmp(FloatPredicate::UNO, lanes, lanes));
    e.select(is_nan, e.float(f64::NAN), e.max_lane(lanes))
}
