//! mbarriers. Their state is kept beside shared memory, whose bytes don't show it.

use super::memory::{addresses, split_generic};
use super::shared::Shared;
use super::warp::{PendingCopy, State, Warp};
use super::{Machine, Result, Stop, lanes};
use crate::check::{Agent, Clocks, merge};
use crate::decode::op::{Addr, MbarrierOp, W};
use crate::error::{FaultKind, Space};
use std::collections::BTreeMap;
use std::ops::Range;

/// Most arrivals that an mbarrier counts.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// All mbarriers of a CTA, and what will arrive at them.
#[derive(Debug, Default)]
pub(crate) struct Mbarriers {
    by_address: BTreeMap<u64, Mbarrier>,
    deferred: Vec<Deferred>,
}

#[derive(Debug, Clone, Default)]
struct Mbarrier {
    /// Arrivals of a phase.
    count: u32,
    /// Arrivals that this phase still waits for.
    pending: u32,
    /// Bytes that this phase still waits for.
    bytes: i64,
    /// Phases completed.
    phase: u64,
    /// What those who arrived had seen.
    seen: Clocks,
    /// What a wait for a completed phase sees.
    complete: Clocks,
}

/// Something that happens once a thread waits for it.
#[derive(Debug)]
struct Deferred {
    mbarrier: u64,
    agent: Agent,
    seen: Clocks,
    what: Arrival,
}

#[derive(Debug)]
enum Arrival {
    /// `cp.async`s of a lane, then an arrival.
    Copies(Vec<PendingCopy>),
    /// A bulk copy.
    Bulk(BulkData),
}

/// Bytes on their way to shared memory.
#[derive(Debug, Default)]
pub(super) struct BulkData {
    /// Offset of each run in shared memory, and where its bytes lie in `bytes`.
    pub runs: Vec<(usize, Range<usize>)>,
    pub bytes: Vec<u8>,
    /// Those of `bytes` that nobody had written where they come from.
    pub unwritten: Vec<Range<usize>>,
}

impl Mbarrier {
    /// Ends the phase if nothing is missing.
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase += 1;
            self.pending = self.count;
            let seen = std::mem::take(&mut self.seen);
            see(&mut self.complete, &seen);
        }
    }
}

fn see(into: &mut Clocks, seen: &Clocks) {
    if into.is_empty() {
        into.clone_from(seen);
    } else if !seen.is_empty() {
        merge(into, seen);
    }
}

impl Mbarriers {
    /// Takes the copies of a warp that an explicit wait makes land before their mbarrier asks for them.
    pub(super) fn land_early(
        &mut self,
        agent: Agent,
        waited: impl Fn(&PendingCopy) -> bool,
    ) -> Vec<PendingCopy> {
        let mut landing = Vec::new();
        for deferred in self.deferred.iter_mut().filter(|deferred| deferred.agent == agent) {
            if let Arrival::Copies(copies) = &mut deferred.what {
                landing.extend(copies.iter().filter(|copy| waited(copy)));
                copies.retain(|copy| !waited(copy));
            }
        }
        landing
    }

    fn get(&mut self, lane: usize, address: u64) -> Result<&mut Mbarrier> {
        let missing = FaultKind::Mbarrier { address, problem: "none is initialised here" };
        self.by_address.get_mut(&address).ok_or_else(|| Stop::lane(lane, missing))
    }
}

impl Shared {
    /// A bulk copy whose bytes land when its mbarrier is waited for.
    pub(super) fn defer_bulk(&mut self, lane: usize, mbarrier: u64, data: BulkData) -> Result<()> {
        self.mbarriers.get(lane, mbarrier)?;
        let engine = self.races.engine();
        let seen = self.races.release(engine);
        let what = Arrival::Bulk(data);
        self.mbarriers.deferred.push(Deferred { mbarrier, agent: engine, seen, what });
        Ok(())
    }

