//! The loop that executes a warp.

use super::warp::{State, Warp};
use super::{Machine, Result, Stop};
use crate::decode::op::{Kind, Op};
use crate::error::FaultKind;

/// Instructions after which another warp gets its turn: one may spin on what another writes.
const TURN: u32 = 4096;

impl<'a> Machine<'a> {
    /// Executes a warp until it waits, ends, or has had its turn.
    pub(super) fn turn(&mut self, warp: &mut Warp) -> Result<()> {
        warp.state = State::Ready;
        for _ in 0..TURN {
            let Some(strand) = warp.strands.last_mut() else {
                warp.state = State::Done;
                self.progress += 1;
                return Ok(());
            };
            if strand.at == strand.join {
                warp.strands.pop();
                continue;
            }
            let at = strand.at as usize;
            strand.at += 1;
            let active = strand.mask;
            let code = self.code;
            let instruction = &code[at];
            let mask = match instruction.guard {
                None => active,
                Some(guard) => active & (warp.p[guard.p.0 as usize] ^ guard.flip),
            };
            warp.current = Some(at);
            warp.executed += 1;
            if self.budget == 0 {
                return Err(Stop::warp(FaultKind::InstructionLimit { limit: self.limit }));
            }
            self.budget -= u64::from(instruction.kind != Kind::Part);
            self.tally.warp[instruction.kind as usize] += 1;
            self.tally.thread[instruction.kind as usize] += u64::from(mask.count_ones());
            if mask == 0 {
                continue;
            }
            self.execute(warp, &instruction.op, mask, at)?;
            if warp.state != State::Ready {
                return Ok(());
            }
        }
        self.progress += 1;
        Ok(())
    }

    #[inline]
    fn execute(&mut self, warp: &mut Warp, op: &'a Op, mask: u32, at: usize) -> Result<()> {
        if warp.arithmetic(op, mask) {
            return Ok(());
        }
        match op {
            Op::Load(access) => self.load(warp, access, mask),
            Op::Store(access) => self.store(warp, access, mask),
            Op::Branch { target, uniform, join } => self.branch(warp, *target, *uniform, *join, mask),
            Op::Shuffle { mode, dst, valid, a, b, c, members } => {
                warp.shuffle(*mode, (*dst, *valid), [*a, *b, *c], *members, mask)
            }
            Op::Barrier { op, id, threads } => self.barrier(warp, *op, *id, *threads, mask),
            Op::Atomic(atomic) => self.atomic(warp, atomic, mask),
            Op::AsyncCopy(copy) => self.async_copy(warp, copy, mask),
            Op::CommitGroup => {
                super::lanes(mask).for_each(|lane| warp.group[lane] += 1);
                Ok(())
            }
            Op::WaitGroup(open) => {
                self.wait_group(warp, *open, mask);
                Ok(())
            }
            Op::Mbarrier { op, addr, space } => self.mbarrier(warp, op, *addr, *space, mask, at),
            Op::Tensor(op) => self.tensor(warp, op, mask),
            Op::BranchIndexed { index, targets, join } => {
                self.branch_indexed(warp, *index, targets, *join, mask)
            }
            Op::Call { target } => {
                warp.call(*target, mask);
                Ok(())
            }
            Op::Return => {
                warp.finish(mask, true);
                Ok(())
            }
            Op::Exit => {
                warp.finish(mask, false);
                Ok(())
            }
            Op::Trap => Err(Stop::warp(FaultKind::Trap)),
            Op::CopyFrame { to, from, bytes } => {
                warp.copy_frame(*to as usize, *from as usize, *bytes as usize, mask);
                Ok(())
            }
            Op::Vote { vote, dst, p, flip, dst_p, members } => {
                let value = warp.p[p.0 as usize] ^ flip;
                warp.vote(*vote, value, *dst, *dst_p, *members, mask)
            }
            Op::Match { all, dst, valid, a, members } => {
                warp.matching(*all, *dst, *valid, *a, *members, mask)
            }
            Op::Redux { f, dst, a, members } => warp.redux(*f, *dst, *a, *members, mask),
            Op::Elect { dst, p, members } => warp.elect(*dst, *p, *members, mask),
            Op::WarpSync { members } => warp.members(*members, mask).map(|_| ()),
            other => unreachable!("{other:?} is arithmetic"),
        }
    }
}
