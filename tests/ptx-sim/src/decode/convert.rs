//! `cvt` between all types.

use super::cx::{Cx, Result};
use super::lanes::lanes;
use super::op::*;
use crate::tensor::float::{
    Format, Half, Narrowing, Rounding, f32_bits, f32_to_bf16, f32_to_bf16x2, f32_to_f16, f32_to_f16x2,
    f32_to_tf32, f64_to_f16, f64_to_f32, flush, round,
};

/// How a conversion rounds and clips.
#[derive(Clone, Copy, Default)]
struct How {
    rounding: Option<Rounding>,
    /// To an integral value.
    integral: bool,
    ftz: bool,
    sat: bool,
    relu: bool,
    satfinite: bool,
}

impl How {
    fn narrowing(self) -> Narrowing {
        Narrowing { rounding: self.rounding.unwrap_or_default(), relu: self.relu, saturate: self.satfinite }
    }
}

const ROUNDINGS: [(&str, (Rounding, bool)); 9] = [
    ("rn", (Rounding::NearestEven, false)),
    ("rz", (Rounding::Zero, false)),
    ("rm", (Rounding::Down, false)),
    ("rp", (Rounding::Up, false)),
    ("rna", (Rounding::NearestAway, false)),
    ("rni", (Rounding::NearestEven, true)),
    ("rzi", (Rounding::Zero, true)),
    ("rmi", (Rounding::Down, true)),
    ("rpi", (Rounding::Up, true)),
];

pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Result<()> {
    let from = cx.ty()?;
    let to = cx.ty()?;
    let rounding = cx.take_of(&ROUNDINGS);
    let how = How {
        rounding: rounding.map(|(rounding, _)| rounding),
        integral: rounding.is_some_and(|(_, integral)| integral),
        ftz: cx.take("ftz"),
        sat: cx.take("sat"),
        relu: cx.take("relu"),
        satfinite: cx.take("satfinite"),
    };
    if matches!(to, "f16x2" | "bf16x2") {
        return pair(cx, to, from, how);
    }
    cx.finish(2)?;
    match (is_float(to), is_float(from)) {
        (false, false) => integers(cx, to, from, how),
        _ if is_integer(to) || is_integer(from) || (is_float(to) && is_float(from)) => {
            numbers(cx, to, from, how)
        }
        _ => cx.unknown(),
    }
}

fn is_float(ty: &str) -> bool {
    matches!(ty, "f16" | "bf16" | "f32" | "f64" | "tf32")
}

fn is_integer(ty: &str) -> bool {
    matches!(ty, "u8" | "s8" | "u16" | "s16" | "u32" | "s32" | "u64" | "s64")
}

/// `cvt.rn.bf16x2.f32 d, a, b`.
fn pair(cx: &mut Cx<'_, '_>, to: &str, from: &str, how: How) -> Result<()> {
    cx.finish(3)?;
    if from != "f32" || how.sat || how.integral {
        return cx.unknown();
    }
    macro_rules! variants {
        ($convert:ident) => {
            match (how.rounding, how.relu, how.satfinite) {
                (Some(Rounding::NearestEven), false, false) => variants!($convert, NearestEven, false, false),
                (Some(Rounding::NearestEven), true, false) => variants!($convert, NearestEven, true, false),
                (Some(Rounding::NearestEven), false, true) => variants!($convert, NearestEven, false, true),
                (Some(Rounding::NearestEven), true, true) => variants!($convert, NearestEven, true, true),
                (Some(Rounding::Zero), false, false) => variants!($convert, Zero, false, false),
                (Some(Rounding::Zero), true, false) => variants!($convert, Zero, true, false),
                (Some(Rounding::Zero), false, true) => variants!($convert, Zero, false, true),
                (Some(Rounding::Zero), true, true) => variants!($convert, Zero, true, true),
                _ => return cx.unknown(),
            }
        };
        ($convert:ident, $rounding:ident, $relu:expr, $saturate:expr) => {
            lanes!(u32; a: u32, b: u32; {
                const HOW: Narrowing =
                    Narrowing { rounding: Rounding::$rounding, relu: $relu, saturate: $saturate };
                $convert(f32::from_bits(a), f32::from_bits(b), HOW)
            }) as FnW2
        };
    }
    let f = if to == "bf16x2" { variants!(f32_to_bf16x2) } else { variants!(f32_to_f16x2) };
    let op = Op::W2(f, cx.w_dst(0, 32)?, cx.w(1, 32)?, cx.w(2, 32)?);
    cx.emit(Kind::Convert, op)
}

