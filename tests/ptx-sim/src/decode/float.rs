//! Arithmetic of f32 and f64.
//!
//! What the card approximates is computed with the functions of the standard library in f32, so the results
//! are closer to the true ones than the card's: within one last place.

use super::cx::{Cx, Result};
use super::exact::{self, DOWN, UP, ZERO};
use super::lanes::{cmp, d1, d2, d3, lanes, w1, w2};
use super::op::*;
use crate::tensor::float::{f32_bits, flush};

/// A function of f32 lanes in its plain, `.ftz`, `.sat` and `.ftz.sat` form.
macro_rules! f32_lanes {
    ($fn:ty, $ftz:expr, $sat:expr; $($a:ident),+ => $e:expr) => {
        match ($ftz, $sat) {
            (false, false) => lanes!(u32; $($a: u32),+; { $(let $a = f32::from_bits($a);)+ f32_bits($e) }) as $fn,
            (true, false) => {
                lanes!(u32; $($a: u32),+; { $(let $a = flush(f32::from_bits($a));)+ f32_bits(flush($e)) }) as $fn
            }
            (false, true) => {
                lanes!(u32; $($a: u32),+; { $(let $a = f32::from_bits($a);)+ f32_bits(saturate($e)) }) as $fn
            }
            (true, true) => lanes!(u32; $($a: u32),+; {
                $(let $a = flush(f32::from_bits($a));)+
                f32_bits(flush(saturate($e)))
            }) as $fn,
        }
    };
}

/// An expression in `f64` rounded in one of the directed modes.
macro_rules! directed {
    ($fn:ty, $mode:expr, $ftz:expr, $sat:expr; $($a:ident),+ => $e:expr, $m:ident) => {{
        macro_rules! one {
            ($mode_value:ident) => {
                f32_lanes!($fn, $ftz, $sat; $($a),+ => {
                    const $m: u8 = $mode_value;
                    $(let $a = f64::from($a);)+
                    exact::round::<$m>($e)
                })
            };
        }
        match $mode {
            ZERO => one!(ZERO),
            DOWN => one!(DOWN),
            _ => one!(UP),
        }
    }};
}

/// `.sat`: into 0 to 1, NaN to 0.
fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// `min` where a NaN gives way to a number and -0 is less than +0.
pub(super) fn min(a: f32, b: f32) -> f32 {
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

/// `max` where a NaN gives way to a number and +0 is more than -0.
pub(super) fn max(a: f32, b: f32) -> f32 {
    if b.is_nan() || a > b || (a == b && b.is_sign_negative()) { a } else { b }
}

/// The result of `min` or `max` unless an operand is NaN.
pub(super) fn nan_or(a: f32, b: f32, value: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { value }
}

/// `.xorsign.abs`: the value with the product of the signs.
pub(super) fn xor_sign(a: f32, b: f32, value: f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    f32::from_bits(value.to_bits() & 0x7fff_ffff | sign)
}

/// `div.approx`: zero for divisors beyond 2^126, as documented.
fn div_approx(a: f32, b: f32) -> f32 {
    let huge = b.is_finite() && b.abs() > f32::from_bits(253 << 23);
    if huge && !a.is_nan() {
        return if a.is_infinite() { f32::NAN } else { xor_sign(a, b, 0.0) };
    }
    a / b
}

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match cx.ty()? {
        "f32" => match base {
            "testp" => test(cx, false),
            "copysign" => {
                cx.finish(3)?;
                let f = w2!(a, b => a & 0x8000_0000 | b & 0x7fff_ffff);
                let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
                cx.emit(Kind::Float, op)
            }
            _ => single(cx, base),
        },
        "f64" => match base {
            "testp" => test(cx, true),
            _ => double(cx, base),
        },
        _ => cx.unknown(),
    }
}

/// Rounding: `None` to nearest even.
fn rounding(cx: &mut Cx<'_, '_>) -> Option<u8> {
    cx.take_of(&[("rn", None), ("rz", Some(ZERO)), ("rm", Some(DOWN)), ("rp", Some(UP))]).flatten()
}

