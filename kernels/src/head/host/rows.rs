//! Rows chosen by index.

use inkwell::IntPredicate;

use crate::host::{Any, Emit, Int, Ptr};
use crate::spec::Layout;

pub(super) fn embed(e: &Emit<'_, '_>) -> Result<(), String> {
    copy_rows(e, e.operand("table"), e.operand("tokens"));
    Ok(())
}

pub(super) fn gather_rows(e: &Emit<'_, '_>) -> Result<(), String> {
    copy_rows(e, e.operand("x"), e.operand("rows"));
    Ok(())
}

/// Row i of the result is row `indices[i]` of `source`, or zeros where that is negative.
fn copy_rows<'c>(e: &Emit<'c, '_>, source: (Ptr<'c>, &Layout), indices: (Ptr<'c>, &Layout)) {
    let y = e.result();
    let count = e.dim(indices.1.ty.shape[0]);
    e.share_columns(y.1.ty.width().unwrap_or(0), |column, lanes| {
        e.each(e.int(0), count, |row| {
            let index: Int<'c> = e.load_int(indices.0, row);
            let value = e.choose(
                e.cmp(IntPredicate::SGE, index, e.int(0)),
                || {
                    let from = e.at(e.row(source, index), source.1.dtype(), column);
                    vec![e.load(from, source.1.dtype(), lanes).into()]
                },
                || -> Vec<Any<'c>> { vec![e.lanes(0.0).into()] },
            );
            let to = e.at(e.row(y, row), y.1.dtype(), column);
            e.store(to, y.1.dtype(), lanes, value[0].into_vector_value());
        });
    });
}
