//! Where the state spaces lie in the generic address space.
//!
//! Global memory has the addresses below the windows; a generic address in a window belongs to its space, the
//! offset in the window is the address there.

use crate::error::Space;

/// First address that [`crate::Memory`] hands out.
pub(crate) const GLOBAL_START: u64 = 0x10_0000_0000;
/// Bytes of a window.
pub(crate) const WINDOW: u64 = 1 << 40;
/// Start of the window of constants.
pub(crate) const CONST_WINDOW: u64 = 0x7c00_0000_0000;
/// Start of the window of kernel parameters.
pub(crate) const PARAM_WINDOW: u64 = 0x7d00_0000_0000;
/// Start of the window of local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;
/// Start of the window of shared memory.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;

/// Space of a generic address and the address in it.
pub(crate) fn resolve(address: u64) -> (Space, u64) {
    let offset = address % WINDOW;
    match address - offset {
        CONST_WINDOW => (Space::Const, offset),
        PARAM_WINDOW => (Space::Param, offset),
        LOCAL_WINDOW => (Space::Local, offset),
        SHARED_WINDOW => (Space::Shared, offset),
        _ => (Space::Global, address),
    }
}

/// What is added to an address of a space to make it generic.
pub(crate) fn window(space: Space) -> u64 {
    match space {
        Space::Const => CONST_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Shared => SHARED_WINDOW,
        Space::Global | Space::Generic => 0,
    }
}
