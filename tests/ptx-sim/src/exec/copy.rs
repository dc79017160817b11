//! `cp.async`: the source is read when the copy is issued, the destination changes when it is waited for.

use super::memory::addresses;
use super::shared::{Shared, Touch};
use super::warp::{PendingCopy, Warp};
use super::{Machine, Result, Stop, lanes};
use crate::check::Agent;
use crate::count::{Sectors, wavefronts};
use crate::decode::op::AsyncCopy;
use crate::error::{FaultKind, Space};

impl Machine<'_> {
    pub(super) fn async_copy(&mut self, warp: &mut Warp, copy: &AsyncCopy, mask: u32) -> Result<()> {
        let (to, from) = (addresses(warp, copy.to), addresses(warp, copy.from));
        let bytes = usize::from(copy.bytes);
        // How much each lane reads; those that read nothing need no valid source.
        let mut sizes = [bytes; 32];
        let mut reading = mask;
        if let Some(size) = copy.source_bytes {
            for lane in lanes(mask) {
                sizes[lane] = warp.rw(size)[lane] as usize;
                if sizes[lane] > bytes {
                    let kind = FaultKind::Undefined("a copy reads more bytes than it writes");
                    return Err(Stop::lane(lane, kind));
                }
            }
        }
        if let Some((p, flip)) = copy.ignore {
            reading &= !(warp.p[p.0 as usize] ^ flip);
        }
        reading = lanes(reading).filter(|&lane| sizes[lane] > 0).fold(0, |mask, lane| mask | 1 << lane);
        let mut data = [[0u8; 16]; 32];
        let mut left = reading;
        while left != 0 {
            left &= !self.copy_source(&from, left, &sizes, bytes, &mut data)?;
        }
        let mut offsets = [0; 32];
        for lane in lanes(mask) {
            let agent = warp.id as usize;
            offsets[lane] = self.shared.touch(agent, lane, to[lane], bytes, Touch::Write)?;
            self.shared.in_flight.insert(offsets[lane], bytes);
            warp.copies.push(PendingCopy {
                lane: lane as u8,
                bytes: bytes as u8,
                group: warp.group[lane],
                to: offsets[lane] as u32,
                data: data[lane],
            });
        }
        let counts = &mut self.tally.counts;
        let (needed, ideal) = wavefronts(&offsets, mask, bytes);
        counts.shared_stores.requests += 1;
        counts.shared_stores.bytes += u64::from(mask.count_ones()) * bytes as u64;
        counts.shared_stores.replays += needed - ideal;
        counts.copy_bytes += lanes(reading).map(|lane| sizes[lane] as u64).sum::<u64>();
        Ok(())
    }

    /// Reads the sources that lie in the allocation of the first lane; returns the lanes they belong to.
    fn copy_source(
        &mut self,
        from: &[u64; 32],
        mask: u32,
        sizes: &[usize; 32],
        bytes: usize,
        data: &mut [[u8; 16]; 32],
    ) -> Result<u32> {
        let space = Space::Global;
        let first = mask.trailing_zeros() as usize;
        let index = self.memory.find(from[first]);
        let mut group = 0;
        let mut offsets = [0; 32];
        for lane in lanes(mask) {
            let (address, size) = (from[lane], sizes[lane]);
            let length = size as u64;
            // The source is aligned to what is written, but only what is read must exist.
            if !address.is_multiple_of(bytes as u64) {
                let kind = FaultKind::Misaligned { space, address, bytes: bytes as u64 };
                return Err(Stop::lane(lane, kind));
            }
            let outside = || Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length });
            let Some(index) = index else { return Err(outside()) };
            let allocation = self.memory.allocation(index);
            let at = address.wrapping_sub(allocation.base);
            let available = allocation.bytes.len() as u64;
            if at >= available || available - at < length {
                if lane == first {
                    return Err(outside());
                }
                continue;
            }
            let at = at as usize;
            if self.checks.unwritten && !allocation.written.contains(at, size) {
                return Err(Stop::lane(lane, FaultKind::Unwritten { space, address, bytes: length }));
            }
            data[lane][..size].copy_from_slice(&allocation.bytes[at..at + size]);
            offsets[lane] = at;
            group |= 1 << lane;
        }
        let index = index.expect("a lane without an allocation has stopped");
        let sectors = Sectors::of(&offsets, group, bytes);
        self.memory.allocation(index).note_loads(sectors.indices());
        let requested = lanes(group).map(|lane| sizes[lane] as u64).sum();
        sectors.count(&mut self.tally.counts.global_copies, requested);
        Ok(group)
    }

    /// Lets the copies land that a wait of these lanes is for.
    pub(super) fn wait_group(&mut self, warp: &mut Warp, open: Option<u32>, mask: u32) {
        let group = &warp.group;
        let agent = warp.id as usize;
        let shared = &mut self.shared;
        let waited = |copy: &PendingCopy| {
            let lane = usize::from(copy.lane);
            mask >> lane & 1 != 0 && open.is_none_or(|open| copy.group + open < group[lane])
        };
        let clock = shared.races.now(agent);
        warp.copies.retain(|copy| {
            let lands = waited(copy);
            if lands {
                shared.land(agent, copy, clock);
            }
            !lands
        });
        shared.mbarriers.land_early(agent, waited).iter().for_each(|copy| shared.land(agent, copy, clock));
    }
}

impl Shared {
    /// A copy arrives at its destination.
    pub(super) fn land(&mut self, agent: Agent, copy: &PendingCopy, clock: u32) {
        let (at, bytes) = (copy.to as usize, usize::from(copy.bytes));
        self.bytes[at..at + bytes].copy_from_slice(&copy.data[..bytes]);
        self.written.insert(at, bytes);
        self.in_flight.remove(at, bytes);
        if self.checks.shared_races {
            self.races.land(agent, at, bytes, clock);
        }
    }
}
