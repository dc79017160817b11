//! Atomics: lane after lane, lowest first.

use super::memory::{addresses, split_generic};
use super::shared::Touch;
use super::warp::Warp;
use super::{Machine, Result, Stop, lanes};
use crate::count::Sectors;
use crate::decode::op::Atomic;
use crate::error::{FaultKind, Space};

impl Machine<'_> {
    pub(super) fn atomic(&mut self, warp: &mut Warp, atomic: &Atomic, mask: u32) -> Result<()> {
        self.progress += 1;
        let addresses = addresses(warp, atomic.addr);
        if atomic.space != Space::Generic {
            return self.atomic_on(warp, atomic, atomic.space, &addresses, mask);
        }
        let mut left = mask;
        while left != 0 {
            let (space, group, addresses) = split_generic(&addresses, left);
            self.atomic_on(warp, atomic, space, &addresses, group)?;
            left &= !group;
        }
        Ok(())
    }

    fn atomic_on(
        &mut self,
        warp: &mut Warp,
        atomic: &Atomic,
        space: Space,
        addresses: &[u64; 32],
        mask: u32,
    ) -> Result<()> {
        let bytes = usize::from(atomic.bytes);
        match space {
            Space::Global => {
                let mut left = mask;
                while left != 0 {
                    let (index, group, offsets) = self.global_group(addresses, left, bytes)?;
                    let allocation = self.memory.allocation(index);
                    let sectors = Sectors::of(&offsets, group, bytes);
                    allocation.note_loads(sectors.indices());
                    allocation.note_stores(sectors.indices());
                    for lane in lanes(group) {
                        let at = offsets[lane];
                        if self.checks.unwritten && !allocation.written.contains(at, bytes) {
                            let (address, bytes) = (addresses[lane], bytes as u64);
                            return Err(Stop::lane(lane, FaultKind::Unwritten { space, address, bytes }));
                        }
                        apply(warp, atomic, lane, &mut allocation.bytes[at..at + bytes]);
                    }
                    self.tally.counts.global_atomics += u64::from(group.count_ones());
                    left &= !group;
                }
                Ok(())
            }
            Space::Shared => {
                for lane in lanes(mask) {
                    let agent = warp.id as usize;
                    let at = self.shared.touch(agent, lane, addresses[lane], bytes, Touch::Atomic)?;
                    apply(warp, atomic, lane, &mut self.shared.bytes[at..at + bytes]);
                }
                self.tally.counts.shared_atomics += u64::from(mask.count_ones());
                Ok(())
            }
            _ => {
                let lane = mask.trailing_zeros() as usize;
                Err(Stop::lane(lane, FaultKind::ReadOnly { space, address: addresses[lane] }))
            }
        }
    }
}

/// One lane's operation on the bytes it addresses.
fn apply(warp: &mut Warp, atomic: &Atomic, lane: usize, bytes: &mut [u8]) {
    let mut raw = [0; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let old = u64::from_le_bytes(raw);
    let new = (atomic.f)(old, warp.lane(atomic.b, lane), warp.lane(atomic.c, lane));
    let length = bytes.len();
    bytes.copy_from_slice(&new.to_le_bytes()[..length]);
    warp.set_lane(atomic.dst, lane, old);
}
