//! Bulk copies, of bytes and of boxes of tensors.
//!
//! An engine of its own makes them, which has seen what the issuing thread had seen. Sources are read at the
//! issue. A load lands when its mbarrier is waited for; until then its destination must not be touched. A store
//! is visible at once; who waits for its group has seen the engine read, and may overwrite the source.

use super::memory::addresses;
use super::shared::Shared;
use super::warp::Warp;
use super::{Machine, Result, Stop, lanes};
use crate::count::SECTOR;
use crate::decode::bulk::{BulkOp, TensorPlace};
use crate::decode::op::Addr;
use crate::error::{FaultKind, Space};
use crate::layout;
use crate::tensor::tma::{CopyError, Piece, Source};
use crate::tensor::tma_map::{MAP_BYTES, TensorMap};
use std::collections::BTreeMap;

/// Alignment of addresses and sizes.
const UNIT: u64 = 16;
/// Alignment of a tensor map.
const MAP_ALIGN: u64 = 64;
/// Writes of global memory are noted within pages of this size.
const PAGE: usize = 4096;

/// Bytes used of each sector that a copy touches: allocation, sector, one bit a byte.
type Touched = BTreeMap<(usize, u64), u32>;

impl From<CopyError> for Box<Stop> {
    fn from(error: CopyError) -> Self {
        Stop::warp(FaultKind::TensorCopy(error.to_string()))
    }
}

