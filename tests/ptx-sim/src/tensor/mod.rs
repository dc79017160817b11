//! The warp-wide matrix instructions and the copies that feed them, as functions on registers and bytes:
//! fragments, roundings, swizzles, tensor maps.
//!
//! Nothing here knows of parsing or of scheduling. A register of a warp is a row of 32 lanes, [`Lanes`].
//! Memory is reached through closures of the caller, which checks bounds, races and bank conflicts as it likes.

pub mod float;
pub mod ldmatrix;
pub mod mma;
pub mod swizzle;
pub mod tma;
pub mod tma_map;
pub mod wgmma;

/// One 32-bit register of all lanes of a warp.
pub type Lanes = [u32; 32];
