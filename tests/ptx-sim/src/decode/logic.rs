//! Bits: logic, shifts, permutations, counts; and comparisons.

use super::cx::{Cx, Result};
use super::lanes::{cmp, d1, d2, lanes, w1, w2, w3, wd};
use super::op::*;
use crate::parse::Operand;

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "and" | "or" | "xor" | "not" | "cnot" => boolean(cx, base),
        "lop3" => lop3(cx),
        "shl" | "shr" => shift(cx, base),
        "shf" => funnel(cx),
        "prmt" => permute(cx),
        "bfe" | "bfi" => field(cx, base),
        _ => count(cx, base),
    }
}

fn boolean(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let one = matches!(base, "not" | "cnot");
    cx.finish(if one { 2 } else { 3 })?;
    let op = match (ty, base) {
        ("pred", "not") => Op::P1(|a| !a, cx.p_dst(0)?, cx.p_plain(1)?),
        ("pred", "and") => Op::P2(|a, b| a & b, cx.p_dst(0)?, cx.p_plain(1)?, cx.p_plain(2)?),
        ("pred", "or") => Op::P2(|a, b| a | b, cx.p_dst(0)?, cx.p_plain(1)?, cx.p_plain(2)?),
        ("pred", "xor") => Op::P2(|a, b| a ^ b, cx.p_dst(0)?, cx.p_plain(1)?, cx.p_plain(2)?),
        ("b16" | "b32", _) => {
            let bits = if ty == "b16" { 16 } else { 32 };
            let f1 = match (base, bits) {
                ("not", 16) => Some(w1!(a => !a & 0xffff)),
                ("not", _) => Some(w1!(a => !a)),
                ("cnot", _) => Some(w1!(a => u32::from(a == 0))),
                _ => None,
            };
            let f2 = match base {
                "and" => w2!(a, b => a & b),
                "or" => w2!(a, b => a | b),
                _ => w2!(a, b => a ^ b),
            };
            match f1 {
                Some(f) => Op::W1(f, cx.w_dst(0, bits)?, cx.w(1, bits)?),
                None => Op::W2(f2, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, bits)?),
            }
        }
        ("b64", "not") => Op::D1(d1!(a => !a), cx.d_dst(0)?, cx.d(1)?),
        ("b64", "cnot") => Op::D1(d1!(a => u64::from(a == 0)), cx.d_dst(0)?, cx.d(1)?),
        ("b64", _) => {
            let f = match base {
                "and" => d2!(a, b => a & b),
                "or" => d2!(a, b => a | b),
                _ => d2!(a, b => a ^ b),
            };
            Op::D2(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?)
        }
        _ => return cx.unknown(),
    };
    cx.emit(Kind::Integer, op)
}

/// `lop3.b32 d, a, b, c, table`: any function of three bits.
fn lop3(cx: &mut Cx<'_, '_>) -> Result<()> {
    if cx.ty()? != "b32" {
        return cx.unknown();
    }
    cx.finish(5)?;
    let table = match cx.operand(4)? {
        Operand::Int(table) if *table < 256 => *table,
        _ => return cx.operand_error(4, "a table of 8 bits"),
    };
    let table = cx.linker.w_const(super::Const::Value(table));
    let args = [cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?, table];
    let f = lanes!(u32; a: u32, b: u32, c: u32, table: u32; {
        let mut result = 0;
        for row in 0..8 {
            let chosen = 0u32.wrapping_sub((table >> row) & 1);
            let x = if row & 4 != 0 { a } else { !a };
            let y = if row & 2 != 0 { b } else { !b };
            let z = if row & 1 != 0 { c } else { !c };
            result |= chosen & x & y & z;
        }
        result
    }) as FnW4;
    let op = Op::W4(f, cx.w_dst(0, 32)?, args);
    cx.emit(Kind::Integer, op)
}

