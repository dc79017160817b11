//! f32 arithmetic in the rounding modes that the host does not have.
//!
//! Results are first computed in f64 with "rounding to odd": where the f64 is inexact, its last bit is one.
//! Rounding such a number to 24 bits, in whichever direction, gives what rounding the true result would have.

use crate::tensor::float::{Narrowing, Rounding, f64_to_f32};

/// `.rz`.
pub(super) const ZERO: u8 = 0;
/// `.rm`.
pub(super) const DOWN: u8 = 1;
/// `.rp`.
pub(super) const UP: u8 = 2;

/// Rounds to f32.
pub(super) fn round<const MODE: u8>(value: f64) -> f32 {
    let rounding = match MODE {
        ZERO => Rounding::Zero,
        DOWN => Rounding::Down,
        _ => Rounding::Up,
    };
    f64_to_f32(value, Narrowing::rounding(rounding))
}

/// Moves an inexact result to the odd one of its two neighbours; `error` has the sign of what is missing.
fn odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || error.is_nan() || !value.is_finite() || value == 0.0 || value.to_bits() & 1 == 1 {
        return value;
    }
    let outwards = (error > 0.0) == (value > 0.0);
    f64::from_bits(if outwards { value.to_bits() + 1 } else { value.to_bits() - 1 })
}

/// A sum.
pub(super) fn add<const MODE: u8>(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let part = sum - a;
    let error = (a - (sum - part)) + (b - part);
    // A sum that cancels is minus zero when rounding down.
    if sum == 0.0 && MODE == DOWN && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative()) {
        return -0.0;
    }
    odd(sum, error)
}

/// A quotient of numbers that are f32.
pub(super) fn div(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    let remainder = (-quotient).mul_add(b, a);
    odd(quotient, if b < 0.0 { -remainder } else { remainder })
}

/// A square root of a number that is f32.
pub(super) fn sqrt(a: f64) -> f64 {
    let root = a.sqrt();
    odd(root, (-root).mul_add(root, a))
}
