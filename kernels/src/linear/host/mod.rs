//! Products with weights, and residual addition.

mod product;

use crate::host::{Emit, Generator};

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "linear" => Some(product::linear),
        "add" => Some(add),
        _ => None,
    }
}

fn add(e: &Emit<'_, '_>) -> Result<(), String> {
    e.map(&["a", "b"], |values| e.fadd(values[0], values[1]));
    Ok(())
}
