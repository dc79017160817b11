//! Moves, selections, addresses of spaces.

use super::cx::{Cx, Result};
use super::lanes::{d2, lanes, w1, w2, w3, wd};
use super::op::*;
use crate::error::Space;
use crate::layout;
use crate::parse::{Class, Operand, Special};

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "mov" => mov(cx),
        "cvta" => cvta(cx),
        "isspacep" => {
            let space = match cx.take_of(&SPACES) {
                Some(space) => space,
                None => return cx.unknown(),
            };
            cx.finish(2)?;
            let op = Op::IsSpace(space, cx.p_dst(0)?, cx.d(1)?);
            cx.emit(Kind::Integer, op)
        }
        "selp" => {
            let bits = bits_of(cx)?;
            cx.finish(4)?;
            let (p, flip) = cx.p(3)?;
            let (first, second) = if flip == 0 { (1, 2) } else { (2, 1) };
            let op = if bits == 64 {
                Op::SelD(cx.d_dst(0)?, cx.d(first)?, cx.d(second)?, p)
            } else {
                Op::SelW(cx.w_dst(0, bits)?, cx.w(first, bits)?, cx.w(second, bits)?, p)
            };
            cx.emit(Kind::Integer, op)
        }
        _ => slct(cx),
    }
}

/// Spaces that an address can be asked about or converted from.
const SPACES: [(&str, Space); 9] = [
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("shared::cluster", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Local),
    ("const", Space::Const),
];

/// Bits of a type that only says how many.
fn bits_of(cx: &mut Cx<'_, '_>) -> Result<u32> {
    match cx.ty()? {
        "b16" | "u16" | "s16" | "f16" | "bf16" => Ok(16),
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => Ok(32),
        "b64" | "u64" | "s64" | "f64" => Ok(64),
        _ => cx.unknown(),
    }
}

fn mov(cx: &mut Cx<'_, '_>) -> Result<()> {
    if cx.mods == ["pred"] {
        cx.mods.clear();
        cx.finish(2)?;
        let dst = cx.p_dst(0)?;
        let (p, flip) = cx.p(1)?;
        let f: fn(u32) -> u32 = if flip == 0 { |a| a } else { |a| !a };
        return cx.emit(Kind::Integer, Op::P1(f, dst, p));
    }
    if cx.mods == ["b128"] {
        cx.mods.clear();
        cx.finish(2)?;
        return mov128(cx);
    }
    let bits = bits_of(cx)?;
    cx.finish(2)?;
    match (cx.operand(0)?, cx.operand(1)?) {
        (Operand::Vector(parts), _) => unpack(cx, parts, bits),
        (_, Operand::Vector(parts)) => pack(cx, parts, bits),
        (_, Operand::Special(Special::Clock | Special::Clock64)) => {
            let dst = cx.dst_of(cx.operand(0)?, 0, bits)?;
            cx.emit(Kind::Integer, Op::Clock(dst))
        }
        _ if bits == 64 => {
            let op = Op::D1(lanes!(u64; a: u64; a) as FnD1, cx.d_dst(0)?, cx.d(1)?);
            cx.emit(Kind::Integer, op)
        }
        _ => {
            let op = Op::W1(w1!(a => a), cx.w_dst(0, bits)?, cx.w(1, bits)?);
            cx.emit(Kind::Integer, op)
        }
    }
}

fn mov128(cx: &mut Cx<'_, '_>) -> Result<()> {
    let (to, from) = (cx.operand(0)?, cx.operand(1)?);
    let copy = lanes!(u64; a: u64; a) as FnD1;
    let sources = match from {
        Operand::Vector(parts) if parts.len() == 2 => [cx.d_of(&parts[0], 1)?, cx.d_of(&parts[1], 1)?],
        other => match cx.halves(other) {
            Some(halves) => halves,
            None => return cx.operand_error(1, "a value of 128 bits"),
        },
    };
    let targets = match to {
        Operand::Vector(parts) if parts.len() == 2 => {
            [cx.d_dst_of(&parts[0], 0)?, cx.d_dst_of(&parts[1], 0)?]
        }
        other => match cx.halves(other) {
            Some(halves) => halves,
            None => return cx.operand_error(0, "a register of 128 bits"),
        },
    };
    cx.emit(Kind::Integer, Op::D1(copy, targets[0], sources[0]))?;
    cx.emit(Kind::Part, Op::D1(copy, targets[1], sources[1]))
}

/// `mov.b64 {%r1, %r2}, %rd1;`
fn unpack(cx: &mut Cx<'_, '_>, parts: &[Operand], bits: u32) -> Result<()> {
    let each = bits / parts.len().max(1) as u32;
    let mut kind = Kind::Integer;
    let mut emit = |cx: &mut Cx<'_, '_>, op| {
        let now = std::mem::replace(&mut kind, Kind::Part);
        cx.emit(now, op)
    };
    match (bits, parts) {
        (64, [low, high]) => {
            let source = cx.d(1)?;
            for (part, f) in [(low, wd!(a => a as u32)), (high, wd!(a => (a >> 32) as u32))] {
                if *part != Operand::Sink {
                    let dst = cx.w_dst_of(part, 0, each)?;
                    emit(cx, Op::WD(f, dst, source))?;
                }
            }
        }
        (64, [_, _, _, _]) => {
            let source = cx.d(1)?;
            let fs = [
                wd!(a => a as u32 & 0xffff),
                wd!(a => (a >> 16) as u32 & 0xffff),
                wd!(a => (a >> 32) as u32 & 0xffff),
                wd!(a => (a >> 48) as u32),
            ];
            for (part, f) in parts.iter().zip(fs) {
                if *part != Operand::Sink {
                    let dst = cx.w_dst_of(part, 0, each)?;
                    emit(cx, Op::WD(f, dst, source))?;
                }
            }
        }
        (32, [low, high]) => {
            let source = cx.w(1, 32)?;
            for (part, f) in [(low, w1!(a => a & 0xffff)), (high, w1!(a => a >> 16))] {
                if *part != Operand::Sink {
                    let dst = cx.w_dst_of(part, 0, each)?;
                    emit(cx, Op::W1(f, dst, source))?;
                }
            }
        }
        _ => return cx.operand_error(0, "2 or 4 parts of the type"),
    }
    Ok(())
}

