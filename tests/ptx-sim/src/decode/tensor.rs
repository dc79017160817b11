//! Matrix instructions: products of fragments, fragments to and from shared memory, products of a warpgroup.

use super::cx::{Cx, Result};
use super::memory::take_space;
use super::op::*;
use crate::error::Space;
use crate::parse::Operand;
use crate::tensor::float::Half;
use crate::tensor::ldmatrix::{Count, Order};
use crate::tensor::mma::MmaKind;
use crate::tensor::wgmma::{Columns, Major, Sign};

pub(super) use super::bulk::bulk;

/// An instruction that the functions of [`crate::tensor`] carry out.
#[derive(Debug, Clone)]
pub(crate) enum TensorOp {
    Mma {
        kind: MmaKind,
        d: Vec<W>,
        a: Vec<W>,
        b: Vec<W>,
        c: Vec<W>,
    },
    LoadMatrix {
        count: Count,
        order: Order,
        d: Vec<W>,
        addr: Addr,
        space: Space,
    },
    StoreMatrix {
        count: Count,
        order: Order,
        a: Vec<W>,
        addr: Addr,
        space: Space,
    },
    Wgmma(WarpgroupOp),
    /// Orders registers and shared memory before `wgmma`.
    WgmmaFence,
    WgmmaCommit,
    /// Until at most so many groups of the warp are open.
    WgmmaWait(u32),
    Bulk(super::bulk::BulkOp),
}

/// `wgmma.mma_async`.
#[derive(Debug, Clone)]
pub(crate) struct WarpgroupOp {
    pub half: Half,
    pub columns: Columns,
    pub d: Vec<W>,
    pub a: WarpgroupA,
    /// Descriptor of B.
    pub b: D,
    pub b_major: Major,
    /// Predicate and what flips it: whether the accumulators are added.
    pub accumulate: (P, u32),
    pub a_sign: Sign,
    pub b_sign: Sign,
}

/// Where A is.
#[derive(Debug, Clone)]
pub(crate) enum WarpgroupA {
    Registers([W; 4]),
    /// Descriptor.
    Shared(D, Major),
}

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "mma" => mma(cx),
        "ldmatrix" | "stmatrix" => matrix(cx, base == "ldmatrix"),
        "wgmma" => warpgroup(cx),
        _ => cx.unknown(),
    }
}