    /// Does everything that was deferred until this mbarrier is waited for.
    fn deliver(&mut self, address: u64) {
        let deferred = std::mem::take(&mut self.mbarriers.deferred);
        let (now, later): (Vec<_>, Vec<_>) =
            deferred.into_iter().partition(|deferred| deferred.mbarrier == address);
        self.mbarriers.deferred = later;
        for Deferred { agent, seen, what, .. } in now {
            let clock = seen[agent];
            let (arrivals, bytes) = match &what {
                Arrival::Copies(copies) => {
                    copies.iter().for_each(|copy| self.land(agent, copy, clock));
                    (1, 0)
                }
                Arrival::Bulk(data) => {
                    self.land_bulk(agent, data, clock);
                    (0, data.bytes.len() as i64)
                }
            };
            if let Some(mbarrier) = self.mbarriers.by_address.get_mut(&address) {
                see(&mut mbarrier.seen, &seen);
                mbarrier.pending = mbarrier.pending.saturating_sub(arrivals);
                mbarrier.bytes -= bytes;
                mbarrier.settle();
            }
        }
    }

    /// A bulk copy arrives. Bytes that nobody had written are unwritten at their destination, too.
    fn land_bulk(&mut self, agent: Agent, data: &BulkData, clock: u32) {
        for (at, range) in &data.runs {
            self.bytes[*at..at + range.len()].copy_from_slice(&data.bytes[range.clone()]);
            self.written.insert(*at, range.len());
            self.in_flight.remove(*at, range.len());
            if self.checks.shared_races {
                self.races.land(agent, *at, range.len(), clock);
            }
            for unwritten in &data.unwritten {
                let (start, end) = (unwritten.start.max(range.start), unwritten.end.min(range.end));
                if start < end {
                    self.written.remove(at + start - range.start, end - start);
                }
            }
        }
    }

    /// Whether a phase is over, after everything that may end it has happened.
    fn is_over(&mut self, lane: usize, address: u64, over: impl Fn(u64) -> bool) -> Result<bool> {
        if over(self.mbarriers.get(lane, address)?.phase) {
            return Ok(true);
        }
        self.deliver(address);
        Ok(over(self.mbarriers.get(lane, address)?.phase))
    }
}

