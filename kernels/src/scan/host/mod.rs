//! Mamba-2 on the CPU.
//!
//! The state of a head is stored state-major, `[state, head_dim]`: lanes run along head_dim in every
//! product, and no sum crosses lanes.

mod chunked;
mod conv;
mod gemm;
mod heads;
mod recurrent;

use inkwell::FloatPredicate;

use crate::host::{Emit, Generator};

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "causal_conv1d" => Some(conv::causal_conv1d),
        "dt_softplus" => Some(dt_softplus),
        "ssd_recurrent" => Some(recurrent::ssd_recurrent),
        "ssd_chunked" => Some(chunked::ssd_chunked),
        _ => None,
    }
}

fn dt_softplus(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, (bias, _), y) = (e.operand("dt"), e.operand("bias"), e.result());
    let (low, high) = (e.spec().float("min"), e.spec().float("max"));
    let rows = e.dim(x.1.ty.shape[0]);
    let (from, dtype) = (x.1.ty.dtype, y.1.ty.dtype);
    e.share_columns(x.1.ty.width().unwrap_or(0), |column, lanes| {
        let bias = e.load(e.at(bias, dtype, column), dtype, lanes);
        e.each(e.int(0), rows, |row| {
            let raw = e.load(e.at(e.row(x, row), from, column), from, lanes);
            // Comparisons, not extrema, so that NaN stays NaN.
            let mut step = e.softplus(e.fadd(raw, bias));
            if low > 0.0 {
                let below = e.vcmp(FloatPredicate::OLT, step, e.lanes(low));
                step = e.select(below, e.lanes(low), step);
            }
            if high.is_finite() {
                let above = e.vcmp(FloatPredicate::OGT, step, e.lanes(high));
                step = e.select(above, e.lanes(high), step);
            }
            e.store(e.at(e.row(y, row), dtype, column), dtype, lanes, step);
        });
    });
    Ok(())
}