fn single(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let approximate = cx.take("approx");
    let full = cx.take("full");
    let ftz = cx.take("ftz");
    let sat = cx.take("sat");
    let mode = rounding(cx);
    match base {
        "min" | "max" => return extreme(cx, base, ftz),
        "abs" | "neg" => {
            cx.finish(2)?;
            let f = match (base, ftz) {
                ("abs", false) => w1!(a => a & 0x7fff_ffff),
                ("abs", true) => w1!(a => flush(f32::from_bits(a & 0x7fff_ffff)).to_bits()),
                (_, false) => w1!(a => a ^ 0x8000_0000),
                (_, true) => w1!(a => flush(f32::from_bits(a ^ 0x8000_0000)).to_bits()),
            };
            let op = Op::W1(f, cx.w_dst(0, 32)?, cx.w(1, 32)?);
            return cx.emit(Kind::Float, op);
        }
        _ => {}
    }
    let three = matches!(base, "fma" | "mad");
    if three {
        cx.finish(4)?;
        let f = match mode {
            None => f32_lanes!(FnW3, ftz, sat; a, b, c => a.mul_add(b, c)),
            Some(mode) => directed!(FnW3, mode, ftz, sat; a, b, c => exact::add::<M>(a * b, c), M),
        };
        let op = Op::W3(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?);
        return cx.emit(Kind::Fma, op);
    }
    if matches!(base, "add" | "sub" | "mul" | "div") {
        cx.finish(3)?;
        let f = match (base, mode) {
            ("add", None) => f32_lanes!(FnW2, ftz, sat; a, b => a + b),
            ("sub", None) => f32_lanes!(FnW2, ftz, sat; a, b => a - b),
            ("mul", None) => f32_lanes!(FnW2, ftz, sat; a, b => a * b),
            ("div", None) if approximate => f32_lanes!(FnW2, ftz, sat; a, b => div_approx(a, b)),
            ("div", None) => f32_lanes!(FnW2, ftz, sat; a, b => a / b),
            ("add", Some(mode)) => directed!(FnW2, mode, ftz, sat; a, b => exact::add::<M>(a, b), M),
            ("sub", Some(mode)) => directed!(FnW2, mode, ftz, sat; a, b => exact::add::<M>(a, -b), M),
            ("mul", Some(mode)) => directed!(FnW2, mode, ftz, sat; a, b => a * b, M),
            (_, Some(mode)) => directed!(FnW2, mode, ftz, sat; a, b => exact::div(a, b), M),
            _ => return cx.unknown(),
        };
        let kind = if base == "div" { Kind::Special } else { Kind::Float };
        if (approximate || full) && base != "div" {
            return cx.unknown();
        }
        let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
        return cx.emit(kind, op);
    }
    cx.finish(2)?;
    if full || sat {
        return cx.unknown();
    }
    let f = match (base, mode) {
        ("rcp", None) => f32_lanes!(FnW1, ftz, false; a => 1.0 / a),
        ("sqrt", None) => f32_lanes!(FnW1, ftz, false; a => a.sqrt()),
        ("rcp", Some(mode)) => directed!(FnW1, mode, ftz, false; a => exact::div(1.0, a), M),
        ("sqrt", Some(mode)) => directed!(FnW1, mode, ftz, false; a => exact::sqrt(a), M),
        _ if !approximate => return cx.unknown(),
        ("rsqrt", None) => f32_lanes!(FnW1, ftz, false; a => (1.0 / f64::from(a).sqrt()) as f32),
        ("ex2", None) => f32_lanes!(FnW1, ftz, false; a => a.exp2()),
        ("lg2", None) => f32_lanes!(FnW1, ftz, false; a => a.log2()),
        ("sin", None) => f32_lanes!(FnW1, ftz, false; a => a.sin()),
        ("cos", None) => f32_lanes!(FnW1, ftz, false; a => a.cos()),
        ("tanh", None) => f32_lanes!(FnW1, ftz, false; a => a.tanh()),
        _ => return cx.unknown(),
    };
    let op = Op::W1(f, cx.w_dst(0, 32)?, cx.w(1, 32)?);
    cx.emit(Kind::Special, op)
}

fn extreme(cx: &mut Cx<'_, '_>, base: &str, ftz: bool) -> Result<()> {
    let nan = cx.take("NaN");
    let signed = cx.take("xorsign") && cx.take("abs");
    cx.finish(3)?;
    let f = match (base, nan, signed) {
        ("min", false, false) => f32_lanes!(FnW2, ftz, false; a, b => min(a, b)),
        ("max", false, false) => f32_lanes!(FnW2, ftz, false; a, b => max(a, b)),
        ("min", true, false) => f32_lanes!(FnW2, ftz, false; a, b => nan_or(a, b, min(a, b))),
        ("max", true, false) => f32_lanes!(FnW2, ftz, false; a, b => nan_or(a, b, max(a, b))),
        ("min", false, true) => f32_lanes!(FnW2, ftz, false; a, b => xor_sign(a, b, min(a.abs(), b.abs()))),
        ("max", false, true) => f32_lanes!(FnW2, ftz, false; a, b => xor_sign(a, b, max(a.abs(), b.abs()))),
        ("min", true, true) => {
            f32_lanes!(FnW2, ftz, false; a, b => nan_or(a, b, xor_sign(a, b, min(a.abs(), b.abs()))))
        }
        _ => f32_lanes!(FnW2, ftz, false; a, b => nan_or(a, b, xor_sign(a, b, max(a.abs(), b.abs())))),
    };
    let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
    cx.emit(Kind::Float, op)
}

