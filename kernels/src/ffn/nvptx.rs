//! Squared ReLU and SwiGLU.

use inkwell::FloatPredicate;

use crate::nvptx::{Emit, Float, Pointwise};

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    match op {
        "relu2" => Some(relu2),
        "swiglu" => Some(swiglu),
        _ => None,
    }
}

fn relu2<'c>(e: &Emit<'c, '_>, values: &[Float<'c>]) -> Float<'c> {
    // Not a maximum: that would turn NaN into 0.
    let negative = e.fcmp(FloatPredicate::OLT, values[0], e.float(0.0));
    let positive = e.select(negative, e.float(0.0), values[0]);
    e.fmul(positive, positive)
}

fn swiglu<'c>(e: &Emit<'c, '_>, values: &[Float<'c>]) -> Float<'c> {
    e.fmul(e.silu(values[0]), values[1])
}
