//! Asynchronous copies.

use super::cx::{Cx, Result};
use super::memory::take_space;
use super::op::*;
use crate::error::Space;
use crate::parse::Operand;

pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Result<()> {
    if !cx.take("async") {
        return cx.unknown();
    }
    if cx.take("bulk") {
        return super::tensor::bulk(cx);
    }
    if cx.take("commit_group") {
        cx.finish(0)?;
        return cx.emit(Kind::Copy, Op::CommitGroup);
    }
    if cx.take("wait_all") {
        cx.finish(0)?;
        return cx.emit(Kind::Copy, Op::WaitGroup(None));
    }
    if cx.take("wait_group") {
        cx.finish(1)?;
        let Operand::Int(groups) = cx.operand(0)? else { return cx.operand_error(0, "a number") };
        return cx.emit(Kind::Copy, Op::WaitGroup(Some(*groups as u32)));
    }
    if cx.take("mbarrier") {
        if !cx.take("arrive") {
            return cx.unknown();
        }
        let noinc = cx.take("noinc");
        cx.drop_mods(&["b64"]);
        let space = take_space(cx);
        cx.finish(1)?;
        let (addr, space) = cx.address(0, space)?;
        return cx.emit(Kind::Copy, Op::Mbarrier { op: MbarrierOp::CopyArrive { noinc }, addr, space });
    }
    plain(cx)
}

/// `cp.async.cg.shared.global [to], [from], 16, source bytes;`
fn plain(cx: &mut Cx<'_, '_>) -> Result<()> {
    cx.mods.retain(|part| !part.starts_with("L2::"));
    let through_l2 = cx.take("cg");
    if !through_l2 && !cx.take("ca") {
        return cx.unknown();
    }
    let to_space = take_space(cx);
    if to_space != Space::Shared || !cx.take("global") || !cx.mods.is_empty() {
        return cx.unknown();
    }
    let (to, _) = cx.address(0, Space::Shared)?;
    let (from, _) = cx.address(1, Space::Global)?;
    let bytes = match cx.operand(2)? {
        Operand::Int(16) => 16,
        Operand::Int(8) if !through_l2 => 8,
        Operand::Int(4) if !through_l2 => 4,
        _ => return cx.operand_error(2, "a size that the instruction copies"),
    };
    let (mut source_bytes, mut ignore) = (None, None);
    if let Some(operand) = cx.operands.get(3) {
        match operand {
            Operand::Not(_) => ignore = Some(cx.p(3)?),
            Operand::Reg(reg) if reg.class == crate::parse::Class::Pred => ignore = Some(cx.p(3)?),
            _ => source_bytes = Some(cx.w(3, 32)?),
        }
    }
    cx.linker.granule = cx.linker.granule.min(2);
    let copy = AsyncCopy { to, from, bytes, source_bytes, ignore };
    cx.emit(Kind::Copy, Op::AsyncCopy(Box::new(copy)))
}