fn test(cx: &mut Cx<'_, '_>, wide: bool) -> Result<()> {
    macro_rules! tests {
        ($lane:ty, $number:expr, $what:expr) => {
            match $what {
                Some("finite") => Some(cmp!($lane; a, _b => $number(a).is_finite())),
                Some("infinite") => Some(cmp!($lane; a, _b => $number(a).is_infinite())),
                Some("number") => Some(cmp!($lane; a, _b => !$number(a).is_nan())),
                Some("notanumber") => Some(cmp!($lane; a, _b => $number(a).is_nan())),
                Some("normal") => Some(cmp!($lane; a, _b => $number(a).is_normal())),
                Some("subnormal") => Some(cmp!($lane; a, _b => $number(a).is_subnormal())),
                _ => None,
            }
        };
    }
    let what = cx.mods.pop();
    cx.finish(2)?;
    let dst = SetDst { p: cx.p_dst(0)?, q: None, with: None };
    let op = if wide {
        let f: Option<FnCmpD> = tests!(u64, f64::from_bits, what);
        let Some(f) = f else { return cx.unknown() };
        let a = cx.d(1)?;
        Op::CmpD(f, dst, a, a)
    } else {
        let f: Option<FnCmpW> = tests!(u32, f32::from_bits, what);
        let Some(f) = f else { return cx.unknown() };
        let a = cx.w(1, 32)?;
        Op::CmpW(f, dst, a, a)
    };
    cx.emit(Kind::Float, op)
}

/// The bits of an f64 result: those of the number, or the canonical NaN.
fn f64_bits(value: f64) -> u64 {
    if value.is_nan() { 0x7fff_ffff_ffff_ffff } else { value.to_bits() }
}

macro_rules! f64_lanes {
    ($macro:ident; $($a:ident),+ => $e:expr) => {
        $macro!($($a),+ => { $(let $a = f64::from_bits($a);)+ f64_bits($e) })
    };
}

fn double(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    if rounding(cx).is_some() {
        return cx.unknown();
    }
    let approximate = cx.take("approx");
    cx.drop_mods(&["ftz"]);
    if approximate && !matches!(base, "rcp" | "rsqrt") {
        return cx.unknown();
    }
    match base {
        "fma" | "mad" => {
            cx.finish(4)?;
            let f = f64_lanes!(d3; a, b, c => a.mul_add(b, c));
            let op = Op::D3(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?, cx.d(3)?);
            cx.emit(Kind::Fma, op)
        }
        "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => {
            cx.finish(3)?;
            let f = match base {
                "add" => f64_lanes!(d2; a, b => a + b),
                "sub" => f64_lanes!(d2; a, b => a - b),
                "mul" => f64_lanes!(d2; a, b => a * b),
                "div" => f64_lanes!(d2; a, b => a / b),
                "min" => f64_lanes!(d2; a, b => {
                    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
                }),
                "max" => f64_lanes!(d2; a, b => {
                    if b.is_nan() || a > b || (a == b && b.is_sign_negative()) { a } else { b }
                }),
                _ => d2!(a, b => a & (1 << 63) | b & !(1 << 63)),
            };
            let kind = if base == "div" { Kind::Special } else { Kind::Float };
            let op = Op::D2(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?);
            cx.emit(kind, op)
        }
        _ => {
            cx.finish(2)?;
            let (kind, f) = match base {
                "abs" => (Kind::Float, d1!(a => a & !(1 << 63))),
                "neg" => (Kind::Float, d1!(a => a ^ (1 << 63))),
                "rcp" => (Kind::Special, f64_lanes!(d1; a => 1.0 / a)),
                "sqrt" => (Kind::Special, f64_lanes!(d1; a => a.sqrt())),
                "rsqrt" if approximate => (Kind::Special, f64_lanes!(d1; a => 1.0 / a.sqrt())),
                _ => return cx.unknown(),
            };
            let op = Op::D1(f, cx.d_dst(0)?, cx.d(1)?);
            cx.emit(kind, op)
        }
    }
}
