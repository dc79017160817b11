//! Kernel generators: an op with fixed shapes goes in, machine code comes out, through LLVM.
//!
//! A folder per op family holds `host.rs` (vector code for x86-64); [`host`] holds what they share: the
//! emitter, vector math, and the way from a module to an object file. Nothing here runs a kernel.

mod attention;
mod chain;
mod emit;
mod ffn;
mod head;
pub mod host;
mod linear;
mod norm;
pub mod nvptx;
mod scan;
pub mod spec;
pub mod target;
