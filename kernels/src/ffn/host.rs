//! Squared ReLU and SwiGLU.

use inkwell::FloatPredicate;

use crate::host::{Emit, Lanes, Pointwise};

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    match op {
        "relu2" => Some(relu2),
        "swiglu" => Some(swiglu),
        _ => None,
    }
}

fn relu2<'c>(e: &Emit<'c, '_>, values: &[Lanes<'c>]) -> Lanes<'c> {
    // Not a maximum: that would turn NaN into 0.
    let negative = e.vcmp(FloatPredicate::OLT, values[0], e.lanes(0.0));
    let positive = e.select(negative, e.lanes(0.0), values[0]);
    e.fmul(positive, positive)
}

fn swiglu<'c>(e: &Emit<'c, '_>, values: &[Lanes<'c>]) -> Lanes<'c> {
    e.fmul(e.silu(values[0]), values[1])
}