fn shift(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    cx.finish(3)?;
    let left = base == "shl";
    let signed = ty.starts_with('s');
    if left && !ty.starts_with('b') {
        return cx.unknown();
    }
    let op = match &ty[1..] {
        "16" | "32" => {
            let bits = if ty.ends_with("16") { 16 } else { 32 };
            let f = match (left, signed, bits) {
                (true, _, 16) => w2!(a, b => if b > 15 { 0 } else { a << b & 0xffff }),
                (true, ..) => w2!(a, b => if b > 31 { 0 } else { a << b }),
                (_, false, _) => w2!(a, b => if b > 31 { 0 } else { a >> b }),
                (_, true, 16) => w2!(a, b => u32::from((a as i16 >> b.min(15)) as u16)),
                (_, true, _) => w2!(a, b => (a as i32 >> b.min(31)) as u32),
            };
            Op::W2(f, cx.w_dst(0, bits)?, cx.w(1, bits)?, cx.w(2, 32)?)
        }
        "64" => {
            let f = match (left, signed) {
                (true, _) => lanes!(u64; a: u64, b: u32; if b > 63 { 0 } else { a << b }) as FnDDW,
                (_, false) => lanes!(u64; a: u64, b: u32; if b > 63 { 0 } else { a >> b }) as FnDDW,
                (_, true) => lanes!(u64; a: u64, b: u32; (a as i64 >> b.min(63)) as u64) as FnDDW,
            };
            Op::Ddw(f, cx.d_dst(0)?, cx.d(1)?, cx.w(2, 32)?)
        }
        _ => return cx.unknown(),
    };
    cx.emit(Kind::Integer, op)
}

fn funnel(cx: &mut Cx<'_, '_>) -> Result<()> {
    let left = cx.take("l");
    if !left && !cx.take("r") {
        return cx.unknown();
    }
    let clamp = cx.take("clamp");
    if !clamp && !cx.take("wrap") {
        return cx.unknown();
    }
    if cx.ty()? != "b32" {
        return cx.unknown();
    }
    cx.finish(4)?;
    fn both(low: u32, high: u32) -> u64 {
        u64::from(low) | u64::from(high) << 32
    }
    let f = match (left, clamp) {
        (true, true) => w3!(a, b, c => ((both(a, b) << c.min(32)) >> 32) as u32),
        (true, false) => w3!(a, b, c => ((both(a, b) << (c & 31)) >> 32) as u32),
        (false, true) => w3!(a, b, c => (both(a, b) >> c.min(32)) as u32),
        (false, false) => w3!(a, b, c => (both(a, b) >> (c & 31)) as u32),
    };
    let op = Op::W3(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?);
    cx.emit(Kind::Integer, op)
}

fn permute(cx: &mut Cx<'_, '_>) -> Result<()> {
    fn pick(a: u32, b: u32, selectors: [u32; 4]) -> u32 {
        let bytes = u64::from(a) | u64::from(b) << 32;
        let mut result = 0;
        for (at, selector) in selectors.into_iter().enumerate() {
            result |= u32::from((bytes >> (8 * (selector & 7))) as u8) << (8 * at);
        }
        result
    }
    let mode = cx.take_of(&[("f4e", 1), ("b4e", 2), ("rc8", 3), ("ecl", 4), ("ecr", 5), ("rc16", 6)]);
    if cx.ty()? != "b32" {
        return cx.unknown();
    }
    cx.finish(4)?;
    let f = match mode {
        None => w3!(a, b, c => {
            let bytes = u64::from(a) | u64::from(b) << 32;
            let mut result = 0u32;
            for at in 0..4 {
                let selector = c >> (4 * at) & 15;
                let byte = (bytes >> (8 * (selector & 7))) as u8;
                let sign = (byte as i8 >> 7) as u8;
                let byte = if selector & 8 != 0 { sign } else { byte };
                result |= u32::from(byte) << (8 * at);
            }
            result
        }),
        Some(1) => w3!(a, b, c => { let c = c & 3; pick(a, b, [c, c + 1, c + 2, c + 3]) }),
        Some(2) => w3!(a, b, c => { let c = c & 3; pick(a, b, [c, c + 7, c + 6, c + 5]) }),
        Some(3) => w3!(a, b, c => { let c = c & 3; pick(a, b, [c, c, c, c]) }),
        Some(4) => w3!(a, b, c => { let c = c & 3; pick(a, b, [c, c.max(1), c.max(2), 3]) }),
        Some(5) => w3!(a, b, c => { let c = c & 3; pick(a, b, [0, c.min(1), c.min(2), c]) }),
        Some(_) => w3!(a, b, c => { let c = (c & 1) * 2; pick(a, b, [c, c + 1, c, c + 1]) }),
    };
    let op = Op::W3(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?);
    cx.emit(Kind::Integer, op)
}