/// `mov.b64 %rd1, {%r1, %r2};`
fn pack(cx: &mut Cx<'_, '_>, parts: &[Operand], bits: u32) -> Result<()> {
    match (bits, parts) {
        (64, [low, high]) => {
            let f = lanes!(u64; a: u32, b: u32; u64::from(a) | u64::from(b) << 32) as FnDWW;
            let op = Op::Dww(f, cx.d_dst(0)?, cx.w_of(low, 1, 32)?, cx.w_of(high, 1, 32)?);
            cx.emit(Kind::Integer, op)
        }
        (64, [a, b, c, d]) => {
            let dst = cx.d_dst(0)?;
            let regs = [cx.w_of(a, 1, 16)?, cx.w_of(b, 1, 16)?, cx.w_of(c, 1, 16)?, cx.w_of(d, 1, 16)?];
            let join = w2!(a, b => a & 0xffff | b << 16);
            let (low, high) = (W(cx.linker.new_w()), W(cx.linker.new_w()));
            cx.emit(Kind::Integer, Op::W2(join, low, regs[0], regs[1]))?;
            cx.emit(Kind::Part, Op::W2(join, high, regs[2], regs[3]))?;
            let f = lanes!(u64; a: u32, b: u32; u64::from(a) | u64::from(b) << 32) as FnDWW;
            cx.emit(Kind::Part, Op::Dww(f, dst, low, high))
        }
        (32, [low, high]) => {
            let f = w2!(a, b => a & 0xffff | b << 16);
            let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w_of(low, 1, 16)?, cx.w_of(high, 1, 16)?);
            cx.emit(Kind::Integer, op)
        }
        // Four bytes, each in a register of 16 bits or more.
        (32, [a, b, c, d]) => {
            let dst = cx.w_dst(0, 32)?;
            let regs = [cx.w_of(a, 1, 8)?, cx.w_of(b, 1, 8)?, cx.w_of(c, 1, 8)?, cx.w_of(d, 1, 8)?];
            let f = lanes!(u32; a: u32, b: u32, c: u32, d: u32;
                a & 255 | (b & 255) << 8 | (c & 255) << 16 | d << 24) as FnW4;
            cx.emit(Kind::Integer, Op::W4(f, dst, regs))
        }
        _ => cx.operand_error(1, "2 or 4 parts of the type"),
    }
}

fn cvta(cx: &mut Cx<'_, '_>) -> Result<()> {
    let to = cx.take("to");
    let Some(space) = cx.take_of(&SPACES) else { return cx.unknown() };
    if cx.ty()? != "u64" {
        return cx.unknown();
    }
    cx.finish(2)?;
    let window = layout::window(space);
    let amount = cx.linker.d_const(super::Const::Value(if to { window.wrapping_neg() } else { window }));
    let dst = cx.d_dst(0)?;
    let source = match cx.operand(1)? {
        // `cvta.param.u64 %rd1, %rd2` follows `mov.b64 %rd2, param`.
        Operand::Reg(reg) if reg.class != Class::B64 => return cx.operand_error(1, "an address of 64 bits"),
        _ => cx.d(1)?,
    };
    cx.emit(Kind::Integer, Op::D2(d2!(a, b => a.wrapping_add(b)), dst, source, amount))
}

fn slct(cx: &mut Cx<'_, '_>) -> Result<()> {
    cx.drop_mods(&["ftz"]);
    let by = cx.ty()?;
    let bits = bits_of(cx)?;
    cx.finish(4)?;
    let c = cx.w(3, 32)?;
    if bits == 64 {
        // A predicate first: the operands differ in width.
        let p = P(cx.linker.new_p());
        let zero = cx.linker.w_const(super::Const::Value(0));
        let f: FnCmpW = match by {
            "s32" => super::lanes::cmp!(u32; a, _b => a as i32 >= 0),
            "f32" => super::lanes::cmp!(u32; a, _b => f32::from_bits(a) >= 0.0),
            _ => return cx.unknown(),
        };
        let (dst, a, b) = (cx.d_dst(0)?, cx.d(1)?, cx.d(2)?);
        cx.emit(Kind::Part, Op::CmpW(f, SetDst { p, q: None, with: None }, c, zero))?;
        return cx.emit(Kind::Integer, Op::SelD(dst, a, b, p));
    }
    let f = match by {
        "s32" => w3!(a, b, c => if c as i32 >= 0 { a } else { b }),
        "f32" => w3!(a, b, c => if f32::from_bits(c) >= 0.0 { a } else { b }),
        _ => return cx.unknown(),
    };
    let op = Op::W3(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?, c);
    cx.emit(Kind::Integer, op)
}