fn emit_unary(cx: &mut Cx<'_, '_>, to_bits: u32, from_bits: u32, f: Convert) -> Result<()> {
    let op = match f {
        Convert::W(f) => Op::W1(f, cx.w_dst(0, to_bits)?, cx.w(1, from_bits)?),
        Convert::D(f) => Op::D1(f, cx.d_dst(0)?, cx.d(1)?),
        Convert::Narrow(f) => Op::WD(f, cx.w_dst(0, to_bits)?, cx.d(1)?),
        Convert::Widen(f) => Op::DW(f, cx.d_dst(0)?, cx.w(1, from_bits)?),
    };
    cx.emit(Kind::Convert, op)
}

/// A function between registers of either width.
#[derive(Clone, Copy)]
enum Convert {
    W(FnW1),
    D(FnD1),
    Narrow(FnWD),
    Widen(FnDW),
}

fn bits(ty: &str) -> u32 {
    match ty {
        "u8" | "s8" => 8,
        "u16" | "s16" | "f16" | "bf16" => 16,
        "u64" | "s64" | "f64" => 64,
        _ => 32,
    }
}

/// Integers to integers: through 128 bits, which hold all of them.
fn integers(cx: &mut Cx<'_, '_>, to: &str, from: &str, how: How) -> Result<()> {
    if how.rounding.is_some() || how.ftz || how.relu || how.satfinite {
        return cx.unknown();
    }
    // An operand or result may lie in a register larger than its type; a signed result fills it.
    let destination = cx.bits(cx.operand(0)?).unwrap_or(bits(to));
    let source = cx.bits(cx.operand(1)?).unwrap_or(bits(from));
    let clip = how.sat;
    macro_rules! from_type {
        ($lane:ty, $out:ty, $wrap:expr, $fn:ty, $s:ty) => {
            match (to, destination) {
                ("u8", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, u8, u64)),
                ("u16", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, u16, u64)),
                ("u32", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, u32, u64)),
                ("u64", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, u64, u64)),
                ("s8", 16) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i8, u16)),
                ("s8", 32) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i8, u32)),
                ("s8", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i8, u64)),
                ("s16", 16) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i16, u16)),
                ("s16", 32) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i16, u32)),
                ("s16", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i16, u64)),
                ("s32", 32) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i32, u32)),
                ("s32", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i32, u64)),
                ("s64", _) => Some(from_type!(@ $lane, $out, $wrap, $fn, $s, i64, u64)),
                _ => None,
            }
        };
        (@ $lane:ty, $out:ty, $wrap:expr, $fn:ty, $s:ty, $d:ty, $fill:ty) => {
            if clip {
                $wrap(lanes!($out; a: $lane; {
                    let value = i128::from(a as $s).clamp(i128::from(<$d>::MIN), i128::from(<$d>::MAX));
                    value as $d as $fill as $out
                }) as $fn)
            } else {
                $wrap(lanes!($out; a: $lane; a as $s as $d as $fill as $out) as $fn)
            }
        };
    }
    macro_rules! all_types {
        ($lane:ty, $out:ty, $wrap:expr, $fn:ty) => {
            match from {
                "u8" => from_type!($lane, $out, $wrap, $fn, u8),
                "s8" => from_type!($lane, $out, $wrap, $fn, i8),
                "u16" => from_type!($lane, $out, $wrap, $fn, u16),
                "s16" => from_type!($lane, $out, $wrap, $fn, i16),
                "u32" => from_type!($lane, $out, $wrap, $fn, u32),
                "s32" => from_type!($lane, $out, $wrap, $fn, i32),
                "u64" => from_type!($lane, $out, $wrap, $fn, u64),
                "s64" => from_type!($lane, $out, $wrap, $fn, i64),
                _ => None,
            }
        };
    }
    if (source < bits(from) && source != 0) || destination < bits(to) {
        return cx.operand_error(usize::from(destination >= bits(to)), "a register that holds the type");
    }
    let f = match (destination == 64, source == 64) {
        (false, false) => all_types!(u32, u32, Convert::W, FnW1),
        (false, true) => all_types!(u64, u32, Convert::Narrow, FnWD),
        (true, false) => all_types!(u32, u64, Convert::Widen, FnDW),
        (true, true) => all_types!(u64, u64, Convert::D, FnD1),
    };
    let Some(f) = f else { return cx.unknown() };
    emit_unary(cx, bits(to), bits(from).min(32), f)
}

