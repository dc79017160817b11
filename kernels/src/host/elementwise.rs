//! Ops that compute each element from the elements at its place: each is lowered once, on lanes, for its
//! own kernel and for the end of others.

use super::emit::Emit;
use crate::emit::Lanes;
use crate::{ffn, linear};

/// The value of an element-wise op, given those of its operands, in f32.
pub(crate) type Pointwise = for<'c, 'm> fn(&Emit<'c, 'm>, &[Lanes<'c>]) -> Lanes<'c>;

/// The lowering of the op of that name; `None` for one that is not element-wise.
pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    ffn::host::pointwise(op).or_else(|| linear::host::pointwise(op))
}

/// The kernel of an element-wise op alone; threads share the columns.
pub(crate) fn map(e: &Emit<'_, '_>) -> Result<(), String> {
    let lowered = pointwise(e.spec().op.name).ok_or("the op is not element-wise")?;
    let sources: Vec<_> = e.spec().op.operands.iter().map(|operand| e.operand(operand.name)).collect();
    let target = e.result();
    let rows = e.dim(target.1.ty.shape[0]);
    e.share_columns(target.1.ty.width().unwrap_or(0), |column, lanes| {
        e.each(e.int(0), rows, |row| {
            let load = |source: &(_, &crate::spec::Layout)| {
                let dtype = source.1.ty.dtype;
                e.load(e.at(e.row(*source, row), dtype, column), dtype, lanes)
            };
            let values: Vec<_> = sources.iter().map(load).collect();
            let dtype = target.1.ty.dtype;
            e.store(e.at(e.row(target, row), dtype, column), dtype, lanes, lowered(e, &values));
        });
    });
    Ok(())
}