/// The parts of a vector operand, of which there must be so many.
fn parts<'t>(cx: &Cx<'_, 't>, index: usize, count: usize) -> Result<&'t [Operand]> {
    let parts = match cx.operand(index)? {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if parts.len() == count {
        Ok(parts)
    } else {
        cx.operand_error(index, "a vector of as many registers as the shape has")
    }
}

fn sources(cx: &mut Cx<'_, '_>, index: usize, count: usize) -> Result<Vec<W>> {
    parts(cx, index, count)?.iter().map(|part| cx.w_of(part, index, 32)).collect()
}

fn destinations(cx: &mut Cx<'_, '_>, index: usize, count: usize) -> Result<Vec<W>> {
    parts(cx, index, count)?.iter().map(|part| cx.w_dst_of(part, index, 32)).collect()
}

fn mma(cx: &mut Cx<'_, '_>) -> Result<()> {
    if !cx.take("sync") || !cx.take("aligned") {
        return cx.unknown();
    }
    let Some(kind) = MmaKind::from_modifiers(&cx.mods) else {
        return cx.unknown();
    };
    cx.mods.clear();
    cx.finish(4)?;
    let op = TensorOp::Mma {
        kind,
        d: destinations(cx, 0, kind.c_registers())?,
        a: sources(cx, 1, kind.a_registers())?,
        b: sources(cx, 2, kind.b_registers())?,
        c: sources(cx, 3, kind.c_registers())?,
    };
    cx.emit(Kind::Tensor, Op::Tensor(Box::new(op)))
}

fn matrix(cx: &mut Cx<'_, '_>, load: bool) -> Result<()> {
    if !cx.take("sync") || !cx.take("aligned") || !cx.take("m8n8") || !cx.take("b16") {
        return cx.unknown();
    }
    let Some(count) = cx.take_of(&[("x1", Count::X1), ("x2", Count::X2), ("x4", Count::X4)]) else {
        return cx.unknown();
    };
    let order = if cx.take("trans") { Order::Transposed } else { Order::Plain };
    let space = take_space(cx);
    cx.finish(2)?;
    let registers = count.matrices();
    cx.linker.granule = cx.linker.granule.min(4);
    let op = if load {
        let d = destinations(cx, 0, registers)?;
        let (addr, space) = cx.address(1, space)?;
        TensorOp::LoadMatrix { count, order, d, addr, space }
    } else {
        let (addr, space) = cx.address(0, space)?;
        TensorOp::StoreMatrix { count, order, a: sources(cx, 1, registers)?, addr, space }
    };
    cx.emit(Kind::Tensor, Op::Tensor(Box::new(op)))
}

fn warpgroup(cx: &mut Cx<'_, '_>) -> Result<()> {
    if !cx.take("sync") || !cx.take("aligned") {
        return cx.unknown();
    }
    let op = if cx.take("fence") {
        cx.finish(0)?;
        TensorOp::WgmmaFence
    } else if cx.take("commit_group") {
        cx.finish(0)?;
        TensorOp::WgmmaCommit
    } else if cx.take("wait_group") {
        cx.finish(1)?;
        let Operand::Int(groups) = cx.operand(0)? else {
            return cx.operand_error(0, "a number");
        };
        TensorOp::WgmmaWait(*groups as u32)
    } else if cx.take("mma_async") {
        TensorOp::Wgmma(product(cx)?)
    } else {
        return cx.unknown();
    };
    cx.emit(Kind::Tensor, Op::Tensor(Box::new(op)))
}

/// `wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 d, a, b, scale-d, scale-a, scale-b, trans-a, trans-b;`
/// `trans-a` is there only if A is in shared memory.
fn product(cx: &mut Cx<'_, '_>) -> Result<WarpgroupOp> {
    let (shape, half) = match cx.mods.as_slice() {
        [shape, "f32", "bf16", "bf16"] => (*shape, Half::Bf16),
        [shape, "f32", "f16", "f16"] => (*shape, Half::F16),
        _ => return cx.unknown(),
    };
    let n = shape.strip_prefix("m64n").and_then(|rest| rest.strip_suffix("k16")?.parse().ok());
    let Some(columns) = n.and_then(Columns::new) else {
        return cx.unknown();
    };
    cx.mods.clear();
    let in_registers = matches!(cx.operand(1)?, Operand::Vector(_));
    cx.finish(if in_registers { 7 } else { 8 })?;
    let a = if in_registers {
        let registers = sources(cx, 1, 4)?;
        WarpgroupA::Registers(std::array::from_fn(|index| registers[index]))
    } else {
        WarpgroupA::Shared(cx.d(1)?, major(cx, 6)?)
    };
    Ok(WarpgroupOp {
        half,
        columns,
        d: destinations(cx, 0, columns.registers())?,
        a,
        b: cx.d(2)?,
        b_major: major(cx, if in_registers { 6 } else { 7 })?,
        accumulate: cx.p(3)?,
        a_sign: sign(cx, 4)?,
        b_sign: sign(cx, 5)?,
    })
}

fn major(cx: &Cx<'_, '_>, index: usize) -> Result<Major> {
    match cx.operand(index)? {
        Operand::Int(0) => Ok(Major::K),
        Operand::Int(1) => Ok(Major::Mn),
        _ => cx.operand_error(index, "0 or 1"),
    }
}

fn sign(cx: &Cx<'_, '_>, index: usize) -> Result<Sign> {
    match cx.operand(index)? {
        Operand::Int(1) => Ok(Sign::Plus),
        Operand::Int(value) if *value == u64::MAX => Ok(Sign::Minus),
        _ => cx.operand_error(index, "1 or -1"),
    }
}
