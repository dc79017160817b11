//! Integer arithmetic of 16 and 32 bits.

use super::cx::{Cx, Result};
use super::lanes::{lanes, w1, w2, w3};
use super::op::*;

/// Integer division that says all ones for a division by zero.
macro_rules! divide {
    ($a:expr, $b:expr, $op:ident, $other:expr) => {
        if $b == 0 { $other } else { ($a).$op($b) }
    };
}

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "dp4a" | "dp2a" => return dot(cx, base),
        "add" | "sub" if cx.mods.contains(&"cc") => return carry(cx, base),
        "addc" | "subc" | "madc" => return carry(cx, base),
        "mad" if cx.mods.contains(&"cc") => return carry(cx, base),
        "mul24" => cx.drop_mods(&["lo"]),
        _ => {}
    }
    let ty = cx.ty()?;
    let saturate = cx.take("sat");
    if saturate && (ty != "s32" || !matches!(base, "add" | "sub" | "mad")) {
        return cx.unknown();
    }
    let half = cx.take_of(&[("lo", "lo"), ("hi", "hi"), ("wide", "wide")]);
    let relu = cx.take("relu");
    match (base, half) {
        ("mul" | "mad", None) | ("mul" | "mad", Some("wide")) => {
            return if half.is_some() { wide_product(cx, base, ty) } else { cx.unknown() };
        }
        ("mul" | "mad", _) | (_, None) => {}
        _ => return cx.unknown(),
    }
    let high = half == Some("hi");
    match base {
        "abs" | "neg" => {
            cx.finish(2)?;
            let (bits, f) = match (base, ty) {
                ("abs", "s16") => (16, w1!(a => u32::from((a as i16).wrapping_abs() as u16))),
                ("abs", "s32") => (32, w1!(a => (a as i32).wrapping_abs() as u32)),
                ("neg", "s16") => (16, w1!(a => a.wrapping_neg() & 0xffff)),
                ("neg", "s32") => (32, w1!(a => a.wrapping_neg())),
                _ => return cx.unknown(),
            };
            let op = Op::W1(f, cx.w_dst(0, bits)?, cx.w(1, bits)?);
            cx.emit(Kind::Integer, op)
        }
        "mad" | "sad" => {
            cx.finish(4)?;
            let (bits, f) = match (base, ty, high, saturate) {
                ("mad", "u16" | "s16", false, _) => {
                    (16, w3!(a, b, c => a.wrapping_mul(b).wrapping_add(c) & 0xffff))
                }
                ("mad", "u16", true, _) => (16, w3!(a, b, c => (((a * b) >> 16).wrapping_add(c)) & 0xffff)),
                ("mad", "s16", true, _) => (
                    16,
                    w3!(a, b, c => {
                        let product = i32::from(a as i16) * i32::from(b as i16);
                        ((product >> 16) as u32).wrapping_add(c) & 0xffff
                    }),
                ),
                ("mad", "u32" | "s32", false, false) => {
                    (32, w3!(a, b, c => a.wrapping_mul(b).wrapping_add(c)))
                }
                ("mad", "u32", true, false) => (32, w3!(a, b, c => mul_hi(a, b).wrapping_add(c))),
                ("mad", "s32", true, false) => (32, w3!(a, b, c => mul_hi_signed(a, b).wrapping_add(c))),
                ("mad", "s32", true, true) => {
                    (32, w3!(a, b, c => (mul_hi_signed(a, b) as i32).saturating_add(c as i32) as u32))
                }
                ("sad", "u16", ..) => (16, w3!(a, b, c => (a.abs_diff(b) + c) & 0xffff)),
                ("sad", "s16", ..) => {
                    (16, w3!(a, b, c => (u32::from((a as i16).abs_diff(b as i16)) + c) & 0xffff))
                }
                ("sad", "u32", ..) => (32, w3!(a, b, c => a.abs_diff(b).wrapping_add(c))),
                ("sad", "s32", ..) => (32, w3!(a, b, c => (a as i32).abs_diff(b as i32).wrapping_add(c))),
                _ => return cx.unknown(),
            };
            let op = Op::W3(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?, cx.w(3, bits)?);
            cx.emit(Kind::Integer, op)
        }
        _ => {
            cx.finish(3)?;
            let Some((bits, f)) = binary(base, ty, high, saturate, relu) else { return cx.unknown() };
            let op = Op::W2(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?);
            cx.emit(Kind::Integer, op)
        }
    }
}

