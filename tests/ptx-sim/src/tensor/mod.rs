//! The warp-wide matrix instructions and the copies that feed them, as functions on registers and bytes:
//! fragments, roundings, swizzles, tensor maps.
