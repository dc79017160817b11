//! Barriers, fences, mbarriers, and what lanes of a warp tell each other.

use super::cx::{Cx, Result};
use super::memory::take_space;
use super::op::*;
use crate::error::Space;
use crate::parse::Operand;

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "bar" | "barrier" => barrier(cx),
        "shfl" => shuffle(cx),
        "vote" => vote(cx),
        "match" => matching(cx),
        "activemask" => {
            cx.drop_mods(&["b32"]);
            cx.finish(1)?;
            let op = Op::ActiveMask(cx.w_dst(0, 32)?);
            cx.emit(Kind::Shuffle, op)
        }
        "redux" => redux(cx),
        "elect" => {
            cx.take("sync");
            cx.finish(2)?;
            let Operand::Pair(dst, p) = cx.operand(0)? else {
                return cx.operand_error(0, "a register and a predicate");
            };
            let dst = cx.dst_of(dst, 0, 32)?;
            let p = cx.p_dst_of(p, 0)?;
            let op = Op::Elect { dst, p, members: cx.w(1, 32)? };
            cx.emit(Kind::Shuffle, op)
        }
        // Everything is in program order and visible at once; asynchronous copies are waited for by others.
        _ => {
            if !known_fence(&cx.mods) {
                return cx.unknown();
            }
            cx.emit(Kind::Barrier, Op::Nop)
        }
    }
}

fn known_fence(mods: &[&str]) -> bool {
    const KNOWN: [&str; 18] = [
        "cta",
        "gl",
        "sys",
        "gpu",
        "cluster",
        "sc",
        "acq_rel",
        "acquire",
        "release",
        "proxy",
        "async",
        "alias",
        "global",
        "shared::cta",
        "shared::cluster",
        "mbarrier_init",
        "tensormap::generic",
        "async::generic",
    ];
    mods.iter().all(|part| KNOWN.contains(part) || part.starts_with("sync_restrict::"))
}

fn barrier(cx: &mut Cx<'_, '_>) -> Result<()> {
    // `barrier.cluster` of the only CTA of a cluster: its threads wait for one another.
    if cx.take("cluster") {
        cx.drop_mods(&["aligned", "acquire", "release", "relaxed"]);
        if cx.take("arrive") {
            cx.finish(0)?;
            return cx.emit(Kind::Barrier, Op::Nop);
        }
        if !cx.take("wait") {
            return cx.unknown();
        }
        cx.finish(0)?;
        let id = cx.linker.w_const(super::Const::Value(16));
        return cx.emit(Kind::Barrier, Op::Barrier { op: BarrierOp::Sync, id, threads: None });
    }
    cx.drop_mods(&["cta", "aligned"]);
    if cx.take("warp") {
        cx.take("sync");
        cx.finish(1)?;
        let op = Op::WarpSync { members: cx.w(0, 32)? };
        return cx.emit(Kind::Shuffle, op);
    }
    if cx.take("arrive") {
        cx.finish(2)?;
        let op = Op::Barrier { op: BarrierOp::Arrive, id: cx.w(0, 32)?, threads: Some(cx.w(1, 32)?) };
        return cx.emit(Kind::Barrier, op);
    }
    if cx.take("red") {
        let ty = cx.ty()?;
        let Some(name) = cx.mods.pop() else { return cx.unknown() };
        let counted = cx.operands.len() == 4;
        cx.finish(if counted { 4 } else { 3 })?;
        let (p, flip) = cx.p(if counted { 3 } else { 2 })?;
        let op = match (name, ty) {
            ("popc", "u32") => BarrierOp::Popc { dst: cx.w_dst(0, 32)?, p, flip },
            ("and", "pred") => BarrierOp::And { dst: cx.p_dst(0)?, p, flip },
            ("or", "pred") => BarrierOp::Or { dst: cx.p_dst(0)?, p, flip },
            _ => return cx.unknown(),
        };
        let threads = if counted { Some(cx.w(2, 32)?) } else { None };
        let op = Op::Barrier { op, id: cx.w(1, 32)?, threads };
        return cx.emit(Kind::Barrier, op);
    }
    if !cx.take("sync") {
        return cx.unknown();
    }
    let counted = cx.operands.len() == 2;
    cx.finish(if counted { 2 } else { 1 })?;
    let threads = if counted { Some(cx.w(1, 32)?) } else { None };
    let op = Op::Barrier { op: BarrierOp::Sync, id: cx.w(0, 32)?, threads };
    cx.emit(Kind::Barrier, op)
}

/// A destination, and the predicate that may be joined to it.
fn with_predicate(cx: &mut Cx<'_, '_>) -> Result<(W, Option<P>)> {
    match cx.operand(0)? {
        Operand::Pair(dst, p) => {
            let p = cx.p_dst_of(p, 0)?;
            Ok((cx.w_dst_of(dst, 0, 32)?, Some(p)))
        }
        _ => Ok((cx.w_dst(0, 32)?, None)),
    }
}

fn shuffle(cx: &mut Cx<'_, '_>) -> Result<()> {
    let mode = cx.take_of(&[
        ("up", Shuffle::Up),
        ("down", Shuffle::Down),
        ("bfly", Shuffle::Bfly),
        ("idx", Shuffle::Idx),
    ]);
    let Some(mode) = mode else { return cx.unknown() };
    if !cx.take("sync") || !cx.take("b32") {
        return cx.unknown();
    }
    cx.finish(5)?;
    let (dst, valid) = with_predicate(cx)?;
    let (a, b, c, members) = (cx.w(1, 32)?, cx.w(2, 32)?, cx.w(3, 32)?, cx.w(4, 32)?);
    cx.emit(Kind::Shuffle, Op::Shuffle { mode, dst, valid, a, b, c, members })
}

