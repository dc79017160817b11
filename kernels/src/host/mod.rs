//! Vector code for x86-64.
//!
//! A kernel is `void(ptr args, ptr dims, i32 thread, i32 threads)`: `args` points to the pointers of
//! [`crate::spec::KernelSpec`], `dims` to a [`nemo_ir::step::StepDims`], and the call does the share of `thread`.

mod chain;
mod columns;
mod elementwise;
mod emit;
mod math;
mod memory;
mod object;
mod rows;
mod share;

use thiserror::Error;

pub(crate) use crate::chain::{Chain, Link};
pub(crate) use crate::emit::{Any, Float, Int, Lanes, Ptr};
pub(crate) use elementwise::{Pointwise, pointwise};
pub(crate) use emit::Emit;
pub(crate) use object::Generator;
pub use object::compile;
pub(crate) use rows::Rows;
pub(crate) use share::Sequence;

/// Why an object could not be made.
#[derive(Debug, Error)]
pub enum HostError {
    /// The op has no generator, or not for these shapes.
    #[error("no host kernel for `{spec}`: {why}")]
    Unsupported {
        /// The spec's text.
        spec: String,
        /// What stands against it.
        why: String,
    },
    /// LLVM refused the module or could not emit it: a mistake in a generator.
    #[error("LLVM refused the kernels for {target}: {message}")]
    Llvm {
        /// Target name.
        target: String,
        /// LLVM's words.
        message: String,
    },
}

/// Machine code and the texts that it came from.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Relocatable ELF with one function per spec, named as asked, and no undefined symbol.
    pub elf: Vec<u8>,
    /// Optimised LLVM IR, where it was asked for.
    pub llvm: Option<String>,
    /// Assembly, where it was asked for.
    pub asm: Option<String>,
}

/// Which texts to keep beside the object.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listings {
    /// Keep the optimised LLVM IR.
    pub llvm: bool,
    /// Keep the assembly.
    pub asm: bool,
}
