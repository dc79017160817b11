//! Loads and stores.

use super::shared::Touch;
use super::warp::Warp;
use super::{Machine, Result, Stop, lanes};
use crate::count::{Sectors, wavefronts};
use crate::decode::op::{Access, Addr, AddrBase, Extend, Reg};
use crate::error::{FaultKind, Space};
use crate::layout;

/// Addresses of all lanes.
pub(super) fn addresses(warp: &Warp, addr: Addr) -> [u64; 32] {
    let mut result = [0; 32];
    match addr.base {
        AddrBase::D(base) => {
            let base = warp.rd(base);
            (0..32).for_each(|lane| result[lane] = base[lane].wrapping_add(addr.offset as u64));
        }
        AddrBase::W(base) => {
            let base = warp.rw(base);
            (0..32).for_each(|lane| {
                result[lane] = u64::from(base[lane].wrapping_add(addr.offset as u32));
            });
        }
    }
    result
}

/// Lanes whose address belongs to the same space as that of the first, and the addresses there.
pub(super) fn split_generic(addresses: &[u64; 32], mask: u32) -> (Space, u32, [u64; 32]) {
    let (space, _) = layout::resolve(addresses[mask.trailing_zeros() as usize]);
    let mut of_space = 0;
    let mut result = [0; 32];
    for lane in lanes(mask) {
        let (other, address) = layout::resolve(addresses[lane]);
        if other == space {
            of_space |= 1 << lane;
            result[lane] = address;
        }
    }
    (space, of_space, result)
}

/// Runs a statement for each lane of a mask.
macro_rules! each_lane {
    ($mask:expr, $lane:ident => $body:expr) => {
        if $mask == u32::MAX {
            for $lane in 0..32usize {
                $body
            }
        } else {
            for $lane in lanes($mask) {
                $body
            }
        }
    };
}

/// Bytes of memory into registers.
fn gather(warp: &mut Warp, source: &[u8], offsets: &[usize; 32], mask: u32, access: &Access) {
    for (at, &register) in access.regs.iter().enumerate() {
        let step = at * usize::from(access.element);
        macro_rules! read {
            ($dst:expr, $ty:ty, $out:ty) => {{
                let dst = $dst;
                each_lane!(mask, lane => {
                    let from = offsets[lane] + step;
                    let bytes = source[from..from + size_of::<$ty>()].try_into().expect("so many bytes");
                    dst[lane] = <$ty>::from_le_bytes(bytes) as $out;
                });
                if let Extend::Sign { from, to } = access.extend {
                    let spare = <$out>::BITS - from;
                    each_lane!(mask, lane => {
                        let value = (dst[lane] << spare).cast_signed() >> spare;
                        dst[lane] = value.cast_unsigned() << (<$out>::BITS - to) >> (<$out>::BITS - to);
                    });
                }
            }};
        }
        match (register, access.element) {
            (Reg::W(w), 1) => read!(&mut warp.w[w.0 as usize], u8, u32),
            (Reg::W(w), 2) => read!(&mut warp.w[w.0 as usize], u16, u32),
            (Reg::W(w), _) => read!(&mut warp.w[w.0 as usize], u32, u32),
            (Reg::D(d), 1) => read!(&mut warp.d[d.0 as usize], u8, u64),
            (Reg::D(d), 2) => read!(&mut warp.d[d.0 as usize], u16, u64),
            (Reg::D(d), 4) => read!(&mut warp.d[d.0 as usize], u32, u64),
            (Reg::D(d), _) => read!(&mut warp.d[d.0 as usize], u64, u64),
            (Reg::Sink, _) => {}
        }
    }
}

/// Registers into bytes of memory.
fn scatter(warp: &Warp, target: &mut [u8], offsets: &[usize; 32], mask: u32, access: &Access) {
    let element = usize::from(access.element);
    for (at, &register) in access.regs.iter().enumerate() {
        let step = at * element;
        macro_rules! write {
            ($src:expr, $ty:ty) => {{
                let src = $src;
                each_lane!(mask, lane => {
                    let to = offsets[lane] + step;
                    target[to..to + size_of::<$ty>()].copy_from_slice(&(src[lane] as $ty).to_le_bytes());
                });
            }};
        }
        match (register, element) {
            (Reg::W(w), 1) => write!(warp.rw(w), u8),
            (Reg::W(w), 2) => write!(warp.rw(w), u16),
            (Reg::W(w), _) => write!(warp.rw(w), u32),
            (Reg::D(d), 1) => write!(warp.rd(d), u8),
            (Reg::D(d), 2) => write!(warp.rd(d), u16),
            (Reg::D(d), 4) => write!(warp.rd(d), u32),
            (Reg::D(d), _) => write!(warp.rd(d), u64),
            (Reg::Sink, _) => {}
        }
    }
}

