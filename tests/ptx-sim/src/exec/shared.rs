//! The shared memory of a CTA, with everything that is known about its bytes.

use super::mbarrier::Mbarriers;
use super::{Result, Stop};
use crate::check::{Agent, ByteSet, Checks, Found, Races};
use crate::error::{FaultKind, Space};

/// Shared memory.
#[derive(Debug)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    pub written: ByteSet,
    /// Destinations of copies that were not waited for.
    pub in_flight: ByteSet,
    pub races: Races,
    pub mbarriers: Mbarriers,
    pub checks: Checks,
    warps: usize,
}

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
    /// A volatile or relaxed write.
    StrongWrite,
    Atomic,
    /// A volatile or relaxed read, which races with nothing.
    StrongRead,
}

impl Shared {
    pub(crate) fn new(bytes: usize, warps: usize, granule: u32, checks: Checks) -> Self {
        Self {
            bytes: vec![0; bytes],
            written: ByteSet::new(bytes),
            in_flight: ByteSet::new(bytes),
            races: Races::new(warps, if checks.shared_races { bytes } else { 0 }, granule),
            mbarriers: Mbarriers::default(),
            checks,
            warps,
        }
    }

    /// A new CTA.
    pub(crate) fn restart(&mut self) {
        self.written.clear();
        self.in_flight.clear();
        self.races.restart();
        self.mbarriers = Mbarriers::default();
    }

    /// Whether these bytes exist.
    pub(crate) fn in_bounds(&self, address: u64, bytes: usize) -> bool {
        address.checked_add(bytes as u64).is_some_and(|end| end <= self.bytes.len() as u64)
    }

    /// Checks an access of one lane, and returns its offset.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        agent: Agent,
        lane: usize,
        address: u64,
        bytes: usize,
        touch: Touch,
    ) -> Result<usize> {
        let length = bytes as u64;
        let space = Space::Shared;
        if !self.in_bounds(address, bytes) {
            return Err(Stop::lane(lane, FaultKind::OutOfBounds { space, address, bytes: length }));
        }
        if !address.is_multiple_of(length) {
            return Err(Stop::lane(lane, FaultKind::Misaligned { space, address, bytes: length }));
        }
        let at = address as usize;
        if self.checks.copies_in_flight && self.in_flight.meets(at, bytes) {
            return Err(Stop::lane(lane, FaultKind::CopyInFlight { address }));
        }
        if !matches!(touch, Touch::Write | Touch::StrongWrite)
            && self.checks.unwritten
            && !self.written.contains(at, bytes)
        {
            return Err(Stop::lane(lane, FaultKind::Unwritten { space, address, bytes: length }));
        }
        if self.checks.shared_races {
            let found = match touch {
                Touch::Read => self.races.read(agent, at, bytes),
                Touch::Write => self.races.write(agent, at, bytes, false),
                Touch::Atomic | Touch::StrongWrite => self.races.write(agent, at, bytes, true),
                Touch::StrongRead => None,
            };
            if let Some(found) = found {
                return Err(self.race(lane, found));
            }
        }
        Ok(at)
    }

    /// The fault of a race.
    pub(crate) fn race(&self, lane: usize, Found { race, other, at }: Found) -> Box<Stop> {
        let other = if other == self.warps { "a bulk copy".to_owned() } else { format!("warp {other}") };
        Stop::lane(lane, FaultKind::SharedRace { address: at as u64, race, other })
    }
}