fn vote(cx: &mut Cx<'_, '_>) -> Result<()> {
    let table = [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uni), ("ballot", Vote::Ballot)];
    let Some(vote) = cx.take_of(&table) else { return cx.unknown() };
    if !cx.take("sync") {
        return cx.unknown();
    }
    let ty = cx.ty()?;
    cx.finish(3)?;
    let (p, flip) = cx.p(1)?;
    let members = Some(cx.w(2, 32)?);
    let (dst, dst_p) = match (vote, ty) {
        (Vote::Ballot, "b32") => (Reg::W(cx.w_dst(0, 32)?), None),
        (Vote::All | Vote::Any | Vote::Uni, "pred") => (Reg::Sink, Some(cx.p_dst(0)?)),
        _ => return cx.unknown(),
    };
    cx.emit(Kind::Shuffle, Op::Vote { vote, dst, p, flip, dst_p, members })
}

fn matching(cx: &mut Cx<'_, '_>) -> Result<()> {
    let all = cx.take("all");
    if !all && !cx.take("any") {
        return cx.unknown();
    }
    cx.take("sync");
    let bits = match cx.ty()? {
        "b32" => 32,
        "b64" => 64,
        _ => return cx.unknown(),
    };
    cx.finish(3)?;
    let (dst, valid) = with_predicate(cx)?;
    let a = cx.src_of(cx.operand(1)?, 1, bits)?;
    let members = cx.w(2, 32)?;
    cx.emit(Kind::Shuffle, Op::Match { all, dst, valid, a, members })
}

fn redux(cx: &mut Cx<'_, '_>) -> Result<()> {
    let ty = cx.ty()?;
    cx.take("sync");
    let Some(name) = cx.mods.pop() else { return cx.unknown() };
    cx.finish(3)?;
    let f: FnRedux = match (name, ty) {
        ("add", "u32" | "s32") => u32::wrapping_add,
        ("min", "u32") => |a, b| a.min(b),
        ("max", "u32") => |a, b| a.max(b),
        ("min", "s32") => |a, b| (a as i32).min(b as i32) as u32,
        ("max", "s32") => |a, b| (a as i32).max(b as i32) as u32,
        ("and", "b32") => |a, b| a & b,
        ("or", "b32") => |a, b| a | b,
        ("xor", "b32") => |a, b| a ^ b,
        _ => return cx.unknown(),
    };
    let op = Op::Redux { f, dst: cx.w_dst(0, 32)?, a: cx.w(1, 32)?, members: cx.w(2, 32)? };
    cx.emit(Kind::Shuffle, op)
}

/// `mbarrier.*`.
pub(super) fn mbarrier(cx: &mut Cx<'_, '_>) -> Result<()> {
    cx.drop_mods(&["b64", "release", "acquire", "relaxed", "cta", "cluster"]);
    // Without a space the address is generic, but it must point into shared memory.
    let space = take_space(cx);
    let mods: Vec<&str> = std::mem::take(&mut cx.mods);
    let has_state = |cx: &Cx<'_, '_>| matches!(cx.operands.first(), Some(Operand::Reg(_) | Operand::Sink));
    let operands = cx.operands.len();
    let (op, at) = match mods.as_slice() {
        ["init"] => (MbarrierOp::Init { count: cx.w(1, 32)? }, 0),
        ["inval"] => (MbarrierOp::Inval, 0),
        ["expect_tx"] => (MbarrierOp::ExpectTx { bytes: cx.w(1, 32)? }, 0),
        ["complete_tx"] => (MbarrierOp::CompleteTx { bytes: cx.w(1, 32)? }, 0),
        [kind @ ("arrive" | "arrive_drop"), rest @ ..] => {
            let at = usize::from(has_state(cx));
            let state = match cx.operand(0)? {
                Operand::Reg(_) => Some(cx.d_dst(0)?),
                _ => None,
            };
            let extra = if operands > at + 1 { Some(cx.w(at + 1, 32)?) } else { None };
            let (count, expect) = match rest {
                [] | ["noComplete"] => (extra, None),
                ["expect_tx"] if extra.is_some() => (None, extra),
                _ => return cx.unknown(),
            };
            (MbarrierOp::Arrive { state, count, expect, drop: *kind == "arrive_drop" }, at)
        }
        ["test_wait" | "try_wait", rest @ ..] => {
            let p = cx.p_dst(0)?;
            let op = match rest {
                [] => MbarrierOp::TestState { p, state: cx.d(2)? },
                ["parity"] => MbarrierOp::TestParity { p, parity: cx.w(2, 32)? },
                _ => return cx.unknown(),
            };
            (op, 1)
        }
        ["pending_count"] => {
            let op = MbarrierOp::PendingCount { dst: cx.w_dst(0, 32)?, state: cx.d(1)? };
            let base = AddrBase::D(cx.linker.d_const(super::Const::Value(0)));
            let addr = Addr { base, offset: 0 };
            return cx.emit(Kind::Barrier, Op::Mbarrier { op, addr, space: Space::Shared });
        }
        _ => return cx.unknown(),
    };
    let (addr, space) = cx.address(at, space)?;
    cx.emit(Kind::Barrier, Op::Mbarrier { op, addr, space })
}
