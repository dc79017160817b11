//! Ops that compute each element from the elements at its place: each is lowered once, for its own kernel and for the end
//! of others.

use nemo_ir::plan::Extent;

use super::emit::Emit;
use super::memory::Written;
use super::{Kernel, geometry};
use crate::emit::Float;
use crate::spec::{KernelSpec, Layout};
use crate::{ffn, linear};

/// The value of an element-wise op, given those of its operands, in f32.
pub(crate) type Pointwise = for<'c, 'm> fn(&Emit<'c, 'm>, &[Float<'c>]) -> Float<'c>;

/// Threads of a CTA.
const THREADS: u32 = 256;

/// The lowering of the op of that name; `None` for one that is not element-wise.
pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    ffn::nvptx::pointwise(op).or_else(|| linear::nvptx::pointwise(op))
}

/// The kernel of an element-wise op alone: a CTA takes a stretch of a row.
pub(super) fn kernel(spec: &KernelSpec) -> Result<Kernel, String> {
    let lowered = pointwise(spec.op.name).ok_or("the op is not element-wise")?;
    let result = &spec.results[0];
    let width = result.ty.width().ok_or("the result has no rows")?;
    let layouts = spec.operands.iter().chain([result]);
    let vector = layouts.map(Layout::vector).min().unwrap_or(1).min(1 << width.trailing_zeros().min(3));
    let stretch = u64::from(THREADS * vector);
    let rows = geometry::rows(result.ty.shape[0]);
    let geometry = geometry::of([Extent::Const(width.div_ceil(stretch)), rows, Extent::Const(1)], THREADS);
    Ok(Kernel::new(geometry, move |e| {
        let sources: Vec<_> = e.spec().op.operands.iter().map(|operand| e.operand(operand.name)).collect();
        let target = e.result();
        let row = e.cta(1);
        let column = e.times(e.add(e.times(e.cta(0), THREADS.into()), e.thread()), vector.into());
        e.when(e.cmp(inkwell::IntPredicate::ULT, column, e.word(width as u32)), || {
            let place = |tensor: (_, &Layout)| e.at(e.row(tensor, row), tensor.1.dtype(), column);
            let load = |source: &(_, &Layout)| {
                e.load(place(*source), source.1.dtype(), (vector, vector), Written::Now)
            };
            let pieces: Vec<_> = sources.iter().map(load).collect();
            let value = |at: usize| lowered(e, &pieces.iter().map(|piece| piece[at]).collect::<Vec<_>>());
            let values: Vec<_> = (0..vector as usize).map(value).collect();
            e.store(place(target), target.1.dtype(), &values, vector);
        });
        Ok(())
    }))
}