/// The bit field of `length` from `start`, sign-extended from its last bit or the operand's.
fn extract(value: u64, start: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (start, length) = (start & 255, length & 255);
    let sign = if signed && length > 0 { value >> (start + length - 1).min(width - 1) & 1 } else { 0 };
    let mut result = 0u64.wrapping_sub(sign);
    if start < width {
        let kept = length.min(width - start);
        let mask = if kept >= 64 { u64::MAX } else { (1 << kept) - 1 };
        result = if length == 0 { 0 } else { result & !mask | value >> start & mask };
    }
    if length == 0 { 0 } else { result }
}

/// `b` with the low bits of `a` in place of a field.
fn insert(a: u64, b: u64, start: u32, length: u32, width: u32) -> u64 {
    let (start, length) = (start & 255, length & 255);
    if start >= width || length == 0 {
        return b;
    }
    let kept = length.min(width - start);
    let mask = (if kept >= 64 { u64::MAX } else { (1 << kept) - 1 }) << start;
    b & !mask | a << start & mask
}

fn field(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    cx.finish(if base == "bfe" { 4 } else { 5 })?;
    let op = match (base, ty) {
        ("bfe", "u32" | "s32") => {
            let f = if ty == "u32" {
                w3!(a, b, c => extract(u64::from(a), b, c, 32, false) as u32)
            } else {
                w3!(a, b, c => extract(u64::from(a), b, c, 32, true) as u32)
            };
            Op::W3(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?)
        }
        ("bfe", "u64" | "s64") => {
            let f = if ty == "u64" {
                lanes!(u64; a: u64, b: u32, c: u32; extract(a, b, c, 64, false)) as FnDDWW
            } else {
                lanes!(u64; a: u64, b: u32, c: u32; extract(a, b, c, 64, true)) as FnDDWW
            };
            Op::Ddww(f, cx.d_dst(0)?, cx.d(1)?, cx.w(2, 32)?, cx.w(3, 32)?)
        }
        ("bfi", "b32") => {
            let f = lanes!(u32; a: u32, b: u32, c: u32, d: u32;
                insert(u64::from(a), u64::from(b), c, d, 32) as u32) as FnW4;
            let args = [cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?, cx.w(4, 32)?];
            Op::W4(f, cx.w_dst(0, 32)?, args)
        }
        ("bfi", "b64") => {
            let f = lanes!(u64; a: u64, b: u64, c: u32, d: u32; insert(a, b, c, d, 64)) as FnDDDWW;
            Op::Dddww(f, cx.d_dst(0)?, cx.d(1)?, cx.d(2)?, cx.w(3, 32)?, cx.w(4, 32)?)
        }
        _ => return cx.unknown(),
    };
    cx.emit(Kind::Integer, op)
}

/// Position of the highest bit that differs from the sign.
fn find(value: u64, width: u32, signed: bool, as_shift: bool) -> u32 {
    let negative = signed && value >> (width - 1) & 1 == 1;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let value = if negative { !value & mask } else { value };
    if value == 0 {
        return u32::MAX;
    }
    let at = 63 - value.leading_zeros();
    if as_shift { width - 1 - at } else { at }
}

