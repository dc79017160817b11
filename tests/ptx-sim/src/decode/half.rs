//! Arithmetic of f16 and bf16, alone and in pairs. Every operation rounds once.

use super::cx::{Cx, Result};
use super::float::{max, min, nan_or, xor_sign};
use super::lanes::lanes;
use super::op::*;
use crate::tensor::float::{Half, flush_f16};

/// A function of 16-bit lanes, or of both halves of 32-bit ones.
macro_rules! half_lanes {
    ($fn:ty, $pair:expr; $($a:ident),+ => $e:expr) => {
        if $pair {
            lanes!(u32; $($a: u32),+; {
                let low: u16 = { $(let $a = $a as u16;)+ $e };
                let high: u16 = { $(let $a = ($a >> 16) as u16;)+ $e };
                u32::from(low) | u32::from(high) << 16
            }) as $fn
        } else {
            lanes!(u32; $($a: u32),+; { $(let $a = $a as u16;)+ u32::from($e) }) as $fn
        }
    };
}

/// One function for each of the two types.
macro_rules! by_type {
    ($fn:ty, $brain:expr, $pair:expr; $h:ident, $($a:ident),+ => $e:expr) => {
        if $brain {
            half_lanes!($fn, $pair; $($a),+ => { const $h: Half = Half::Bf16; $e })
        } else {
            half_lanes!($fn, $pair; $($a),+ => { const $h: Half = Half::F16; $e })
        }
    };
}

/// `.relu`: a negative result and NaN become zero (NaN stays the canonical NaN).
fn relu(half: Half, bits: u16) -> u16 {
    if half.widen(bits).is_nan() || bits & 0x8000 == 0 { bits } else { 0 }
}

/// `.sat`: into 0 to 1, NaN to 0.
fn saturate(half: Half, bits: u16) -> u16 {
    let value = half.widen(bits);
    if value >= 1.0 {
        half.narrow(1.0)
    } else if value > 0.0 {
        bits
    } else {
        0
    }
}

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let brain = ty.starts_with('b');
    let pair = ty.ends_with("x2");
    let bits = if pair { 32 } else { 16 };
    cx.take("rn");
    let ftz = cx.take("ftz") && !brain;
    let sat = cx.take("sat");
    let clip = cx.take("relu");
    if sat && clip {
        return cx.unknown();
    }
    match base {
        "fma" => {
            cx.finish(4)?;
            let f = match (ftz, sat, clip) {
                (false, false, false) => by_type!(FnW3, brain, pair; H, a, b, c => H.fma(a, b, c)),
                (false, true, _) => by_type!(FnW3, brain, pair; H, a, b, c => saturate(H, H.fma(a, b, c))),
                (false, _, true) => by_type!(FnW3, brain, pair; H, a, b, c => relu(H, H.fma(a, b, c))),
                (true, false, false) => half_lanes!(FnW3, pair; a, b, c => {
                    flush_f16(Half::F16.fma(flush_f16(a), flush_f16(b), flush_f16(c)))
                }),
                (true, true, _) => half_lanes!(FnW3, pair; a, b, c => {
                    saturate(Half::F16, flush_f16(Half::F16.fma(flush_f16(a), flush_f16(b), flush_f16(c))))
                }),
                (true, _, true) => half_lanes!(FnW3, pair; a, b, c => {
                    relu(Half::F16, flush_f16(Half::F16.fma(flush_f16(a), flush_f16(b), flush_f16(c))))
                }),
            };
            let op = Op::W3(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?, cx.w(3, bits)?);
            cx.emit(Kind::Fma, op)
        }
        "add" | "sub" | "mul" => {
            cx.finish(3)?;
            if clip {
                return cx.unknown();
            }
            macro_rules! arithmetic {
                ($op:ident) => {
                    match (ftz, sat) {
                        (false, false) => by_type!(FnW2, brain, pair; H, a, b => H.$op(a, b)),
                        (false, true) => by_type!(FnW2, brain, pair; H, a, b => saturate(H, H.$op(a, b))),
                        (true, false) => half_lanes!(FnW2, pair; a, b => {
                            flush_f16(Half::F16.$op(flush_f16(a), flush_f16(b)))
                        }),
                        (true, true) => half_lanes!(FnW2, pair; a, b => {
                            saturate(Half::F16, flush_f16(Half::F16.$op(flush_f16(a), flush_f16(b))))
                        }),
                    }
                };
            }
            let f = match base {
                "add" => arithmetic!(add),
                "sub" => arithmetic!(sub),
                _ => arithmetic!(mul),
            };
            let op = Op::W2(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?);
            cx.emit(Kind::Float, op)
        }
        "min" | "max" if !sat && !clip => extreme(cx, base, brain, pair, ftz),
        _ if !sat && !clip => unary(cx, base, brain, pair, ftz),
        _ => cx.unknown(),
    }
}