fn mul_hi(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

fn mul_hi_signed(a: u32, b: u32) -> u32 {
    ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
}

/// Applies an operation to both 16-bit halves.
macro_rules! both {
    ($a:ident, $b:ident, $ty:ty => $e:expr) => {
        w2!(x, y => {
            let low = { let ($a, $b) = (x as u16 as $ty, y as u16 as $ty); ($e) as u16 };
            let high = { let ($a, $b) = ((x >> 16) as u16 as $ty, (y >> 16) as u16 as $ty); ($e) as u16 };
            u32::from(low) | u32::from(high) << 16
        })
    };
}

fn binary(base: &str, ty: &str, high: bool, saturate: bool, relu: bool) -> Option<(u32, FnW2)> {
    if relu && !(matches!(base, "min" | "max") && matches!(ty, "s32" | "s16x2")) {
        return None;
    }
    Some(match (base, ty) {
        ("add", "u16" | "s16") => (16, w2!(a, b => a.wrapping_add(b) & 0xffff)),
        ("sub", "u16" | "s16") => (16, w2!(a, b => a.wrapping_sub(b) & 0xffff)),
        ("add", "s32") if saturate => (32, w2!(a, b => (a as i32).saturating_add(b as i32) as u32)),
        ("sub", "s32") if saturate => (32, w2!(a, b => (a as i32).saturating_sub(b as i32) as u32)),
        ("add", "u32" | "s32" | "b32") => (32, w2!(a, b => a.wrapping_add(b))),
        ("sub", "u32" | "s32" | "b32") => (32, w2!(a, b => a.wrapping_sub(b))),
        ("add", "u16x2" | "s16x2") => (32, both!(a, b, u16 => a.wrapping_add(b))),
        ("mul", "u16" | "s16") if !high => (16, w2!(a, b => a.wrapping_mul(b) & 0xffff)),
        ("mul", "u16") => (16, w2!(a, b => (a * b) >> 16)),
        ("mul", "s16") => {
            (16, w2!(a, b => ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u32 & 0xffff))
        }
        ("mul", "u32" | "s32") if !high => (32, w2!(a, b => a.wrapping_mul(b))),
        ("mul", "u32") => (32, w2!(a, b => mul_hi(a, b))),
        ("mul", "s32") => (32, w2!(a, b => mul_hi_signed(a, b))),
        ("mul24", "u32") => (32, w2!(a, b => (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff))),
        ("mul24", "s32") => {
            (32, w2!(a, b => (((a << 8) as i32) >> 8).wrapping_mul(((b << 8) as i32) >> 8) as u32))
        }
        ("div", "u16") => (16, w2!(a, b => divide!(a, b, wrapping_div, 0xffff))),
        ("div", "s16") => (
            16,
            w2!(a, b => {
                u32::from(divide!(a as i16, b as i16, wrapping_div, -1) as u16)
            }),
        ),
        ("div", "u32") => (32, w2!(a, b => divide!(a, b, wrapping_div, u32::MAX))),
        ("div", "s32") => (32, w2!(a, b => divide!(a as i32, b as i32, wrapping_div, -1) as u32)),
        ("rem", "u16") => (16, w2!(a, b => divide!(a, b, wrapping_rem, a))),
        ("rem", "s16") => (
            16,
            w2!(a, b => {
                u32::from(divide!(a as i16, b as i16, wrapping_rem, a as i16) as u16)
            }),
        ),
        ("rem", "u32") => (32, w2!(a, b => divide!(a, b, wrapping_rem, a))),
        ("rem", "s32") => (32, w2!(a, b => divide!(a as i32, b as i32, wrapping_rem, a as i32) as u32)),
        ("min", "u16") => (16, w2!(a, b => a.min(b))),
        ("max", "u16") => (16, w2!(a, b => a.max(b))),
        ("min", "s16") => (16, w2!(a, b => u32::from((a as i16).min(b as i16) as u16))),
        ("max", "s16") => (16, w2!(a, b => u32::from((a as i16).max(b as i16) as u16))),
        ("min", "u32") => (32, w2!(a, b => a.min(b))),
        ("max", "u32") => (32, w2!(a, b => a.max(b))),
        ("min", "s32") if relu => (32, w2!(a, b => (a as i32).min(b as i32).max(0) as u32)),
        ("max", "s32") if relu => (32, w2!(a, b => (a as i32).max(b as i32).max(0) as u32)),
        ("min", "s32") => (32, w2!(a, b => (a as i32).min(b as i32) as u32)),
        ("max", "s32") => (32, w2!(a, b => (a as i32).max(b as i32) as u32)),
        ("min", "u16x2") => (32, both!(a, b, u16 => a.min(b))),
        ("max", "u16x2") => (32, both!(a, b, u16 => a.max(b))),
        ("min", "s16x2") if relu => (32, both!(a, b, i16 => a.min(b).max(0))),
        ("max", "s16x2") if relu => (32, both!(a, b, i16 => a.max(b).max(0))),
        ("min", "s16x2") => (32, both!(a, b, i16 => a.min(b))),
        ("max", "s16x2") => (32, both!(a, b, i16 => a.max(b))),
        _ => return None,
    })
}

/// `mul.wide`, `mad.wide`: a product of twice the width.
fn wide_product(cx: &mut Cx<'_, '_>, base: &str, ty: &str) -> Result<()> {
    let add = base == "mad";
    cx.finish(3 + usize::from(add))?;
    let op = match (ty, add) {
        ("u16", false) => Op::W2(w2!(a, b => a * b), cx.w_dst(0, 32)?, cx.w(1, 16)?, cx.w(2, 16)?),
        ("s16", false) => Op::W2(
            w2!(a, b => (i32::from(a as i16) * i32::from(b as i16)) as u32),
            cx.w_dst(0, 32)?,
            cx.w(1, 16)?,
            cx.w(2, 16)?,
        ),
        ("u16", true) => Op::W3(
            w3!(a, b, c => (a * b).wrapping_add(c)),
            cx.w_dst(0, 32)?,
            cx.w(1, 16)?,
            cx.w(2, 16)?,
            cx.w(3, 32)?,
        ),
        ("s16", true) => Op::W3(
            w3!(a, b, c => ((i32::from(a as i16) * i32::from(b as i16)) as u32).wrapping_add(c)),
            cx.w_dst(0, 32)?,
            cx.w(1, 16)?,
            cx.w(2, 16)?,
            cx.w(3, 32)?,
        ),
        ("u32", false) => Op::Dww(
            lanes!(u64; a: u32, b: u32; u64::from(a) * u64::from(b)) as FnDWW,
            cx.d_dst(0)?,
            cx.w(1, 32)?,
            cx.w(2, 32)?,
        ),
        ("s32", false) => Op::Dww(
            lanes!(u64; a: u32, b: u32; (i64::from(a as i32) * i64::from(b as i32)) as u64) as FnDWW,
            cx.d_dst(0)?,
            cx.w(1, 32)?,
            cx.w(2, 32)?,
        ),
        ("u32", true) => Op::Dwwd(
            lanes!(u64; a: u32, b: u32, c: u64; (u64::from(a) * u64::from(b)).wrapping_add(c)) as FnDWWD,
            cx.d_dst(0)?,
            cx.w(1, 32)?,
            cx.w(2, 32)?,
            cx.d(3)?,
        ),
        ("s32", true) => Op::Dwwd(
            lanes!(u64; a: u32, b: u32, c: u64;
                ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)) as FnDWWD,
            cx.d_dst(0)?,
            cx.w(1, 32)?,
            cx.w(2, 32)?,
            cx.d(3)?,
        ),
        _ => return cx.unknown(),
    };
    cx.emit(Kind::Integer, op)
}