fn count(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let as_shift = base == "bfind" && cx.take("shiftamt");
    if base == "bmsk" {
        let clamp = cx.take("clamp");
        if !clamp && !cx.take("wrap") {
            return cx.unknown();
        }
        cx.finish(3)?;
        let f = if clamp {
            w2!(a, b => insert(u64::MAX, 0, a.min(32), b.min(32), 32) as u32)
        } else {
            w2!(a, b => insert(u64::MAX, 0, a & 31, b & 31, 32) as u32)
        };
        let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
        return cx.emit(Kind::Integer, op);
    }
    cx.finish(2)?;
    let op = match (base, ty) {
        ("brev", "b64") => Op::D1(d1!(a => a.reverse_bits()), cx.d_dst(0)?, cx.d(1)?),
        (_, "b64" | "u64" | "s64") => {
            let f = match (base, ty, as_shift) {
                ("clz", "b64", _) => wd!(a => a.leading_zeros()),
                ("popc", "b64", _) => wd!(a => a.count_ones()),
                ("bfind", "u64", false) => wd!(a => find(a, 64, false, false)),
                ("bfind", "u64", true) => wd!(a => find(a, 64, false, true)),
                ("bfind", "s64", false) => wd!(a => find(a, 64, true, false)),
                ("bfind", "s64", true) => wd!(a => find(a, 64, true, true)),
                _ => return cx.unknown(),
            };
            Op::WD(f, cx.w_dst(0, 32)?, cx.d(1)?)
        }
        _ => {
            let f = match (base, ty, as_shift) {
                ("brev", "b32", _) => w1!(a => a.reverse_bits()),
                ("clz", "b32", _) => w1!(a => a.leading_zeros()),
                ("popc", "b32", _) => w1!(a => a.count_ones()),
                ("bfind", "u32", false) => w1!(a => find(u64::from(a), 32, false, false)),
                ("bfind", "u32", true) => w1!(a => find(u64::from(a), 32, false, true)),
                ("bfind", "s32", false) => w1!(a => find(u64::from(a), 32, true, false)),
                ("bfind", "s32", true) => w1!(a => find(u64::from(a), 32, true, true)),
                _ => return cx.unknown(),
            };
            Op::W1(f, cx.w_dst(0, 32)?, cx.w(1, 32)?)
        }
    };
    cx.emit(Kind::Integer, op)
}

/// `setp` and `set`.
pub(super) fn compare(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    let ty = cx.ty()?;
    let result = if base == "set" { Some(cx.ty()?) } else { None };
    let ftz = cx.take("ftz");
    let with = cx.take_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let Some(order) = cx.mods.pop() else { return cx.unknown() };
    cx.finish(if with.is_some() { 4 } else { 3 })?;
    let with = match with {
        Some(logic) => {
            let (p, flip) = cx.p(3)?;
            Some((logic, p, flip))
        }
        None => None,
    };
    enum Comparison {
        Word(FnCmpW, W, W),
        Double(FnCmpD, D, D),
    }
    let comparison = if matches!(ty, "u64" | "s64" | "b64" | "f64") {
        let Some(f) = double_comparison(order, ty) else { return cx.unknown() };
        Comparison::Double(f, cx.d(1)?, cx.d(2)?)
    } else {
        let Some((f, bits)) = word_comparison(order, ty, ftz) else { return cx.unknown() };
        Comparison::Word(f, cx.w(1, bits)?, cx.w(2, bits)?)
    };
    let kind = if ty.contains('f') { Kind::Float } else { Kind::Integer };
    let Some(result) = result else {
        let (p, q) = match cx.operand(0)? {
            Operand::Pair(p, q) => (cx.p_dst_of(p, 0)?, Some(cx.p_dst_of(q, 0)?)),
            _ => (cx.p_dst(0)?, None),
        };
        let dst = SetDst { p, q, with };
        return match comparison {
            Comparison::Word(f, a, b) => cx.emit(kind, Op::CmpW(f, dst, a, b)),
            Comparison::Double(f, a, b) => cx.emit(kind, Op::CmpD(f, dst, a, b)),
        };
    };
    let (one, bits) = match result {
        "u32" | "s32" => (u32::MAX, 32),
        "f32" => (1.0f32.to_bits(), 32),
        "u16" | "s16" => (0xffff, 16),
        "f16" => (0x3c00, 16),
        "bf16" => (0x3f80, 16),
        _ => return cx.unknown(),
    };
    let p = P(cx.linker.new_p());
    let dst = SetDst { p, q: None, with };
    match comparison {
        Comparison::Word(f, a, b) => cx.emit(Kind::Part, Op::CmpW(f, dst, a, b))?,
        Comparison::Double(f, a, b) => cx.emit(Kind::Part, Op::CmpD(f, dst, a, b))?,
    }
    let one = cx.linker.w_const(super::Const::Value(u64::from(one)));
    let zero = cx.linker.w_const(super::Const::Value(0));
    let op = Op::SelW(cx.w_dst(0, bits)?, one, zero, p);
    cx.emit(kind, op)
}

