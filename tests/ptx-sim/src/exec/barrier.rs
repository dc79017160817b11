//! Barriers of the CTA.

use super::warp::{State, Warp};
use super::{Machine, Result, Stop};
use crate::check::merge;
use crate::decode::op::{BarrierOp, W};
use crate::error::FaultKind;

/// Sixteen barriers, and one for the cluster of one CTA.
const BARRIERS: usize = 17;

/// The barriers of a CTA.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    barriers: [Barrier; BARRIERS],
    /// One of them may be complete.
    touched: bool,
}

#[derive(Debug, Default)]
struct Barrier {
    /// Threads it waits for; `None`: all that have not exited.
    threads: Option<u32>,
    /// Threads that arrived without waiting.
    passed: u32,
    /// Warps that wait, and what each wants to know.
    waiting: Vec<(u32, BarrierOp)>,
    /// Sum, and and or of the predicates.
    count: u32,
    all: bool,
    any: bool,
    seen: Vec<u32>,
}

impl Machine<'_> {
    /// A warp arrives.
    pub(super) fn barrier(
        &mut self,
        warp: &mut Warp,
        op: BarrierOp,
        id: W,
        threads: Option<W>,
        mask: u32,
    ) -> Result<()> {
        if mask != warp.live {
            return Err(Stop::warp(FaultKind::DivergentBarrier { active: mask, live: warp.live }));
        }
        let lane = mask.trailing_zeros() as usize;
        let id = warp.rw(id)[lane];
        let threads = threads.map(|threads| warp.rw(threads)[lane]);
        let wrong =
            |problem| Err(Stop::warp(FaultKind::BarrierCount { id, count: threads.unwrap_or(0), problem }));
        let Some(barrier) = self.barriers.barriers.get_mut(id as usize) else {
            return wrong("there are 16 barriers");
        };
        if threads.is_some_and(|threads| threads % 32 != 0 || threads == 0) {
            return wrong("the count is no multiple of the warp size");
        }
        let idle = barrier.waiting.is_empty() && barrier.passed == 0;
        if idle {
            *barrier = Barrier { threads, all: true, ..Barrier::default() };
        } else if barrier.threads != threads {
            return wrong("another warp gave another count");
        }
        let seen = self.shared.races.release(warp.id as usize);
        if barrier.seen.is_empty() {
            barrier.seen = seen;
        } else {
            merge(&mut barrier.seen, &seen);
        }
        self.tally.counts.barriers += 1;
        self.progress += 1;
        self.barriers.touched = true;
        if let BarrierOp::Popc { p, flip, .. }
        | BarrierOp::And { p, flip, .. }
        | BarrierOp::Or { p, flip, .. } = op
        {
            let value = (warp.p[p.0 as usize] ^ flip) & mask;
            barrier.count += value.count_ones();
            barrier.all &= value == mask;
            barrier.any |= value != 0;
        }
        if matches!(op, BarrierOp::Arrive) {
            barrier.passed += 32;
        } else {
            barrier.waiting.push((warp.id, op));
            warp.state = State::AtBarrier(id);
        }
        let arrived = barrier.passed + 32 * barrier.waiting.len() as u32;
        if threads.is_some_and(|threads| arrived > threads) {
            return wrong("more threads arrive");
        }
        Ok(())
    }

    /// Lets the warps of complete barriers go on. A warp that exits may complete one.
    pub(super) fn settle_barriers(&mut self, warps: &mut [Warp]) {
        let exited = warps.iter().filter(|warp| warp.live == 0).count();
        if !self.barriers.touched && exited == 0 {
            return;
        }
        self.barriers.touched = false;
        for barrier in &mut self.barriers.barriers {
            if barrier.waiting.is_empty() {
                continue;
            }
            let arrived = barrier.passed + 32 * barrier.waiting.len() as u32;
            let expected = barrier.threads.unwrap_or(32 * (warps.len() - exited) as u32);
            if arrived < expected {
                continue;
            }
            self.progress += 1;
            let barrier = std::mem::take(barrier);
            for &(id, op) in &barrier.waiting {
                let warp = &mut warps[id as usize];
                warp.state = State::Ready;
                self.shared.races.acquire(id as usize, &barrier.seen);
                let live = warp.live;
                match op {
                    BarrierOp::Sync | BarrierOp::Arrive => {}
                    BarrierOp::Popc { dst, .. } => warp.set_w(dst, &[barrier.count; 32], live),
                    BarrierOp::And { dst, .. } => {
                        warp.set_p(dst, if barrier.all { u32::MAX } else { 0 }, live);
                    }
                    BarrierOp::Or { dst, .. } => {
                        warp.set_p(dst, if barrier.any { u32::MAX } else { 0 }, live);
                    }
                }
            }
        }
    }
}
