//! Loads, stores, atomics.

use super::cx::{Cx, Result};
use super::op::*;
use crate::error::Space;
use crate::parse::Operand;
use crate::tensor::float::{Half, f32_bits, flush, pack, unpack};

/// Modifiers that say where data is cached or how accesses are ordered: every access here is coherent and in
/// program order.
const ORDER: [&str; 20] = [
    "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "ca",
    "cg", "cs", "lu", "cv", "wb", "wt", "nc", "mmio", "seq_cst",
];

/// Those of them that make an access strong.
const STRONG: [&str; 6] = ["volatile", "relaxed", "acquire", "release", "mmio", "seq_cst"];

fn drop_hints(cx: &mut Cx<'_, '_>) {
    cx.drop_mods(&ORDER);
    cx.mods.retain(|part| !part.starts_with("L1::") && !part.starts_with("L2::"));
}

/// The space that a modifier names; generic without one.
pub(super) fn take_space(cx: &mut Cx<'_, '_>) -> Space {
    cx.take_of(&[
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("shared::cluster", Space::Shared),
        ("local", Space::Local),
        ("const", Space::Const),
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("param::func", Space::Local),
    ])
    .unwrap_or(Space::Generic)
}

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "ld" | "ldu" | "st" => access(cx, base == "st"),
        "atom" | "red" => atomic(cx, base == "atom"),
        // Hints: nothing that a program can see.
        _ => cx.emit(Kind::Memory, Op::Nop),
    }
}

/// Bytes of a type in memory, and whether its sign fills a wider register.
fn memory_type(ty: &str) -> Option<(u8, bool)> {
    Some(match ty {
        "b8" | "u8" => (1, false),
        "s8" => (1, true),
        "b16" | "u16" | "f16" | "bf16" => (2, false),
        "s16" => (2, true),
        "b32" | "u32" | "f32" | "f16x2" | "bf16x2" => (4, false),
        "s32" => (4, true),
        "b64" | "u64" | "s64" | "f64" => (8, false),
        "b128" => (16, false),
        _ => return None,
    })
}

fn access(cx: &mut Cx<'_, '_>, store: bool) -> Result<()> {
    let strong = cx.mods.iter().any(|part| STRONG.contains(part));
    drop_hints(cx);
    let space = take_space(cx);
    let ty = cx.ty()?;
    let count = cx.take_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1u8);
    // A cache policy may follow.
    if !cx.mods.is_empty() || cx.operands.len() < 2 {
        return cx.unknown();
    }
    let Some((bytes, signed)) = memory_type(ty) else { return cx.unknown() };
    let (address_index, data_index) = if store { (0, 1) } else { (1, 0) };
    let (addr, space) = cx.address(address_index, space)?;
    let data = cx.operand(data_index)?;
    let parts: &[Operand] = match data {
        Operand::Vector(parts) => parts,
        single => std::slice::from_ref(single),
    };
    if parts.len() != usize::from(count) || u32::from(bytes) * u32::from(count) > 32 {
        return cx.operand_error(data_index, "as many registers as the type says");
    }
    let mut regs = Vec::with_capacity(parts.len());
    let mut extend = Extend::Zero;
    for part in parts {
        if bytes == 16 {
            let Some(halves) = cx.halves(part) else {
                return cx.operand_error(data_index, "a register of 128 bits");
            };
            regs.extend(halves.map(Reg::D));
            continue;
        }
        if signed && let Some(to) = cx.bits(part) {
            extend = Extend::Sign { from: u32::from(bytes) * 8, to };
        }
        regs.push(if store {
            cx.src_of(part, data_index, u32::from(bytes) * 8)?
        } else {
            cx.dst_of(part, data_index, u32::from(bytes) * 8)?
        });
    }
    let total = bytes * count;
    if matches!(space, Space::Shared | Space::Generic) {
        cx.linker.granule = cx.linker.granule.min(u32::from(total).trailing_zeros());
    }
    let access = Box::new(Access { space, addr, element: bytes.min(8), regs, extend, bytes: total, strong });
    let op = if store { Op::Store(access) } else { Op::Load(access) };
    cx.emit(Kind::Memory, op)
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn atomic(cx: &mut Cx<'_, '_>, returns: bool) -> Result<()> {
    drop_hints(cx);
    let noftz = cx.take("noftz");
    let space = take_space(cx);
    let ty = cx.ty()?;
    let Some(name) = cx.mods.pop() else { return cx.unknown() };
    let operands = if name == "cas" { 4 } else { 3 } - usize::from(!returns);
    cx.finish(operands)?;
    let Some((bytes, _)) = memory_type(ty).filter(|&(bytes, _)| (2..=8).contains(&bytes)) else {
        return cx.unknown();
    };
    let Some(f) = function(name, ty, noftz) else { return cx.unknown() };
    let at = usize::from(returns);
    let (addr, space) = cx.address(at, space)?;
    let bits = u32::from(bytes) * 8;
    let dst = if returns { cx.dst_of(cx.operand(0)?, 0, bits)? } else { Reg::Sink };
    let b = cx.src_of(cx.operand(at + 1)?, at + 1, bits)?;
    let c = if name == "cas" { cx.src_of(cx.operand(at + 2)?, at + 2, bits)? } else { Reg::Sink };
    if matches!(space, Space::Shared | Space::Generic) {
        cx.linker.granule = cx.linker.granule.min(u32::from(bytes).trailing_zeros());
    }
    cx.emit(Kind::Atomic, Op::Atomic(Box::new(Atomic { space, addr, bytes, f, dst, b, c })))
}