impl Machine<'_> {
    pub(super) fn bulk(&mut self, warp: &mut Warp, op: &BulkOp, mask: u32) -> Result<()> {
        for lane in lanes(mask) {
            self.bulk_lane(warp, op, lane).map_err(|mut stop| {
                stop.lane = Some(lane as u32);
                stop
            })?;
        }
        Ok(())
    }

    fn bulk_lane(&mut self, warp: &mut Warp, op: &BulkOp, lane: usize) -> Result<()> {
        self.progress += 1;
        let agent = warp.id as usize;
        match op {
            BulkOp::Commit => {
                let engine = self.shared.races.engine();
                let seen = self.shared.races.release(engine);
                warp.bulk_groups[lane].push_back(seen);
                return Ok(());
            }
            BulkOp::Wait { groups, .. } => {
                while warp.bulk_groups[lane].len() > *groups as usize {
                    if let Some(seen) = warp.bulk_groups[lane].pop_front() {
                        self.shared.races.acquire(agent, &seen);
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        let seen = self.shared.races.release(agent);
        let engine = self.shared.races.engine();
        self.shared.races.acquire(engine, &seen);
        let at = |warp: &Warp, addr: &Addr| addresses(warp, *addr)[lane];
        match op {
            BulkOp::Load { to, from, bytes, barrier } => {
                let length = u64::from(warp.rw(*bytes)[lane]);
                let (to, from) = (at(warp, to), at(warp, from));
                aligned(Space::Shared, to, UNIT)?;
                aligned(Space::Global, from, UNIT)?;
                whole(length)?;
                let mut copy = Incoming::default();
                self.read_global(from, length as usize, to, &mut copy)?;
                self.deliver_later(lane, at(warp, barrier), copy, length as u32)
            }
            BulkOp::LoadTensor { to, map, barrier } => {
                let (map, corner) = self.tensor_place(warp, map, lane)?;
                let to = at(warp, to);
                let mut copy = Incoming::default();
                let size = map.spec().dtype.bytes() as usize;
                map.load(&corner, to as u32, |piece: Piece| match piece.source {
                    Source::Global(from) => {
                        self.read_global(from, piece.bytes as usize, u64::from(piece.shared), &mut copy)
                    }
                    Source::Fill(element) => {
                        let elements = piece.bytes as usize / size;
                        copy.runs.push((piece.shared as usize, element[..size].repeat(elements)));
                        Ok(())
                    }
                })?;
                self.deliver_later(lane, at(warp, barrier), copy, map.box_bytes())
            }
            BulkOp::Store { to, from, bytes } => {
                let length = u64::from(warp.rw(*bytes)[lane]);
                let (to, from) = (at(warp, to), at(warp, from));
                aligned(Space::Global, to, UNIT)?;
                aligned(Space::Shared, from, UNIT)?;
                whole(length)?;
                let mut touched = Touched::new();
                self.write_global(from, to, length as usize, &mut touched)?;
                self.count_stores(&touched);
                Ok(())
            }
            BulkOp::StoreTensor { map, from } => {
                let (map, corner) = self.tensor_place(warp, map, lane)?;
                let from = at(warp, from);
                let mut touched = Touched::new();
                map.store(&corner, from as u32, |from, to, bytes| {
                    self.write_global(u64::from(from), to, bytes as usize, &mut touched)
                })?;
                self.count_stores(&touched);
                Ok(())
            }
            BulkOp::Commit | BulkOp::Wait { .. } => Ok(()),
        }
    }

    /// The tensor map and the corner of the box.
    fn tensor_place(
        &mut self,
        warp: &Warp,
        place: &TensorPlace,
        lane: usize,
    ) -> Result<(TensorMap, Vec<i32>)> {
        let generic = addresses(warp, place.map)[lane];
        let (space, address) = layout::resolve(generic);
        aligned(space, address, MAP_ALIGN)?;
        let outside = || Stop::warp(FaultKind::OutOfBounds { space, address, bytes: MAP_BYTES as u64 });
        let start = address as usize;
        let bytes = match space {
            Space::Param => self.params.get(start..start + MAP_BYTES),
            Space::Const => self.module.constants.get(start..start + MAP_BYTES),
            Space::Global => {
                let (index, at) = self.global_range(address, MAP_BYTES)?;
                self.memory.allocation(index).bytes.get(at..at + MAP_BYTES)
            }
            _ => None,
        };
        let bytes = bytes.and_then(|bytes| bytes.first_chunk()).ok_or_else(outside)?;
        let map =
            TensorMap::decode(bytes).map_err(|error| Stop::warp(FaultKind::TensorCopy(error.to_string())))?;
        let corner = place.coordinates.iter().map(|&at| warp.rw(at)[lane].cast_signed()).collect();
        Ok((map, corner))
    }

    /// Allocation and offset of bytes of global memory.
    fn global_range(&mut self, address: u64, bytes: usize) -> Result<(usize, usize)> {
        let outside =
            || Stop::warp(FaultKind::OutOfBounds { space: Space::Global, address, bytes: bytes as u64 });
        let index = self.memory.find(address).ok_or_else(outside)?;
        let allocation = self.memory.allocation(index);
        let at = (address - allocation.base) as usize;
        if at.checked_add(bytes).is_none_or(|end| end > allocation.bytes.len()) {
            return Err(outside());
        }
        Ok((index, at))
    }

    fn read_global(&mut self, from: u64, bytes: usize, to: u64, copy: &mut Incoming) -> Result<()> {
        let (index, at) = self.global_range(from, bytes)?;
        let allocation = self.memory.allocation(index);
        if self.checks.unwritten && !allocation.written.contains(at, bytes) {
            let (space, address, bytes) = (Space::Global, from, bytes as u64);
            return Err(Stop::warp(FaultKind::Unwritten { space, address, bytes }));
        }
        copy.runs.push((to as usize, allocation.bytes[at..at + bytes].to_vec()));
        touch(&mut copy.touched, index, at, bytes);
        Ok(())
    }

    /// Checks the destination of a load, counts the load, and leaves the rest to the mbarrier.
    fn deliver_later(&mut self, lane: usize, mbarrier: u64, copy: Incoming, bytes: u32) -> Result<()> {
        let engine = self.shared.races.engine();
        for (to, data) in &copy.runs {
            self.shared.bulk_range(lane, *to as u64, data.len())?;
            if self.shared.checks.shared_races
                && let Some(found) = self.shared.races.write(engine, *to, data.len(), false)
            {
                return Err(self.shared.race(lane, found));
            }
            self.shared.in_flight.insert(*to, data.len());
        }
        for &(index, sector) in copy.touched.keys() {
            self.memory.allocation(index).note_loads(&[sector]);
        }
        let counts = &mut self.tally.counts;
        count(&mut counts.global_copies, &copy.touched);
        counts.bulk_bytes += u64::from(bytes);
        aligned(Space::Shared, mbarrier, 8)?;
        self.shared.defer_bulk(lane, mbarrier, copy.runs, bytes)
    }

    fn write_global(&mut self, from: u64, to: u64, bytes: usize, touched: &mut Touched) -> Result<()> {
        let start = self.shared.bulk_range(0, from, bytes)?;
        let engine = self.shared.races.engine();
        if self.checks.unwritten && !self.shared.written.contains(start, bytes) {
            let (space, address, bytes) = (Space::Shared, from, bytes as u64);
            return Err(Stop::warp(FaultKind::Unwritten { space, address, bytes }));
        }
        if self.checks.shared_races
            && let Some(found) = self.shared.races.read(engine, start, bytes)
        {
            return Err(self.shared.race(0, found));
        }
        let (index, at) = self.global_range(to, bytes)?;
        let allocation = self.memory.allocation(index);
        allocation.bytes[at..at + bytes].copy_from_slice(&self.shared.bytes[start..start + bytes]);
        allocation.written.insert(at, bytes);
        if self.checks.global_races && self.many_ctas {
            let mut first = at;
            while first < at + bytes {
                let end = (at + bytes).min((first / PAGE + 1) * PAGE);
                if let Some((place, other)) = allocation.own(first, end - first, self.cta) {
                    let address = allocation.base + place as u64;
                    return Err(Stop::warp(FaultKind::GlobalRace { address, other }));
                }
                first = end;
            }
        }
        touch(touched, index, at, bytes);
        Ok(())
    }

    fn count_stores(&mut self, touched: &Touched) {
        for &(index, sector) in touched.keys() {
            self.memory.allocation(index).note_stores(&[sector]);
        }
        count(&mut self.tally.counts.global_stores, touched);
    }
}

/// A load on its way.
#[derive(Debug, Default)]
struct Incoming {
    /// Offsets in shared memory and what comes there.
    runs: Vec<(usize, Vec<u8>)>,
    touched: Touched,
}

impl Shared {
    /// Offset of bytes that a bulk copy reads or writes.
    fn bulk_range(&self, lane: usize, address: u64, bytes: usize) -> Result<usize> {
        if !self.in_bounds(address, bytes) {
            let (space, bytes) = (Space::Shared, bytes as u64);
            return Err(Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes }));
        }
        let at = address as usize;
        if self.checks.copies_in_flight && self.in_flight.meets(at, bytes) {
            return Err(Stop::lane(lane, FaultKind::CopyInFlight { address }));
        }
        Ok(at)
    }
}

fn aligned(space: Space, address: u64, bytes: u64) -> Result<()> {
    if address.is_multiple_of(bytes) {
        Ok(())
    } else {
        Err(Stop::warp(FaultKind::Misaligned { space, address, bytes }))
    }
}

/// A bulk copy moves whole units, at least one.
fn whole(length: u64) -> Result<()> {
    if length > 0 && length.is_multiple_of(UNIT) {
        Ok(())
    } else {
        Err(Stop::warp(FaultKind::Undefined("a bulk copy moves a multiple of 16 bytes")))
    }
}

fn touch(touched: &mut Touched, allocation: usize, at: usize, bytes: usize) {
    for sector in at / SECTOR..=(at + bytes - 1) / SECTOR {
        let from = at.max(sector * SECTOR) - sector * SECTOR;
        let to = (at + bytes).min((sector + 1) * SECTOR) - sector * SECTOR;
        let used = (u32::MAX >> (SECTOR - (to - from))) << from;
        *touched.entry((allocation, sector as u64)).or_default() |= used;
    }
}

/// Counts a copy as one request.
fn count(counts: &mut crate::count::GlobalCounts, touched: &Touched) {
    let bytes: u64 = touched.values().map(|used| u64::from(used.count_ones())).sum();
    counts.requests += 1;
    counts.bytes += bytes;
    counts.sectors += touched.len() as u64;
    counts.ideal_sectors += bytes.div_ceil(SECTOR as u64);
    counts.full_sectors += touched.values().filter(|&&used| used == u32::MAX).count() as u64;
}
