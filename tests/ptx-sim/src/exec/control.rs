//! Lanes part at branches and join at post-dominators.

use super::warp::{Strand, Warp};
use super::{Machine, Result, Stop, lanes};
use crate::decode::op::{NO_JOIN, W};
use crate::error::FaultKind;

impl Machine<'_> {
    /// A branch of the lanes in `mask`; the others of the strand go on.
    #[inline]
    pub(super) fn branch(
        &mut self,
        warp: &mut Warp,
        target: u32,
        uniform: bool,
        join: u32,
        mask: u32,
    ) -> Result<()> {
        let strand = warp.strands.last_mut().expect("a strand executes");
        if mask == strand.mask {
            strand.at = target;
            return Ok(());
        }
        if uniform {
            return Err(Stop::warp(FaultKind::Undefined("lanes part at a branch that says it is uniform")));
        }
        self.tally.counts.divergent_branches += 1;
        let next = strand.at;
        let rest = strand.mask & !mask;
        warp.part(join, &[(next, rest), (target, mask)]);
        Ok(())
    }

    /// A branch through a table.
    pub(super) fn branch_indexed(
        &mut self,
        warp: &mut Warp,
        index: W,
        targets: &[u32],
        join: u32,
        mask: u32,
    ) -> Result<()> {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for lane in lanes(mask) {
            let Some(&target) = targets.get(warp.rw(index)[lane] as usize) else {
                return Err(Stop::lane(lane, FaultKind::Undefined("a branch beyond the end of its table")));
            };
            match parts.iter_mut().find(|(to, _)| *to == target) {
                Some((_, lanes)) => *lanes |= 1 << lane,
                None => parts.push((target, 1 << lane)),
            }
        }
        let strand = warp.strands.last_mut().expect("a strand executes");
        if strand.mask != mask {
            parts.push((strand.at, strand.mask & !mask));
        }
        if let &[(target, _)] = parts.as_slice() {
            strand.at = target;
            return Ok(());
        }
        self.tally.counts.divergent_branches += 1;
        warp.part(join, &parts);
        Ok(())
    }
}

impl Warp {
    /// Splits the executing strand. Its lanes meet at `join`, where the strand itself waits, unless that is
    /// where it ends anyway.
    fn part(&mut self, join: u32, parts: &[(u32, u32)]) {
        let strand = self.strands.last_mut().expect("a strand executes");
        let join = if join == NO_JOIN || join == strand.join {
            // Nobody meets before the outer join. The lanes of a call must still return to it.
            let outer = *strand;
            if outer.call {
                // The strand of the call stays below, with nothing to execute but its own end.
                strand.at = strand.join;
            } else {
                self.strands.pop();
            }
            outer.join
        } else {
            strand.at = join;
            join
        };
        for &(at, mask) in parts {
            if at != join {
                self.strands.push(Strand { at, join, mask, call: false });
            }
        }
    }

    /// Executes a function with some lanes.
    pub(super) fn call(&mut self, target: u32, mask: u32) {
        self.strands.push(Strand { at: target, join: NO_JOIN, mask, call: true });
    }

    /// Lanes end: in the innermost function, or altogether.
    pub(super) fn finish(&mut self, mask: u32, returns: bool) {
        let floor = if returns { self.strands.iter().rposition(|strand| strand.call) } else { None };
        for strand in &mut self.strands[floor.unwrap_or(0)..] {
            strand.mask &= !mask;
        }
        self.strands.retain(|strand| strand.mask != 0);
        if floor.is_none() {
            self.live &= !mask;
        }
    }

    pub(super) fn copy_frame(&mut self, to: usize, from: usize, bytes: usize, mask: u32) {
        for lane in lanes(mask) {
            let base = lane * self.frame_bytes;
            self.frame.copy_within(base + from..base + from + bytes, base + to);
            if self.frame_written.contains(base + from, bytes) {
                self.frame_written.insert(base + to, bytes);
            }
        }
    }
}
