//! Integer arithmetic of 64 bits.

use super::cx::{Cx, Result};
use super::lanes::{d1, d2, d3, lanes};
use super::op::*;

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let sets = cx.take("cc");
    let half = cx.take_of(&[("lo", false), ("hi", true)]);
    if matches!(base, "mul" | "mad" | "madc") != half.is_some() {
        return cx.unknown();
    }
    let high = half == Some(true);
    if sets || matches!(base, "addc" | "subc" | "madc") {
        return carry(cx, base, high, sets);
    }
    match base {
        "abs" | "neg" => {
            cx.finish(2)?;
            let f = match (base, ty) {
                ("abs", "s64") => d1!(a => (a as i64).wrapping_abs() as u64),
                ("neg", "s64") => d1!(a => a.wrapping_neg()),
                _ => return cx.unknown(),
            };
            let op = Op::D1(f, cx.d_dst(0)?, cx.d(1)?);
            cx.emit(Kind::Integer, op)
        }
        "mad" | "sad" => {
            cx.finish(4)?;
            let f = match (base, ty, high) {
                ("mad", _, false) => d3!(a, b, c => a.wrapping_mul(b).wrapping_add(c)),
                ("mad", "u64", true) => d3!(a, b, c => mul_hi(a, b).wrapping_add(c)),
                ("mad", "s64", true) => d3!(a, b, c => mul_hi_signed(a, b).wrapping_add(c)),
                ("sad", "u64", _) => d3!(a, b, c => a.abs_diff(b).wrapping_add(c)),
                ("sad", "s64", _) => d3!(a, b, c => (a as i64).abs_diff(b as i64).wrapping_add(c)),
                _ => return cx.unknown(),
            };
            let op = Op::D3(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?, cx.d(3)?);
            cx.emit(Kind::Integer, op)
        }
        _ => {
            cx.finish(3)?;
            let f = match (base, ty) {
                ("add", _) => d2!(a, b => a.wrapping_add(b)),
                ("sub", _) => d2!(a, b => a.wrapping_sub(b)),
                ("mul", _) if !high => d2!(a, b => a.wrapping_mul(b)),
                ("mul", "u64") => d2!(a, b => mul_hi(a, b)),
                ("mul", "s64") => d2!(a, b => mul_hi_signed(a, b)),
                ("div", "u64") => d2!(a, b => a.checked_div(b).unwrap_or(u64::MAX)),
                ("div", "s64") => {
                    d2!(a, b => if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 })
                }
                ("rem", "u64") => d2!(a, b => a.checked_rem(b).unwrap_or(a)),
                ("rem", "s64") => {
                    d2!(a, b => if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 })
                }
                ("min", "u64") => d2!(a, b => a.min(b)),
                ("max", "u64") => d2!(a, b => a.max(b)),
                ("min", "s64") => d2!(a, b => (a as i64).min(b as i64) as u64),
                ("max", "s64") => d2!(a, b => (a as i64).max(b as i64) as u64),
                _ => return cx.unknown(),
            };
            let op = Op::D2(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?);
            cx.emit(Kind::Integer, op)
        }
    }
}

fn mul_hi(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

fn mul_hi_signed(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

fn carry(cx: &mut Cx<'_, '_>, base: &str, high: bool, sets: bool) -> Result<()> {
    let add: FnCarryD = |a, b, _, carry| {
        let sum = u128::from(a) + u128::from(b) + u128::from(carry);
        (sum as u64, sum >> 64 != 0)
    };
    let sub: FnCarryD = |a, b, _, borrow| {
        let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
        (difference as u64, difference < 0)
    };
    let mad_lo: FnCarryD = |a, b, c, carry| {
        let sum = u128::from(a.wrapping_mul(b)) + u128::from(c) + u128::from(carry);
        (sum as u64, sum >> 64 != 0)
    };
    let mad_hi: FnCarryD = |a, b, c, carry| {
        let sum = u128::from(mul_hi(a, b)) + u128::from(c) + u128::from(carry);
        (sum as u64, sum >> 64 != 0)
    };
    let multiplies = matches!(base, "mad" | "madc");
    let f = match base {
        "add" | "addc" => add,
        "sub" | "subc" => sub,
        _ if high => mad_hi,
        _ => mad_lo,
    };
    cx.finish(3 + usize::from(multiplies))?;
    let (dst, a, b) = (cx.d_dst(0)?, cx.d(1)?, cx.d(2)?);
    let c = if multiplies { cx.d(3)? } else { a };
    let uses = base.ends_with('c');
    cx.emit(Kind::Integer, Op::CarryD { f, dst, args: [a, b, c], uses, sets })
}