/// Offset of an access in a memory that starts at `base`, or what is wrong with it.
#[inline]
fn offset(space: Space, base: u64, size: usize, lane: usize, address: u64, bytes: usize) -> Result<usize> {
    let length = bytes as u64;
    let at = address.wrapping_sub(base);
    if at >= size as u64 || size as u64 - at < length {
        return Err(Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length }));
    }
    if !address.is_multiple_of(length) {
        return Err(Stop::lane(lane, FaultKind::Misaligned { space, address, bytes: length }));
    }
    Ok(at as usize)
}

impl Machine<'_> {
    /// Index of the allocation that the first lane of a mask addresses, the lanes that address it too, and
    /// their offsets in it.
    pub(super) fn global_group(
        &mut self,
        addresses: &[u64; 32],
        mask: u32,
        bytes: usize,
    ) -> Result<(usize, u32, [usize; 32])> {
        let space = Space::Global;
        let first = mask.trailing_zeros() as usize;
        let Some(index) = self.memory.find(addresses[first]) else {
            let (address, bytes) = (addresses[first], bytes as u64);
            return Err(Stop::lane(first, FaultKind::OutOfBounds { space, address, bytes }));
        };
        let allocation = self.memory.allocation(index);
        let (base, size) = (allocation.base, allocation.bytes.len());
        let mut group = 0;
        let mut offsets = [0; 32];
        for lane in lanes(mask) {
            match offset(space, base, size, lane, addresses[lane], bytes) {
                Ok(at) => {
                    offsets[lane] = at;
                    group |= 1 << lane;
                }
                // Another lane may address another allocation, which gets its own turn.
                Err(stop) if lane == first || matches!(stop.kind, FaultKind::Misaligned { .. }) => {
                    return Err(stop);
                }
                Err(_) => {}
            }
        }
        Ok((index, group, offsets))
    }

    pub(super) fn load(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Result<()> {
        let addresses = addresses(warp, access.addr);
        if access.space != Space::Generic {
            return self.load_from(warp, access, access.space, &addresses, mask);
        }
        let mut left = mask;
        while left != 0 {
            let (space, group, addresses) = split_generic(&addresses, left);
            self.load_from(warp, access, space, &addresses, group)?;
            left &= !group;
        }
        Ok(())
    }

    fn load_from(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        space: Space,
        addresses: &[u64; 32],
        mask: u32,
    ) -> Result<()> {
        let bytes = usize::from(access.bytes);
        match space {
            Space::Global => {
                let mut left = mask;
                while left != 0 {
                    let (index, group, offsets) = self.global_group(addresses, left, bytes)?;
                    let allocation = self.memory.allocation(index);
                    if self.checks.unwritten && !allocation.written.is_full() {
                        for lane in lanes(group) {
                            if !allocation.written.contains(offsets[lane], bytes) {
                                let (address, bytes) = (addresses[lane], bytes as u64);
                                let kind = FaultKind::Unwritten { space, address, bytes };
                                return Err(Stop::lane(lane, kind));
                            }
                        }
                    }
                    let sectors = Sectors::of(&offsets, group, bytes);
                    allocation.note_loads(sectors.indices());
                    let requested = u64::from(group.count_ones()) * bytes as u64;
                    sectors.count(&mut self.tally.counts.global_loads, requested);
                    gather(warp, &allocation.bytes, &offsets, group, access);
                    left &= !group;
                }
                Ok(())
            }
            Space::Shared => {
                let touch = if access.strong { Touch::StrongRead } else { Touch::Read };
                let mut offsets = [0; 32];
                for lane in lanes(mask) {
                    offsets[lane] =
                        self.shared.touch(warp.id as usize, lane, addresses[lane], bytes, touch)?;
                }
                let counts = &mut self.tally.counts.shared_loads;
                let (needed, ideal) = wavefronts(&offsets, mask, bytes);
                counts.requests += 1;
                counts.bytes += u64::from(mask.count_ones()) * bytes as u64;
                counts.replays += needed - ideal;
                gather(warp, &self.shared.bytes, &offsets, mask, access);
                Ok(())
            }
            Space::Local | Space::Generic => {
                let size = warp.frame_bytes;
                let mut offsets = [0; 32];
                for lane in lanes(mask) {
                    let at = offset(Space::Local, 0, size, lane, addresses[lane], bytes)?;
                    offsets[lane] = lane * size + at;
                    if self.checks.unwritten && !warp.frame_written.contains(offsets[lane], bytes) {
                        let (address, bytes) = (addresses[lane], bytes as u64);
                        let kind = FaultKind::Unwritten { space: Space::Local, address, bytes };
                        return Err(Stop::lane(lane, kind));
                    }
                }
                self.tally.counts.local_loads += 1;
                let frame = std::mem::take(&mut warp.frame);
                gather(warp, &frame, &offsets, mask, access);
                warp.frame = frame;
                Ok(())
            }
            Space::Param | Space::Const => {
                let source = if space == Space::Param { self.params } else { &self.module.constants };
                let mut offsets = [0; 32];
                for lane in lanes(mask) {
                    offsets[lane] = offset(space, 0, source.len(), lane, addresses[lane], bytes)?;
                }
                gather(warp, source, &offsets, mask, access);
                Ok(())
            }
        }
    }

    pub(super) fn store(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Result<()> {
        self.progress += 1;
        let addresses = addresses(warp, access.addr);
        if access.space != Space::Generic {
            return self.store_to(warp, access, access.space, &addresses, mask);
        }
        let mut left = mask;
        while left != 0 {
            let (space, group, addresses) = split_generic(&addresses, left);
            self.store_to(warp, access, space, &addresses, group)?;
            left &= !group;
        }
        Ok(())
    }

    fn store_to(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        space: Space,
        addresses: &[u64; 32],
        mask: u32,
    ) -> Result<()> {
        let bytes = usize::from(access.bytes);
        match space {
            Space::Global => {
                let mut left = mask;
                while left != 0 {
                    let (index, group, offsets) = self.global_group(addresses, left, bytes)?;
                    let allocation = self.memory.allocation(index);
                    for lane in lanes(group) {
                        allocation.written.insert(offsets[lane], bytes);
                        if self.checks.global_races
                            && self.many_ctas
                            && !access.strong
                            && let Some((at, other)) = allocation.own(offsets[lane], bytes, self.cta)
                        {
                            let address = allocation.base + at as u64;
                            return Err(Stop::lane(lane, FaultKind::GlobalRace { address, other }));
                        }
                    }
                    let sectors = Sectors::of(&offsets, group, bytes);
                    allocation.note_stores(sectors.indices());
                    let requested = u64::from(group.count_ones()) * bytes as u64;
                    sectors.count(&mut self.tally.counts.global_stores, requested);
                    scatter(warp, &mut allocation.bytes, &offsets, group, access);
                    left &= !group;
                }
                Ok(())
            }
            Space::Shared => {
                let touch = if access.strong { Touch::StrongWrite } else { Touch::Write };
                let mut offsets = [0; 32];
                for lane in lanes(mask) {
                    offsets[lane] =
                        self.shared.touch(warp.id as usize, lane, addresses[lane], bytes, touch)?;
                    self.shared.written.insert(offsets[lane], bytes);
                }
                let counts = &mut self.tally.counts.shared_stores;
                let (needed, ideal) = wavefronts(&offsets, mask, bytes);
                counts.requests += 1;
                counts.bytes += u64::from(mask.count_ones()) * bytes as u64;
                counts.replays += needed - ideal;
                scatter(warp, &mut self.shared.bytes, &offsets, mask, access);
                Ok(())
            }
            Space::Local | Space::Generic => {
                let size = warp.frame_bytes;
                let mut offsets = [0; 32];
                for lane in lanes(mask) {
                    let at = offset(Space::Local, 0, size, lane, addresses[lane], bytes)?;
                    offsets[lane] = lane * size + at;
                    warp.frame_written.insert(offsets[lane], bytes);
                }
                self.tally.counts.local_stores += 1;
                let mut frame = std::mem::take(&mut warp.frame);
                scatter(warp, &mut frame, &offsets, mask, access);
                warp.frame = frame;
                Ok(())
            }
            Space::Param | Space::Const => {
                let lane = mask.trailing_zeros() as usize;
                Err(Stop::lane(lane, FaultKind::ReadOnly { space, address: addresses[lane] }))
            }
        }
    }
}
