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
mod form;
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
pub(crate) use form::COMBINING;
pub use form::{Candidate, Cut, Form, Needs, resident};
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
    /// How it is built and launched, and what it takes.
    pub candidate: Candidate,
    /// What writes it.
    pub body: Body,
}

impl Kernel {
    /// The sole kernel of an op, which needs what most do.
    pub fn new(
        geometry: Geometry,
        body: impl for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String> + 'static,
    ) -> Self {
        let needs = Needs::of_threads(geometry.threads);
        Self::of(Candidate { form: Form::Sole, geometry, needs, cut: None }, body)
    }

    /// The sole kernel of an op.
    pub fn needing(
        geometry: Geometry,
        needs: Needs,
        body: impl for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String> + 'static,
    ) -> Self {
        Self::of(Candidate { form: Form::Sole, geometry, needs, cut: None }, body)
    }

    /// One of several.
    pub fn of(
        candidate: Candidate,
        body: impl for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String> + 'static,
    ) -> Self {
        Self { candidate, body: Box::new(body) }
    }
}

/// The forms in which there is a kernel of a spec, whichever the spec names.
///
/// # Errors
/// [`NvptxError::Unsupported`], where there is none.
pub fn candidates(sm: Sm, spec: &KernelSpec) -> Result<Vec<Candidate>, NvptxError> {
    Ok(kernels(sm, spec)?.into_iter().map(|kernel| kernel.candidate).collect())
}

/// The form of a spec: the one that it names, or else the first.
///
/// # Errors
/// [`NvptxError::Unsupported`].
pub fn candidate(sm: Sm, spec: &KernelSpec) -> Result<Candidate, NvptxError> {
    kernel(sm, spec).map(|kernel| kernel.candidate)
}

/// The kernel of a spec in the form that it names, or else the first.
pub(crate) fn kernel(sm: Sm, spec: &KernelSpec) -> Result<Kernel, NvptxError> {
    let mut all = kernels(sm, spec)?.into_iter();
    let Some(form) = spec.form else { return Ok(all.next().expect("there is one, or an error")) };
    all.find(|kernel| kernel.candidate.form == form).ok_or_else(|| refused(sm, spec, "it has no such form"))
}

fn refused(sm: Sm, spec: &KernelSpec, why: &str) -> NvptxError {
    NvptxError::Unsupported { sm: sm.name(), spec: spec.to_string(), why: why.to_owned() }
}

/// All kernels of a spec, at least one. A fused op belongs to the family whose work dominates it, whatever the table says.
fn kernels(sm: Sm, spec: &KernelSpec) -> Result<Vec<Kernel>, NvptxError> {
    if spec.steps.is_none() {
        return Err(refused(sm, spec, "a GPU's kernels are made for a range of steps"));
    }
    let mut layouts = spec.operands.iter().chain(&spec.results);
    if layouts.any(|layout| matches!(layout.ty.dtype, Dtype::F16 | Dtype::U8)) {
        return Err(refused(sm, spec, "only f32, bf16 and i32 tensors have kernels"));
    }
    let chain = Chain::of(spec);
    let sole = |made: Result<Kernel, String>| made.map(|kernel| vec![kernel]);
    let made = if pointwise(spec.op.name).is_some() {
        sole(elementwise::kernel(spec))
    } else if Recipe::of(spec.op).is_some_and(|recipe| recipe.step("linear").is_some()) {
        linear::nvptx::kernels(sm, spec, &chain)
    } else {
        match spec.op.family {
            Family::Norm => sole(norm::nvptx::kernel(sm, spec, &chain)),
            Family::Linear => linear::nvptx::kernels(sm, spec, &chain),
            Family::Ffn => Err("the op has no generator".to_owned()),
            Family::Scan => sole(scan::nvptx::kernel(sm, spec, &chain)),
            Family::Attention => attention::nvptx::kernels(sm, spec, &chain),
            Family::Head => sole(head::nvptx::kernel(sm, spec, &chain)),
        }
    };
    let mut kernels = made.map_err(|why| refused(sm, spec, &why))?;
    kernels.retain(|kernel| kernel.candidate.resident(sm) > 0);
    if kernels.is_empty() {
        return Err(refused(sm, spec, "a multiprocessor has not enough for one CTA"));
    }
    Ok(kernels)
}
