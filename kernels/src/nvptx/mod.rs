//! PTX for NVIDIA GPUs.
//!
//! Parameters of a kernel, in this order: a global pointer per argument of [`KernelSpec`]; pointers to the counters and
//! the partial results of the plan's workspace; i32 values of T, R, L and P; a `byval` tensor map for each of
//! [`Geometry::maps`]. A CTA is one-dimensional and uses dynamic shared memory only.
//!
//! A family decides a kernel's [`Geometry`] from its spec alone, without LLVM, and hands a body along: so the planner
//! can lay out launches that are generated later.

mod asm;
mod chain;
mod elementwise;
mod emit;
pub(crate) mod geometry;
mod hopper;
mod math;
mod matrix;
mod memory;
mod module;
pub(crate) mod ring;
#[cfg(test)]
mod tests;
mod warp;

use nemo_ir::ops::{Family, Recipe};
use nemo_ir::plan::Geometry;
use nemo_ir::types::Dtype;
use thiserror::Error;

pub(crate) use crate::chain::{Chain, Link};
pub(crate) use crate::emit::{Any, Float, Int, Ptr};
pub(crate) use elementwise::{Pointwise, pointwise};
pub(crate) use emit::{Emit, SharedBytes};
pub(crate) use memory::Written;
pub use module::{Module, arch, compile, needs};

use crate::spec::KernelSpec;
use crate::target::Sm;
use crate::{attention, head, linear, norm, scan};

/// Why PTX could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NvptxError {
    /// The op has no generator, or not for these shapes.
    #[error("no {sm} kernel for `{spec}`: {why}")]
    Unsupported {
        /// The target.
        sm: &'static str,
        /// The spec's text.
        spec: String,
        /// What stands against it.
        why: String,
    },
    /// LLVM refused the module or could not emit it: a mistake in a generator.
    #[error("LLVM refused the kernels for {sm}: {message}")]
    Llvm {
        /// The target.
        sm: &'static str,
        /// LLVM's words.
        message: String,
    },
}

/// Writes the body of a kernel.
type Body = Box<dyn for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String>>;

/// A kernel that is decided upon, but not written yet.
pub(crate) struct Kernel {
    /// How it is launched.
    pub geometry: Geometry,
    /// What writes it.
    pub body: Body,
}

impl Kernel {
    pub fn new(
        geometry: Geometry,
        body: impl for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String> + 'static,
    ) -> Self {
        Self { geometry, body: Box::new(body) }
    }
}

/// How the kernel of a spec is launched.
///
/// # Errors
/// [`NvptxError::Unsupported`].
pub fn geometry_of(sm: Sm, spec: &KernelSpec) -> Result<Geometry, NvptxError> {
    kernel(sm, spec).map(|kernel| kernel.geometry)
}

/// A fused op belongs to the family whose work dominates it, whatever the table says.
pub(crate) fn kernel(sm: Sm, spec: &KernelSpec) -> Result<Kernel, NvptxError> {
    let refused =
        |why: &str| NvptxError::Unsupported { sm: sm.name(), spec: spec.to_string(), why: why.to_owned() };
    if spec.steps.is_none() {
        return Err(refused("a GPU's kernels are made for a range of steps"));
    }
    let mut layouts = spec.operands.iter().chain(&spec.results);
    if layouts.any(|layout| matches!(layout.ty.dtype, Dtype::F16 | Dtype::U8)) {
        return Err(refused("only f32, bf16 and i32 tensors have kernels"));
    }
    let chain = Chain::of(spec);
    let made = if pointwise(spec.op.name).is_some() {
        elementwise::kernel(spec)
    } else if Recipe::of(spec.op).is_some_and(|recipe| recipe.step("linear").is_some()) {
        linear::nvptx::kernel(sm, spec, &chain)
    } else {
        match spec.op.family {
            Family::Norm => norm::nvptx::kernel(sm, spec, &chain),
            Family::Linear => linear::nvptx::kernel(sm, spec, &chain),
            Family::Ffn => Err("the op has no generator".to_owned()),
            Family::Scan => scan::nvptx::kernel(sm, spec, &chain),
            Family::Attention => attention::nvptx::kernel(sm, spec, &chain),
            Family::Head => head::nvptx::kernel(sm, spec, &chain),
        }
    };
    made.map_err(|why| refused(&why))
}