impl Machine<'_> {
    pub(super) fn mbarrier(
        &mut self,
        warp: &mut Warp,
        op: &MbarrierOp,
        addr: Addr,
        space: Space,
        mask: u32,
        at: usize,
    ) -> Result<()> {
        if let MbarrierOp::PendingCount { dst, state } = *op {
            for lane in lanes(mask) {
                warp.w[dst.0 as usize][lane] = (warp.rd(state)[lane] & u64::from(MAX_COUNT)) as u32;
            }
            return Ok(());
        }
        let mut places = addresses(warp, addr);
        if space == Space::Generic {
            let (found, group, resolved) = split_generic(&places, mask);
            let lane = mask.trailing_zeros() as usize;
            if found != Space::Shared || group != mask {
                let (address, problem) = (places[lane], "it does not lie in shared memory");
                return Err(Stop::lane(lane, FaultKind::Mbarrier { address, problem }));
            }
            places = resolved;
        }
        let mut polling = false;
        let mut passed = 0;
        for lane in lanes(mask) {
            let address = places[lane];
            if !self.shared.in_bounds(address, 8) {
                let kind = FaultKind::OutOfBounds { space: Space::Shared, address, bytes: 8 };
                return Err(Stop::lane(lane, kind));
            }
            if !address.is_multiple_of(8) {
                let kind = FaultKind::Misaligned { space: Space::Shared, address, bytes: 8 };
                return Err(Stop::lane(lane, kind));
            }
            match *op {
                MbarrierOp::TestState { p, state } => {
                    let phase = warp.rd(state)[lane] >> 20;
                    let over = self.shared.is_over(lane, address, |now| now > phase)?;
                    passed |= u32::from(over) << lane;
                    warp.set_p(p, passed, 1 << lane);
                    polling |= !over;
                }
                MbarrierOp::TestParity { p, parity } => {
                    let parity = u64::from(warp.rw(parity)[lane] & 1);
                    let over = self.shared.is_over(lane, address, |now| now & 1 != parity)?;
                    passed |= u32::from(over) << lane;
                    warp.set_p(p, passed, 1 << lane);
                    polling |= !over;
                }
                _ => self.mbarrier_lane(warp, op, address, lane)?,
            }
        }
        // Those who find a phase over have seen what happened before it ended.
        for lane in lanes(passed) {
            let complete = self.shared.mbarriers.get(lane, places[lane])?.complete.clone();
            if !complete.is_empty() {
                self.shared.races.acquire(warp.id as usize, &complete);
            }
        }
        if polling {
            warp.state = State::Polling;
            warp.current = Some(at);
        }
        Ok(())
    }

    /// What one lane does to an mbarrier, waits excepted.
    fn mbarrier_lane(&mut self, warp: &mut Warp, op: &MbarrierOp, address: u64, lane: usize) -> Result<()> {
        self.progress += 1;
        let wrong = |problem| Err(Stop::lane(lane, FaultKind::Mbarrier { address, problem }));
        let word = |warp: &Warp, register: W| warp.rw(register)[lane];
        let shared = &mut self.shared;
        match *op {
            MbarrierOp::Init { count } => {
                let count = word(warp, count);
                if count == 0 || count > MAX_COUNT {
                    return wrong("the count is not within 1 to 2^20 - 1");
                }
                let fresh = Mbarrier { count, pending: count, ..Mbarrier::default() };
                shared.mbarriers.by_address.insert(address, fresh);
            }
            MbarrierOp::Inval => {
                shared.mbarriers.get(lane, address)?;
                shared.mbarriers.by_address.remove(&address);
            }
            MbarrierOp::ExpectTx { bytes } => {
                shared.mbarriers.get(lane, address)?.bytes += i64::from(word(warp, bytes));
            }
            MbarrierOp::CompleteTx { bytes } => {
                let mbarrier = shared.mbarriers.get(lane, address)?;
                mbarrier.bytes -= i64::from(word(warp, bytes));
                mbarrier.settle();
            }
            MbarrierOp::Arrive { state, count, expect, drop } => {
                let seen = shared.races.release(warp.id as usize);
                let mbarrier = shared.mbarriers.get(lane, address)?;
                if let Some(bytes) = expect {
                    mbarrier.bytes += i64::from(word(warp, bytes));
                }
                let arrivals = count.map_or(1, |count| word(warp, count));
                if arrivals > mbarrier.pending {
                    return wrong("more threads arrive than its count");
                }
                if let Some(state) = state {
                    let token = mbarrier.phase << 20 | u64::from(mbarrier.pending);
                    warp.d[state.0 as usize][lane] = token;
                }
                see(&mut mbarrier.seen, &seen);
                mbarrier.pending -= arrivals;
                if drop {
                    mbarrier.count = mbarrier.count.saturating_sub(arrivals);
                }
                mbarrier.settle();
            }
            MbarrierOp::CopyArrive { noinc } => {
                if !noinc {
                    shared.mbarriers.get(lane, address)?.pending += 1;
                }
                shared.mbarriers.get(lane, address)?;
                let agent = warp.id as usize;
                let seen = shared.races.release(agent);
                let mut mine = Vec::new();
                warp.copies.retain(|copy| {
                    let keep = usize::from(copy.lane) != lane;
                    if !keep {
                        mine.push(*copy);
                    }
                    keep
                });
                let what = Arrival::Copies(mine);
                shared.mbarriers.deferred.push(Deferred { mbarrier: address, agent, seen, what });
            }
            MbarrierOp::TestState { .. }
            | MbarrierOp::TestParity { .. }
            | MbarrierOp::PendingCount { .. } => {}
        }
        Ok(())
    }
}
