//! Bulk copies: `cp.async.bulk`, of bytes and of boxes of tensors.

use super::cx::{Cx, Result};
use super::op::*;
use super::tensor::TensorOp;
use crate::error::Space;
use crate::parse::{Base, Operand};

/// A bulk copy, or what is done to groups of them.
#[derive(Debug, Clone)]
pub(crate) enum BulkOp {
    /// Bytes from global to shared memory, completing on an mbarrier.
    Load {
        to: Addr,
        from: Addr,
        bytes: W,
        barrier: Addr,
    },
    /// Bytes from shared to global memory, in the group of the thread.
    Store {
        to: Addr,
        from: Addr,
        bytes: W,
    },
    /// A box from a tensor to shared memory, completing on an mbarrier.
    LoadTensor {
        to: Addr,
        map: TensorPlace,
        barrier: Addr,
    },
    /// A box from shared memory to a tensor, in the group of the thread.
    StoreTensor {
        map: TensorPlace,
        from: Addr,
    },
    Commit,
    /// Until at most so many groups of the thread are open. `read`: until their sources were read.
    Wait {
        groups: u32,
        read: bool,
    },
}

/// A tensor map and the corner of a box.
#[derive(Debug, Clone)]
pub(crate) struct TensorPlace {
    /// Generic address of the map.
    pub map: Addr,
    pub coordinates: Vec<W>,
}

/// `cp.async.bulk`, with `cp`, `async` and `bulk` taken.
pub(super) fn bulk(cx: &mut Cx<'_, '_>) -> Result<()> {
    let op = if cx.take("commit_group") {
        cx.finish(0)?;
        BulkOp::Commit
    } else if cx.take("wait_group") {
        let read = cx.take("read");
        cx.finish(1)?;
        let Operand::Int(groups) = cx.operand(0)? else {
            return cx.operand_error(0, "a number");
        };
        BulkOp::Wait { groups: *groups as u32, read }
    } else if cx.take("prefetch") {
        return cx.emit(Kind::Copy, Op::Nop);
    } else if cx.take("tensor") {
        tensor(cx)?
    } else {
        bytes(cx)?
    };
    cx.emit(Kind::Copy, Op::Tensor(Box::new(TensorOp::Bulk(op))))
}

/// Which way a copy goes: the order of the spaces, and how it completes.
fn loads(cx: &mut Cx<'_, '_>) -> Result<bool> {
    let spaces = ["global", "shared::cta", "shared::cluster"];
    let order: Vec<&str> = cx.mods.iter().copied().filter(|part| spaces.contains(part)).collect();
    cx.drop_mods(&spaces);
    match order.as_slice() {
        ["shared::cta" | "shared::cluster", "global"] if cx.take("mbarrier::complete_tx::bytes") => Ok(true),
        ["global", "shared::cta"] if cx.take("bulk_group") => Ok(false),
        _ => cx.unknown(),
    }
}

/// A cache policy comes last and changes nothing: the operands without it.
fn finish(cx: &mut Cx<'_, '_>, operands: usize) -> Result<()> {
    let policy = usize::from(cx.take("L2::cache_hint"));
    cx.finish(operands + policy)
}

fn bytes(cx: &mut Cx<'_, '_>) -> Result<BulkOp> {
    if loads(cx)? {
        finish(cx, 4)?;
        let (to, _) = cx.address(0, Space::Shared)?;
        let (from, _) = cx.address(1, Space::Global)?;
        let bytes = cx.w(2, 32)?;
        let (barrier, _) = cx.address(3, Space::Shared)?;
        return Ok(BulkOp::Load { to, from, bytes, barrier });
    }
    finish(cx, 3)?;
    let (to, _) = cx.address(0, Space::Global)?;
    let (from, _) = cx.address(1, Space::Shared)?;
    Ok(BulkOp::Store { to, from, bytes: cx.w(2, 32)? })
}

fn tensor(cx: &mut Cx<'_, '_>) -> Result<BulkOp> {
    let table = [("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)];
    let Some(rank) = cx.take_of(&table) else {
        return cx.unknown();
    };
    cx.drop_mods(&["tile"]);
    if loads(cx)? {
        finish(cx, 3)?;
        let (to, _) = cx.address(0, Space::Shared)?;
        let map = place(cx, 1, rank)?;
        let (barrier, _) = cx.address(2, Space::Shared)?;
        return Ok(BulkOp::LoadTensor { to, map, barrier });
    }
    finish(cx, 2)?;
    let map = place(cx, 0, rank)?;
    let (from, _) = cx.address(1, Space::Shared)?;
    Ok(BulkOp::StoreTensor { map, from })
}

fn place(cx: &mut Cx<'_, '_>, index: usize, rank: usize) -> Result<TensorPlace> {
    let address = cx.address_operand(index)?;
    if address.coordinates.len() != rank {
        return cx.operand_error(index, "a tensor map with a coordinate for each dimension");
    }
    if !matches!(address.base, Base::Reg(_)) {
        return cx.operand_error(index, "the generic address of a tensor map in a register");
    }
    let (map, _) = cx.address_of(address, index, Space::Generic)?;
    let coordinates = address.coordinates.iter().map(|at| cx.w_of(at, index, 32)).collect::<Result<_>>()?;
    Ok(TensorPlace { map, coordinates })
}
