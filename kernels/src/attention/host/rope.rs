//! Rotation of the two halves of each head by the angle of the token's position.

use nemo_ir::types::Dtype;

use crate::host::Emit;

pub(super) fn rope(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, table, y) = (e.operand("x"), e.operand("table"), e.result());
    let (positions, _) = e.operand("positions");
    let (Some(head_dim), Some(width)) = (table.1.ty.width(), x.1.ty.width()) else {
        return Err("the table's shape is not constant".to_owned());
    };
    let (half, heads) = (head_dim / 2, width / head_dim);
    let (from, to) = e.share(e.times(e.dim(x.1.ty.shape[0]), heads));
    e.each(from, to, |item| {
        let row = e.div(item, e.int(heads));
        let head = e.times(e.rem(item, e.int(heads)), head_dim);
        // A padded row has no position; its result is never read, so any row of the table will do.
        let position = e.max(e.load_int(positions, row), e.int(0));
        let angles = e.row(table, position);
        let (source, target) = (e.row(x, row), e.row(y, row));
        e.columns(half, |at, lanes| {
            let element = |offset: u64| e.plus(e.add(head, at), offset);
            let load = |offset| e.load(e.at(source, x.1.dtype(), element(offset)), x.1.dtype(), lanes);
            let angle = |offset| e.load(e.at(angles, Dtype::F32, e.plus(at, offset)), Dtype::F32, lanes);
            let (low, high, cos, sin) = (load(0), load(half), angle(0), angle(half));
            let store = |offset, value| {
                e.store(e.at(target, y.1.dtype(), element(offset)), y.1.dtype(), lanes, value);
            };
            store(0, e.fsub(e.fmul(low, cos), e.fmul(high, sin)));
            store(half, e.fadd(e.fmul(high, cos), e.fmul(low, sin)));
        });
    });
    Ok(())
}
