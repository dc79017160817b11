//! Rows chosen by index.

use inkwell::IntPredicate;
use inkwell::types::BasicTypeEnum;
use nemo_ir::plan::Extent;
use nemo_ir::types::Dtype;

use crate::nvptx::{Any, Emit, Float, Int, Kernel, Ptr, Written, geometry};
use crate::spec::{KernelSpec, Layout};

/// The most threads of a CTA.
const THREADS: u64 = 128;

/// Row i of the result is row `indices[i]` of `source`, or zeros where that is negative; a CTA copies a stretch of one.
pub(super) fn kernel(
    spec: &KernelSpec,
    source: &'static str,
    indices: &'static str,
) -> Result<Kernel, String> {
    let (y, layout) = (&spec.results[0], spec.operand(source).1);
    let width = y.ty.width().ok_or("the result has no rows")?;
    let vector = y.vector().min(layout.vector()).min(1 << width.trailing_zeros().min(3));
    let pieces = width / u64::from(vector);
    let threads = pieces.next_multiple_of(32).min(THREADS);
    let grid = [geometry::rows(y.ty.shape[0]), Extent::Const(pieces.div_ceil(threads)), Extent::Const(1)];
    Ok(Kernel::new(geometry::of(grid, threads as u32), move |e| {
        let (source, indices) = (e.operand(source), e.operand(indices).0);
        let row = e.cta(0);
        let piece = e.add(e.times(e.cta(1), threads), e.thread());
        e.when(e.cmp(IntPredicate::ULT, piece, e.word(pieces as u32)), || {
            let column = e.times(piece, vector.into());
            let index = e.load_int(indices, row);
            let there = e.cmp(IntPredicate::SGE, index, e.word(0));
            let target = place(e, e.result(), row, column);
            let from = place(e, source, index, column);
            if from.1 == target.1 {
                let ty = bits(e, from.1, vector);
                let bytes = vector * from.1.bytes() as u32;
                let load = || vec![e.load_read_only(ty, from.0, bytes)];
                let copied = e.choose(there, load, || vec![ty.const_zero()]);
                e.store_aligned(target.0, copied[0], bytes);
            } else {
                let load = || e.load(from.0, from.1, (vector, vector), Written::Before);
                let values = e.choose(
                    there,
                    || load().into_iter().map(Any::from).collect(),
                    || vec![e.float(0.0).into(); vector as usize],
                );
                let values: Vec<Float<'_>> = values.into_iter().map(Any::into_float_value).collect();
                e.store(target.0, target.1, &values, vector);
            }
        });
        Ok(())
    }))
}

/// Where a row's elements from `column` on are, and how they are stored.
fn place<'c>(
    e: &Emit<'c, '_>,
    tensor: (Ptr<'c>, &Layout),
    row: Int<'c>,
    column: Int<'c>,
) -> (Ptr<'c>, Dtype) {
    let dtype = tensor.1.dtype();
    (e.at(e.row(tensor, row), dtype, column), dtype)
}

/// The type of so many elements as bits: what is only moved is not widened.
fn bits<'c>(e: &Emit<'c, '_>, dtype: Dtype, vector: u32) -> BasicTypeEnum<'c> {
    let i32 = e.context.i32_type();
    match vector * dtype.bytes() as u32 {
        1 => e.context.i8_type().into(),
        2 => e.context.i16_type().into(),
        4 => i32.into(),
        bytes => i32.vec_type(bytes / 4).into(),
    }
}
