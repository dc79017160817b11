//! Bulk copies. Loads land when their mbarrier is waited for; stores read shared memory when they are issued
//! and reach global memory when they are waited for, or at the end of the CTA.
//!
//! A load may bring bytes that nobody has written: a box holds what lies between those that are wanted. It is whoever
//! reads them in shared memory that is at fault.

use super::mbarrier::BulkData;
use super::memory::addresses;
use super::warp::Warp;
use super::{Machine, Result, Stop, lanes};
use crate::check::Clocks;
use crate::count::{GlobalCounts, SECTOR};
use crate::decode::bulk::{BulkOp, TensorPlace};
use crate::error::{FaultKind, Space};
use crate::layout;
use crate::tensor::tma::{CopyError, Source};
use crate::tensor::tma_map::{MAP_BYTES, TensorMap};
use std::collections::BTreeMap;

/// A store of one lane that was not waited for.
#[derive(Debug)]
pub(super) struct PendingStore {
    warp: u32,
    lane: usize,
    group: u32,
    /// Addresses in global memory and what goes there.
    writes: Vec<(u64, Vec<u8>)>,
    /// What the engine of copies had seen when it had read the source.
    seen: Clocks,
}

impl From<CopyError> for Box<Stop> {
    fn from(error: CopyError) -> Self {
        Stop::warp(FaultKind::TensorCopy(error.to_string()))
    }
}

/// A multiple of 16, as addresses and sizes of bulk copies are.
fn aligned(space: Space, lane: usize, address: u64) -> Result<()> {
    if address.is_multiple_of(16) {
        return Ok(());
    }
    Err(Stop::lane(lane, FaultKind::Misaligned { space, address, bytes: 16 }))
}

/// A copy moves a multiple of 16 bytes, at least 16.
fn whole(lane: usize, bytes: usize) -> Result<()> {
    if bytes > 0 && bytes.is_multiple_of(16) {
        return Ok(());
    }
    Err(Stop::lane(lane, FaultKind::Undefined("a bulk copy moves a multiple of 16 bytes")))
}

/// Bytes used of each sector that a copy touches: allocation, sector, one bit a byte.
type Touched = BTreeMap<(usize, usize), u32>;

fn touch(touched: &mut Touched, allocation: usize, at: usize, bytes: usize) {
    for sector in at / SECTOR..=(at + bytes - 1) / SECTOR {
        let from = at.max(sector * SECTOR) - sector * SECTOR;
        let to = (at + bytes).min((sector + 1) * SECTOR) - sector * SECTOR;
        *touched.entry((allocation, sector)).or_default() |= (u32::MAX >> (SECTOR - (to - from))) << from;
    }
}

/// Counts a copy as one request.
fn count(counts: &mut GlobalCounts, touched: &Touched) {
    let bytes: u64 = touched.values().map(|used| u64::from(used.count_ones())).sum();
    counts.requests += 1;
    counts.bytes += bytes;
    counts.sectors += touched.len() as u64;
    counts.ideal_sectors += bytes.div_ceil(SECTOR as u64);
    counts.full_sectors += touched.values().filter(|&&used| used == u32::MAX).count() as u64;
}