fn extreme(cx: &mut Cx<'_, '_>, base: &str, brain: bool, pair: bool, ftz: bool) -> Result<()> {
    let bits = if pair { 32 } else { 16 };
    let nan = cx.take("NaN");
    let signed = cx.take("xorsign") && cx.take("abs");
    cx.finish(3)?;
    macro_rules! with {
        ($a:ident, $b:ident => $e:expr) => {
            if ftz {
                half_lanes!(FnW2, pair; a, b => {
                    let ($a, $b) = (Half::F16.widen(flush_f16(a)), Half::F16.widen(flush_f16(b)));
                    Half::F16.narrow(f64::from($e))
                })
            } else {
                by_type!(FnW2, brain, pair; H, a, b => {
                    let ($a, $b) = (H.widen(a), H.widen(b));
                    H.narrow(f64::from($e))
                })
            }
        };
    }
    let f = match (base, nan, signed) {
        ("min", false, false) => with!(x, y => min(x, y)),
        ("max", false, false) => with!(x, y => max(x, y)),
        ("min", true, false) => with!(x, y => nan_or(x, y, min(x, y))),
        ("max", true, false) => with!(x, y => nan_or(x, y, max(x, y))),
        ("min", false, true) => with!(x, y => xor_sign(x, y, min(x.abs(), y.abs()))),
        ("max", false, true) => with!(x, y => xor_sign(x, y, max(x.abs(), y.abs()))),
        ("min", true, true) => with!(x, y => nan_or(x, y, xor_sign(x, y, min(x.abs(), y.abs())))),
        _ => with!(x, y => nan_or(x, y, xor_sign(x, y, max(x.abs(), y.abs())))),
    };
    let op = Op::W2(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?);
    cx.emit(Kind::Float, op)
}

fn unary(cx: &mut Cx<'_, '_>, base: &str, brain: bool, pair: bool, ftz: bool) -> Result<()> {
    let bits = if pair { 32 } else { 16 };
    let approximate = cx.take("approx");
    if approximate != matches!(base, "ex2" | "tanh") {
        return cx.unknown();
    }
    cx.finish(2)?;
    let (kind, f) = match base {
        "abs" if ftz => (Kind::Float, half_lanes!(FnW1, pair; a => flush_f16(a & 0x7fff))),
        "abs" => (Kind::Float, half_lanes!(FnW1, pair; a => a & 0x7fff)),
        "neg" if ftz => (Kind::Float, half_lanes!(FnW1, pair; a => flush_f16(a ^ 0x8000))),
        "neg" => (Kind::Float, half_lanes!(FnW1, pair; a => a ^ 0x8000)),
        "ex2" => (Kind::Special, by_type!(FnW1, brain, pair; H, a => H.narrow(f64::from(H.widen(a).exp2())))),
        "tanh" => {
            (Kind::Special, by_type!(FnW1, brain, pair; H, a => H.narrow(f64::from(H.widen(a).tanh()))))
        }
        _ => return cx.unknown(),
    };
    let op = Op::W1(f, cx.w_dst(0, bits)?, cx.w(1, bits)?);
    cx.emit(kind, op)
}