/// Conversions that have a float on one side at least.
fn numbers(cx: &mut Cx<'_, '_>, to: &str, from: &str, how: How) -> Result<()> {
    if let Some(f) = frequent(to, from, how) {
        return emit_unary(cx, bits(to), bits(from), f);
    }
    if is_integer(to) && !how.integral {
        return cx.unknown();
    }
    macro_rules! modes {
        ($make:ident, $($arg:tt)*) => {
            match how.rounding.unwrap_or_default() {
                Rounding::NearestEven => $make!(NearestEven, $($arg)*),
                Rounding::NearestAway => $make!(NearestAway, $($arg)*),
                Rounding::Zero => $make!(Zero, $($arg)*),
                Rounding::Down => $make!(Down, $($arg)*),
                Rounding::Up => $make!(Up, $($arg)*),
            }
        };
    }
    // From float to integer: round, clip, NaN to the value that the ISA gives.
    macro_rules! to_integer {
        ($mode:ident, $lane:ty, $out:ty, $wrap:expr, $fn:ty, $read:expr, $d:ty, $fill:ty, $nan:expr) => {
            $wrap(lanes!($out; a: $lane; {
                let value = integral(Rounding::$mode, $read(a));
                let result = if value.is_nan() { $nan } else { value as $d };
                result as $fill as $out
            }) as $fn)
        };
    }
    macro_rules! integer_types {
        ($lane:ty, $read:expr, $word:expr, $wordfn:ty, $double:expr, $doublefn:ty) => {
            match to {
                "u8" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, u8, u16, 0)),
                "s8" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, i8, u16, 0)),
                "u16" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, u16, u16, 0)),
                "s16" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, i16, u16, 0)),
                "u32" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, u32, u32, 0)),
                "s32" => Some(modes!(to_integer, $lane, u32, $word, $wordfn, $read, i32, u32, 0)),
                "u64" => Some(modes!(to_integer, $lane, u64, $double, $doublefn, $read, u64, u64, 1 << 63)),
                "s64" => Some(modes!(to_integer, $lane, u64, $double, $doublefn, $read, i64, u64, i64::MIN)),
                _ => None,
            }
        };
    }
    if is_integer(to) {
        let f = match from {
            "f32" if how.ftz => integer_types!(u32, read_ftz, Convert::W, FnW1, Convert::Widen, FnDW),
            "f32" => integer_types!(u32, read_f32, Convert::W, FnW1, Convert::Widen, FnDW),
            "f16" => integer_types!(u32, read_f16, Convert::W, FnW1, Convert::Widen, FnDW),
            "bf16" => integer_types!(u32, read_bf16, Convert::W, FnW1, Convert::Widen, FnDW),
            "f64" => integer_types!(u64, f64::from_bits, Convert::Narrow, FnWD, Convert::D, FnD1),
            _ => None,
        };
        let Some(f) = f else { return cx.unknown() };
        return emit_unary(cx, bits(to), bits(from), f);
    }
    to_float(cx, to, from, how)
}

