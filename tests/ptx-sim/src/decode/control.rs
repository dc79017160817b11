//! Branches, calls, ends, and what only concerns time.

use super::cx::{Cx, Result};
use super::link::UNJOINED;
use super::op::*;
use crate::parse::Operand;

pub(super) fn decode(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "bra" => {
            let uniform = cx.take("uni");
            cx.finish(1)?;
            let Operand::Name(label) = cx.operand(0)? else { return cx.operand_error(0, "a label") };
            cx.linker.branch_to(label, cx.scope);
            cx.emit(Kind::Branch, Op::Branch { target: 0, uniform, join: UNJOINED })
        }
        "brx" => {
            cx.take("uni");
            if !cx.take("idx") {
                return cx.unknown();
            }
            cx.finish(2)?;
            let index = cx.w(0, 32)?;
            let Operand::Name(label) = cx.operand(1)? else { return cx.operand_error(1, "a label") };
            cx.linker.table_branch(label);
            cx.emit(Kind::Branch, Op::BranchIndexed { index, targets: Box::default(), join: UNJOINED })
        }
        "call" => call(cx),
        "ret" | "exit" | "trap" => {
            cx.take("uni");
            cx.finish(0)?;
            let op = match base {
                "ret" => Op::Return,
                "exit" => Op::Exit,
                _ => Op::Trap,
            };
            cx.emit(Kind::Branch, op)
        }
        // Sleeping, launching dependents early, moving registers between warps: time, not values.
        _ => cx.emit(Kind::Barrier, Op::Nop),
    }
}

/// `call.uni (results), function, (arguments);`: results and arguments are variables of `.param` space, whose
/// bytes are copied to the places of the function's own.
fn call(cx: &mut Cx<'_, '_>) -> Result<()> {
    cx.take("uni");
    if !cx.mods.is_empty() {
        return cx.unknown();
    }
    let mut rest = cx.operands;
    let list = |operand: &Operand| match operand {
        Operand::List(list) => Some(list.clone()),
        _ => None,
    };
    let results = rest.first().and_then(list).unwrap_or_default();
    if matches!(rest.first(), Some(Operand::List(_))) {
        rest = &rest[1..];
    }
    let Some(Operand::Name(name)) = rest.first() else {
        return cx.operand_error(0, "the name of a function");
    };
    let arguments = rest.get(1).and_then(list).unwrap_or_default();
    let (returns, params, index) = cx.linker.call(name)?;
    if returns.len() != results.len() || params.len() != arguments.len() {
        return cx.operand_error(0, "called with as many arguments and results as it has");
    }
    for (theirs, ours) in params.iter().zip(&arguments) {
        copy(cx, *theirs, ours, true)?;
    }
    cx.linker.patch_call(index);
    cx.emit(Kind::Branch, Op::Call { target: 0 })?;
    for (theirs, ours) in returns.iter().zip(&results) {
        copy(cx, *theirs, ours, false)?;
    }
    Ok(())
}

fn copy(cx: &mut Cx<'_, '_>, theirs: usize, ours: &Operand, into: bool) -> Result<()> {
    let &Operand::Variable(id, 0) = ours else {
        return cx.operand_error(0, "called with variables of `.param` space");
    };
    if cx.linker.is_kernel_param(id) {
        return cx.operand_error(0, "called with variables declared in a body");
    }
    let bytes = cx.linker.variable_bytes(theirs);
    if bytes != cx.linker.variable_bytes(id) {
        return cx.operand_error(0, "called with variables of the parameters' sizes");
    }
    let (theirs, ours) = (cx.linker.frame_place(theirs)? as u32, cx.linker.frame_place(id)? as u32);
    let (to, from) = if into { (theirs, ours) } else { (ours, theirs) };
    cx.emit(Kind::Part, Op::CopyFrame { to, from, bytes: bytes as u32 })
}