/// Comparisons of integers after a conversion of the lanes.
macro_rules! integers {
    ($lane:ty, $order:expr, $convert:ty) => {
        match $order {
            "eq" => Some(cmp!($lane; a, b => a as $convert == b as $convert)),
            "ne" => Some(cmp!($lane; a, b => a as $convert != b as $convert)),
            "lt" | "lo" => Some(cmp!($lane; a, b => (a as $convert) < b as $convert)),
            "le" | "ls" => Some(cmp!($lane; a, b => a as $convert <= b as $convert)),
            "gt" | "hi" => Some(cmp!($lane; a, b => a as $convert > b as $convert)),
            "ge" | "hs" => Some(cmp!($lane; a, b => a as $convert >= b as $convert)),
            _ => None,
        }
    };
}

/// Comparisons of numbers; those that end in `u` hold for NaN too.
macro_rules! numbers {
    ($lane:ty, $order:expr, $number:expr) => {
        match $order {
            "eq" => Some(cmp!($lane; a, b => $number(a) == $number(b))),
            "ne" => Some(cmp!($lane; a, b => $number(a) < $number(b) || $number(a) > $number(b))),
            "lt" => Some(cmp!($lane; a, b => $number(a) < $number(b))),
            "le" => Some(cmp!($lane; a, b => $number(a) <= $number(b))),
            "gt" => Some(cmp!($lane; a, b => $number(a) > $number(b))),
            "ge" => Some(cmp!($lane; a, b => $number(a) >= $number(b))),
            "equ" => Some(cmp!($lane; a, b => !($number(a) < $number(b) || $number(a) > $number(b)))),
            "neu" => Some(cmp!($lane; a, b => $number(a) != $number(b))),
            "ltu" => Some(cmp!($lane; a, b => $number(a).partial_cmp(&$number(b)).is_none_or(|o| o.is_lt()))),
            "leu" => Some(cmp!($lane; a, b => $number(a).partial_cmp(&$number(b)).is_none_or(|o| o.is_le()))),
            "gtu" => Some(cmp!($lane; a, b => $number(a).partial_cmp(&$number(b)).is_none_or(|o| o.is_gt()))),
            "geu" => Some(cmp!($lane; a, b => $number(a).partial_cmp(&$number(b)).is_none_or(|o| o.is_ge()))),
            "num" => Some(cmp!($lane; a, b => !$number(a).is_nan() && !$number(b).is_nan())),
            "nan" => Some(cmp!($lane; a, b => $number(a).is_nan() || $number(b).is_nan())),
            _ => None,
        }
    };
}

fn word_comparison(order: &str, ty: &str, ftz: bool) -> Option<(FnCmpW, u32)> {
    use crate::tensor::float::{bf16_to_f32, f16_to_f32, flush};
    fn flushed(bits: u32) -> f32 {
        flush(f32::from_bits(bits))
    }
    fn half(bits: u32) -> f32 {
        f16_to_f32(bits as u16)
    }
    fn brain(bits: u32) -> f32 {
        bf16_to_f32(bits as u16)
    }
    let unsigned_order = matches!(order, "lo" | "ls" | "hi" | "hs");
    let equality = matches!(order, "eq" | "ne");
    let f: Option<FnCmpW> = match ty {
        "b16" | "b32" if !equality => None,
        "u16" | "b16" => integers!(u32, order, u16),
        "u32" | "b32" => integers!(u32, order, u32),
        "s16" if !unsigned_order => integers!(u32, order, i16),
        "s32" if !unsigned_order => integers!(u32, order, i32),
        "f32" if ftz => numbers!(u32, order, flushed),
        "f32" => numbers!(u32, order, f32::from_bits),
        "f16" => numbers!(u32, order, half),
        "bf16" => numbers!(u32, order, brain),
        _ => None,
    };
    Some((f?, if ty.ends_with("16") { 16 } else { 32 }))
}

fn double_comparison(order: &str, ty: &str) -> Option<FnCmpD> {
    let unsigned_order = matches!(order, "lo" | "ls" | "hi" | "hs");
    match ty {
        "b64" if !matches!(order, "eq" | "ne") => None,
        "u64" | "b64" => integers!(u64, order, u64),
        "s64" if !unsigned_order => integers!(u64, order, i64),
        "f64" => numbers!(u64, order, f64::from_bits),
        _ => None,
    }
}