/// New value of memory, from the old one and the operands; the executor cuts it to the type's size.
fn function(name: &str, ty: &str, noftz: bool) -> Option<FnAtomic> {
    Some(match (name, ty) {
        ("add", "u32" | "s32" | "u64" | "s64") => |old, b, _| old.wrapping_add(b),
        // Atomic addition of f32 flushes subnormals in global memory on every card.
        ("add", "f32") => |old, b, _| u64::from(f32_bits(flush(flush(f32_of(old)) + flush(f32_of(b))))),
        ("add", "f64") => |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        ("add", "f16") if noftz => |old, b, _| u64::from(Half::F16.add(old as u16, b as u16)),
        ("add", "bf16") if noftz => |old, b, _| u64::from(Half::Bf16.add(old as u16, b as u16)),
        ("add", "f16x2") if noftz => |old, b, _| pairwise(Half::F16, old, b),
        ("add", "bf16x2") if noftz => |old, b, _| pairwise(Half::Bf16, old, b),
        ("and", "b32" | "b64") => |old, b, _| old & b,
        ("or", "b32" | "b64") => |old, b, _| old | b,
        ("xor", "b32" | "b64") => |old, b, _| old ^ b,
        ("exch", "b32" | "b64") => |_, b, _| b,
        ("cas", "b16" | "b32" | "b64") => |old, b, c| if old == b { c } else { old },
        ("min", "u32" | "u64") => |old, b, _| old.min(b),
        ("max", "u32" | "u64") => |old, b, _| old.max(b),
        ("min", "s32") => |old, b, _| (old as i32).min(b as i32) as u32 as u64,
        ("max", "s32") => |old, b, _| (old as i32).max(b as i32) as u32 as u64,
        ("min", "s64") => |old, b, _| (old as i64).min(b as i64) as u64,
        ("max", "s64") => |old, b, _| (old as i64).max(b as i64) as u64,
        ("inc", "u32") => |old, b, _| if old >= b { 0 } else { old + 1 },
        ("dec", "u32") => |old, b, _| if old == 0 || old > b { b } else { old - 1 },

        _ => return None,
    })
}

fn pairwise(half: Half, old: u64, b: u64) -> u64 {
    let ([a0, a1], [b0, b1]) = (unpack(old as u32), unpack(b as u32));
    u64::from(pack(half.add(a0, b0), half.add(a1, b1)))
}