impl Machine<'_> {
    pub(super) fn bulk(&mut self, warp: &mut Warp, op: &BulkOp, mask: u32) -> Result<()> {
        self.progress += 1;
        match op {
            BulkOp::Load { to, from, bytes, barrier } => {
                let (to, from, barrier) =
                    (addresses(warp, *to), addresses(warp, *from), addresses(warp, *barrier));
                for lane in lanes(mask) {
                    let bytes = warp.rw(*bytes)[lane] as usize;
                    self.engine_sees(warp);
                    aligned(Space::Global, lane, from[lane])?;
                    aligned(Space::Shared, lane, to[lane])?;
                    whole(lane, bytes)?;
                    let mut data = BulkData { bytes: vec![0; bytes], ..BulkData::default() };
                    let mut touched = Touched::new();
                    self.read_global(lane, from[lane], 0, &mut data, &mut touched)?;
                    self.count_loads(&touched);
                    self.expect_run(lane, to[lane], 0..bytes, &mut data)?;
                    self.tally.counts.bulk_bytes += bytes as u64;
                    self.shared.defer_bulk(lane, barrier[lane], data)?;
                }
            }
            BulkOp::LoadTensor { to, map, barrier } => {
                let (to, barrier) = (addresses(warp, *to), addresses(warp, *barrier));
                for lane in lanes(mask) {
                    self.engine_sees(warp);
                    self.load_tensor(warp, lane, map, to[lane], barrier[lane])?;
                }
            }
            BulkOp::Store { to, from, bytes } => {
                let (to, from) = (addresses(warp, *to), addresses(warp, *from));
                for lane in lanes(mask) {
                    let bytes = warp.rw(*bytes)[lane] as usize;
                    self.engine_sees(warp);
                    aligned(Space::Global, lane, to[lane])?;
                    aligned(Space::Shared, lane, from[lane])?;
                    whole(lane, bytes)?;
                    let data = self.read_shared(lane, from[lane], bytes)?;
                    self.defer_store(warp, lane, vec![(to[lane], data)]);
                }
            }
            BulkOp::StoreTensor { map, from } => {
                let from = addresses(warp, *from);
                for lane in lanes(mask) {
                    self.engine_sees(warp);
                    let (map, coordinates) = self.tensor_place(warp, lane, map)?;
                    let mut writes = Vec::new();
                    map.store(&coordinates, from[lane] as u32, |shared, global, bytes| {
                        let data = self.read_shared(lane, u64::from(shared), bytes as usize)?;
                        writes.push((global, data));
                        Ok::<_, Box<Stop>>(())
                    })?;
                    self.defer_store(warp, lane, writes);
                }
            }
            BulkOp::Commit => lanes(mask).for_each(|lane| warp.bulk_group[lane] += 1),
            BulkOp::Wait { groups, read } => return self.wait_stores(warp, *groups, *read, mask),
        }
        Ok(())
    }

    /// What a warp did before it issues a copy has happened for the copy.
    fn engine_sees(&mut self, warp: &Warp) {
        let seen = self.shared.races.release(warp.id as usize);
        let engine = self.shared.races.engine();
        self.shared.races.acquire(engine, &seen);
    }

    fn load_tensor(
        &mut self,
        warp: &Warp,
        lane: usize,
        place: &TensorPlace,
        to: u64,
        barrier: u64,
    ) -> Result<()> {
        let (map, coordinates) = self.tensor_place(warp, lane, place)?;
        let mut data = BulkData::default();
        let mut touched = Touched::new();
        map.load(&coordinates, to as u32, |piece| {
            let (start, length) = (data.bytes.len(), piece.bytes as usize);
            match piece.source {
                Source::Global(address) => {
                    data.bytes.resize(start + length, 0);
                    self.read_global(lane, address, start, &mut data, &mut touched)?;
                    self.tally.counts.bulk_bytes += length as u64;
                }
                Source::Fill(pattern) => {
                    let element = map.spec().dtype.bytes() as usize;
                    data.bytes.extend(pattern[..element].iter().cycle().take(length));
                }
            }
            self.expect_run(lane, u64::from(piece.shared), start..start + length, &mut data)
        })?;
        self.count_loads(&touched);
        self.shared.defer_bulk(lane, barrier, data)
    }

    fn count_loads(&mut self, touched: &Touched) {
        for &(index, sector) in touched.keys() {
            self.memory.allocation(index).note_loads(&[sector as u64]);
        }
        count(&mut self.tally.counts.global_copies, touched);
    }

    /// The tensor map that a lane names, and its coordinates.
    fn tensor_place(&self, warp: &Warp, lane: usize, place: &TensorPlace) -> Result<(TensorMap, Vec<i32>)> {
        let address = addresses(warp, place.map)[lane];
        let mut bytes = [0; MAP_BYTES];
        let (space, at) = layout::resolve(address);
        if !at.is_multiple_of(64) {
            return Err(Stop::lane(lane, FaultKind::Misaligned { space, address: at, bytes: 64 }));
        }
        let outside =
            || Stop::lane(lane, FaultKind::OutOfBounds { space, address: at, bytes: MAP_BYTES as u64 });
        match space {
            Space::Param | Space::Const => {
                let source = if space == Space::Param { self.params } else { &self.module.constants };
                let start = at as usize;
                let source = source.get(start..start + MAP_BYTES).ok_or_else(outside)?;
                bytes.copy_from_slice(source);
            }
            Space::Global => self.memory.read(at, &mut bytes).map_err(|_| outside())?,
            _ => return Err(outside()),
        }
        let map = TensorMap::decode(&bytes)
            .map_err(|error| Stop::lane(lane, FaultKind::TensorCopy(error.to_string())))?;
        let coordinates = place.coordinates.iter().map(|&at| warp.rw(at)[lane] as i32).collect();
        Ok((map, coordinates))
    }

    /// Bytes of global memory that a copy reads: what it brings from `start` on.
    fn read_global(
        &mut self,
        lane: usize,
        address: u64,
        start: usize,
        data: &mut BulkData,
        touched: &mut Touched,
    ) -> Result<()> {
        let space = Space::Global;
        let bytes = &mut data.bytes[start..];
        let length = bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        let outside = || Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length });
        let index = self.memory.find(address).ok_or_else(outside)?;
        let allocation = self.memory.allocation(index);
        let at = (address - allocation.base) as usize;
        let source = allocation.bytes.get(at..at + bytes.len()).ok_or_else(outside)?;
        bytes.copy_from_slice(source);
        touch(touched, index, at, bytes.len());
        if self.checks.unwritten {
            let missing = allocation.written.missing(at, bytes.len()).into_iter();
            data.unwritten.extend(missing.map(|range| range.start + start..range.end + start));
        }
        Ok(())
    }

    /// Bytes of shared memory that a store reads.
    fn read_shared(&mut self, lane: usize, address: u64, bytes: usize) -> Result<Vec<u8>> {
        let space = Space::Shared;
        let length = bytes as u64;
        let shared = &mut self.shared;
        if !shared.in_bounds(address, bytes) {
            return Err(Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length }));
        }
        let at = address as usize;
        if self.checks.copies_in_flight && shared.in_flight.meets(at, bytes) {
            return Err(Stop::lane(lane, FaultKind::CopyInFlight { address }));
        }
        if self.checks.unwritten && !shared.written.contains(at, bytes) {
            return Err(Stop::lane(lane, FaultKind::Unwritten { space, address, bytes: length }));
        }
        if self.checks.shared_races && bytes > 0 {
            let engine = shared.races.engine();
            if let Some(found) = shared.races.read(engine, at, bytes) {
                return Err(shared.race(lane, found));
            }
        }
        Ok(shared.bytes[at..at + bytes].to_vec())
    }

    /// Marks the destination of a run of bytes as on its way.
    fn expect_run(
        &mut self,
        lane: usize,
        address: u64,
        range: std::ops::Range<usize>,
        data: &mut BulkData,
    ) -> Result<()> {
        let space = Space::Shared;
        let shared = &mut self.shared;
        let length = range.len();
        if length == 0 {
            return Ok(());
        }
        if !shared.in_bounds(address, length) {
            let kind = FaultKind::OutOfBounds { space, address, bytes: length as u64 };
            return Err(Stop::lane(lane, kind));
        }
        let at = address as usize;
        if self.checks.copies_in_flight && shared.in_flight.meets(at, length) {
            return Err(Stop::lane(lane, FaultKind::CopyInFlight { address }));
        }
        if self.checks.shared_races {
            let engine = shared.races.engine();
            if let Some(found) = shared.races.write(engine, at, length, false) {
                return Err(shared.race(lane, found));
            }
        }
        shared.in_flight.insert(at, length);
        data.runs.push((at, range));
        Ok(())
    }

    fn defer_store(&mut self, warp: &Warp, lane: usize, writes: Vec<(u64, Vec<u8>)>) {
        let engine = self.shared.races.engine();
        let seen = self.shared.races.release(engine);
        let group = warp.bulk_group[lane];
        self.bulk_stores.push(PendingStore { warp: warp.id, lane, group, writes, seen });
    }

    /// Waits for groups of stores: until their sources were read, or until they are done.
    fn wait_stores(&mut self, warp: &mut Warp, open: u32, read: bool, mask: u32) -> Result<()> {
        let mut later = Vec::new();
        for store in std::mem::take(&mut self.bulk_stores) {
            let waited = store.warp == warp.id
                && mask >> store.lane & 1 != 0
                && store.group + open < warp.bulk_group[store.lane];
            if waited {
                self.shared.races.acquire(warp.id as usize, &store.seen);
            }
            if waited && !read {
                self.perform(&store)?;
            } else {
                later.push(store);
            }
        }
        self.bulk_stores = later;
        Ok(())
    }

    /// Stores that nobody waited for end with the CTA.
    pub(super) fn flush_bulk_stores(&mut self) -> Result<()> {
        std::mem::take(&mut self.bulk_stores).iter().try_for_each(|store| self.perform(store))
    }

    fn perform(&mut self, store: &PendingStore) -> Result<()> {
        let mut touched = Touched::new();
        for (address, bytes) in store.writes.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let (address, length, lane) = (*address, bytes.len(), store.lane);
            let space = Space::Global;
            let outside =
                || Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length as u64 });
            let index = self.memory.find(address).ok_or_else(outside)?;
            let allocation = self.memory.allocation(index);
            let at = (address - allocation.base) as usize;
            allocation.bytes.get_mut(at..at + length).ok_or_else(outside)?.copy_from_slice(bytes);
            allocation.written.insert(at, length);
            if self.checks.global_races
                && self.many_ctas
                && let Some((at, other)) = allocation.own(at, length, self.cta)
            {
                let address = allocation.base + at as u64;
                return Err(Stop::lane(lane, FaultKind::GlobalRace { address, other }));
            }
            touch(&mut touched, index, at, length);
            self.tally.counts.bulk_bytes += length as u64;
        }
        for &(index, sector) in touched.keys() {
            self.memory.allocation(index).note_stores(&[sector as u64]);
        }
        count(&mut self.tally.counts.global_stores, &touched);
        Ok(())
    }
}