/// `add.cc`, `addc`, `mad.lo.cc` and so on: arithmetic of numbers longer than a register.
fn carry(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let sets = cx.take("cc");
    let high = cx.take("hi");
    if !high {
        cx.take("lo");
    }
    if !matches!(ty, "u32" | "s32" | "b32") {
        return cx.unknown();
    }
    let add: FnCarryW = |a, b, _, carry| {
        let sum = u64::from(a) + u64::from(b) + u64::from(carry);
        (sum as u32, sum >> 32 != 0)
    };
    let sub: FnCarryW = |a, b, _, borrow| {
        let difference = i64::from(a) - i64::from(b) - i64::from(borrow);
        (difference as u32, difference < 0)
    };
    let mad_lo: FnCarryW = |a, b, c, carry| {
        let sum = u64::from(a.wrapping_mul(b)) + u64::from(c) + u64::from(carry);
        (sum as u32, sum >> 32 != 0)
    };
    let mad_hi: FnCarryW = |a, b, c, carry| {
        let sum = u64::from(mul_hi(a, b)) + u64::from(c) + u64::from(carry);
        (sum as u32, sum >> 32 != 0)
    };
    let mad_hi_signed: FnCarryW = |a, b, c, carry| {
        let sum = u64::from(mul_hi_signed(a, b)) + u64::from(c) + u64::from(carry);
        (sum as u32, sum >> 32 != 0)
    };
    let multiplies = matches!(base, "mad" | "madc");
    let f = match base {
        "add" | "addc" => add,
        "sub" | "subc" => sub,
        _ if high && ty == "s32" => mad_hi_signed,
        _ if high => mad_hi,
        _ => mad_lo,
    };
    cx.finish(3 + usize::from(multiplies))?;
    let (dst, a, b) = (cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
    let c = if multiplies { cx.w(3, 32)? } else { a };
    let uses = base.ends_with('c');
    cx.emit(Kind::Integer, Op::CarryW { f, dst, args: [a, b, c], uses, sets })
}

/// `dp4a` and `dp2a`: sums of products of bytes.
fn dot(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    fn byte(word: u32, at: u32, signed: bool) -> i32 {
        let byte = (word >> (8 * at)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    }
    fn four(a: u32, b: u32, c: u32, signed_a: bool, signed_b: bool) -> u32 {
        (0..4).fold(c, |sum, at| sum.wrapping_add((byte(a, at, signed_a) * byte(b, at, signed_b)) as u32))
    }
    fn two(a: u32, b: u32, c: u32, signed_a: bool, signed_b: bool, first: u32) -> u32 {
        (0..2).fold(c, |sum, at| {
            let half = (a >> (16 * at)) as u16;
            let half = if signed_a { i32::from(half as i16) } else { i32::from(half) };
            sum.wrapping_add(half.wrapping_mul(byte(b, first + at, signed_b)) as u32)
        })
    }
    let b = cx.ty()?;
    let a = cx.ty()?;
    let high = base == "dp2a" && cx.take("hi");
    if base == "dp2a" && !high && !cx.take("lo") {
        return cx.unknown();
    }
    cx.finish(4)?;
    let f = match (base, a, b, high) {
        ("dp4a", "u32", "u32", _) => w3!(a, b, c => four(a, b, c, false, false)),
        ("dp4a", "u32", "s32", _) => w3!(a, b, c => four(a, b, c, false, true)),
        ("dp4a", "s32", "u32", _) => w3!(a, b, c => four(a, b, c, true, false)),
        ("dp4a", "s32", "s32", _) => w3!(a, b, c => four(a, b, c, true, true)),
        (_, "u32", "u32", false) => w3!(a, b, c => two(a, b, c, false, false, 0)),
        (_, "u32", "s32", false) => w3!(a, b, c => two(a, b, c, false, true, 0)),
        (_, "s32", "u32", false) => w3!(a, b, c => two(a, b, c, true, false, 0)),
        (_, "s32", "s32", false) => w3!(a, b, c => two(a, b, c, true, true, 0)),
        (_, "u32", "u32", true) => w3!(a, b, c => two(a, b, c, false, false, 2)),
        (_, "u32", "s32", true) => w3!(a, b, c => two(a, b, c, false, true, 2)),
        (_, "s32", "u32", true) => w3!(a, b, c => two(a, b, c, true, false, 2)),
        (_, "s32", "s32", true) => w3!(a, b, c => two(a, b, c, true, true, 2)),
        _ => return cx.unknown(),
    };
    let op = Op::W3(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?);
    cx.emit(Kind::Integer, op)
}