fn read_f32(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

fn read_ftz(bits: u32) -> f64 {
    f64::from(flush(f32::from_bits(bits)))
}

fn read_f16(bits: u32) -> f64 {
    f64::from(Half::F16.widen(bits as u16))
}

fn read_bf16(bits: u32) -> f64 {
    f64::from(Half::Bf16.widen(bits as u16))
}

/// Rounds to an integral value.
fn integral(rounding: Rounding, value: f64) -> f64 {
    match rounding {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// The conversions that kernels are full of, in loops that vectorise.
fn frequent(to: &str, from: &str, how: How) -> Option<Convert> {
    let nearest = matches!(how.rounding, None | Some(Rounding::NearestEven)) && !how.integral;
    if how.sat || how.relu || how.satfinite || how.ftz || !nearest {
        return None;
    }
    Some(match (to, from) {
        ("f32", "bf16") => Convert::W(lanes!(u32; a: u32; f32_bits(Half::Bf16.widen(a as u16))) as FnW1),
        ("f32", "f16") => Convert::W(lanes!(u32; a: u32; f32_bits(Half::F16.widen(a as u16))) as FnW1),
        ("bf16", "f32") => Convert::W(
            lanes!(u32; a: u32; u32::from(f32_to_bf16(f32::from_bits(a), Narrowing::default()))) as FnW1,
        ),
        ("f16", "f32") => Convert::W(
            lanes!(u32; a: u32; u32::from(f32_to_f16(f32::from_bits(a), Narrowing::default()))) as FnW1,
        ),
        ("f32", "s32") => Convert::W(lanes!(u32; a: u32; (a as i32 as f32).to_bits()) as FnW1),
        ("f32", "u32") => Convert::W(lanes!(u32; a: u32; (a as f32).to_bits()) as FnW1),
        ("f32", "u16") => Convert::W(lanes!(u32; a: u32; f32::from(a as u16).to_bits()) as FnW1),
        ("f32", "s16") => Convert::W(lanes!(u32; a: u32; f32::from(a as i16).to_bits()) as FnW1),
        ("f32", "s8") => Convert::W(lanes!(u32; a: u32; f32::from(a as i8).to_bits()) as FnW1),
        ("f32", "u8") => Convert::W(lanes!(u32; a: u32; f32::from(a as u8).to_bits()) as FnW1),
        ("f64", "f32") => Convert::Widen(lanes!(u64; a: u32; {
            let value = f64::from(f32::from_bits(a));
            if value.is_nan() { 0x7fff_ffff_ffff_ffff } else { value.to_bits() }
        }) as FnDW),
        ("f64", "s32") => Convert::Widen(lanes!(u64; a: u32; f64::from(a as i32).to_bits()) as FnDW),
        ("f64", "u32") => Convert::Widen(lanes!(u64; a: u32; f64::from(a).to_bits()) as FnDW),
        ("f64", "s64") => Convert::D(lanes!(u64; a: u64; (a as i64 as f64).to_bits()) as FnD1),
        ("f64", "u64") => Convert::D(lanes!(u64; a: u64; (a as f64).to_bits()) as FnD1),
        ("f32", "s64") => Convert::Narrow(lanes!(u32; a: u64; (a as i64 as f32).to_bits()) as FnWD),
        ("f32", "u64") => Convert::Narrow(lanes!(u32; a: u64; (a as f32).to_bits()) as FnWD),
        _ => return None,
    })
}

/// Everything else that gives a float: through f64, rounded once.
fn to_float(cx: &mut Cx<'_, '_>, to: &str, from: &str, how: How) -> Result<()> {
    let read: fn(u64) -> f64 = match from {
        "u8" => |a| f64::from(a as u8),
        "s8" => |a| f64::from(a as i8),
        "u16" => |a| f64::from(a as u16),
        "s16" => |a| f64::from(a as i16),
        "u32" => |a| f64::from(a as u32),
        "s32" => |a| f64::from(a as i32),
        "u64" => |a| wide_to_odd(false, a),
        "s64" => |a| wide_to_odd((a as i64) < 0, (a as i64).unsigned_abs()),
        "f16" => |a| f64::from(Half::F16.widen(a as u16)),
        "bf16" => |a| f64::from(Half::Bf16.widen(a as u16)),
        "f32" if how.ftz => |a| f64::from(flush(f32::from_bits(a as u32))),
        "f32" => |a| f64::from(f32::from_bits(a as u32)),
        "f64" => f64::from_bits,
        _ => return cx.unknown(),
    };
    let wide = |cx: &mut Cx<'_, '_>, ty: &str, index: usize, dst: bool| -> Result<Reg> {
        let operand = cx.operand(index)?;
        if dst { cx.dst_of(operand, index, bits(ty)) } else { cx.src_of(operand, index, bits(ty)) }
    };
    let write: Write = match to {
        "f16" => Write::F16,
        "bf16" => Write::Bf16,
        "f32" => Write::F32,
        "tf32" => Write::Tf32,
        "f64" => Write::F64,
        _ => return cx.unknown(),
    };
    if to == "f64" && how.rounding.is_some_and(|r| r != Rounding::NearestEven) && !how.integral {
        return cx.unknown();
    }
    let dst = wide(cx, to, 0, true)?;
    let src = wide(cx, from, 1, false)?;
    let how = ToFloat {
        read,
        write,
        narrowing: how.narrowing(),
        integral: how.integral,
        ftz: how.ftz,
        sat: how.sat,
    };
    cx.emit(Kind::Convert, Op::ToFloat(Box::new(how), dst, src))
}

/// An integer as f64 that rounds to narrower types as the integer would: inexact ones are made odd.
fn wide_to_odd(negative: bool, magnitude: u64) -> f64 {
    let lost = 64u32.saturating_sub(magnitude.leading_zeros()).saturating_sub(53);
    let kept = magnitude >> lost << lost;
    let sticky = if kept == magnitude { 0 } else { 1 << lost };
    let value = (kept | sticky) as f64;
    if negative { -value } else { value }
}

/// The type that a [`ToFloat`] gives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Write {
    F16,
    Bf16,
    F32,
    Tf32,
    F64,
}

/// A conversion to a float that is too rare for a loop of its own.
#[derive(Debug, Clone)]
pub(crate) struct ToFloat {
    read: fn(u64) -> f64,
    write: Write,
    narrowing: Narrowing,
    integral: bool,
    ftz: bool,
    sat: bool,
}

impl ToFloat {
    /// Converts one lane.
    pub(crate) fn apply(&self, bits: u64) -> u64 {
        let mut value = (self.read)(bits);
        if self.integral {
            value = integral(self.narrowing.rounding, value);
        }
        if self.sat {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        match self.write {
            Write::F16 => u64::from(f64_to_f16(value, self.narrowing)),
            Write::Bf16 => u64::from(crate::tensor::float::f64_to_bf16(value, self.narrowing)),
            Write::F32 => {
                let value = f64_to_f32(value, self.narrowing);
                u64::from(f32_bits(if self.ftz { flush(value) } else { value }))
            }
            Write::Tf32 => {
                u64::from(f32_to_tf32(round(value, Format::F32, Narrowing::default()) as f32, self.narrowing))
            }
            Write::F64 if value.is_nan() => 0x7fff_ffff_ffff_ffff,
            Write::F64 => value.to_bits(),
        }
    }
}
