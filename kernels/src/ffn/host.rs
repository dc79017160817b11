//! Squared ReLU and SwiGLU.

use inkwell::FloatPredicate;

use crate::host::{Emit, Generator};

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "relu2" => Some(relu2),
        "swiglu" => Some(swiglu),
        _ => None,
    }
}

fn relu2(e: &Emit<'_, '_>) -> Result<(), String> {
    e.map(&["x"], |values| {
        // Not a maximum: that would turn NaN into 0.
        let negative = e.vcmp(FloatPredicate::OLT, values[0], e.lanes(0.0));
        let positive = e.select(negative, e.lanes(0.0), values[0]);
        e.fmul(positive, positive)
    });
    Ok(())
}

fn swiglu(e: &Emit<'_, '_>) -> Result<(), String> {
    e.map(&["gate", "up"], |values| e.fmul(e.silu(values[0]), values[1]));
    Ok(())
}
