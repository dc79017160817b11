//! What is checked beside bounds and alignment: bytes that nobody wrote, and accesses that nothing orders.

mod races;
mod unwritten;

pub(crate) use races::{Agent, Clocks, Found, Races, merge};
pub(crate) use unwritten::ByteSet;

/// What a run checks. Bounds, alignment, barriers and deadlocks are always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Reads of global, shared and local bytes that nobody wrote.
    pub unwritten: bool,
    /// Accesses of several warps to the same bytes of shared memory with nothing that orders them.
    pub shared_races: bool,
    /// Shared memory touched while a copy to it is on its way.
    pub copies_in_flight: bool,
    /// Several CTAs writing the same byte of global memory.
    pub global_races: bool,
}

impl Checks {
    /// Nothing but what is always checked.
    pub const NONE: Self =
        Self { unwritten: false, shared_races: false, copies_in_flight: false, global_races: false };
}

impl Default for Checks {
    /// Everything.
    fn default() -> Self {
        Self { unwritten: true, shared_races: true, copies_in_flight: true, global_races: true }
    }
}
