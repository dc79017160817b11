//! Rows chosen by index.

use inkwell::IntPredicate;
use inkwell::types::BasicTypeEnum;
use inkwell::values::IntValue;
use nemo_ir::plan::Extent;
use nemo_ir::types::Dtype;

use crate::nvptx::{Any, Emit, Int, Kernel, Ptr, Written, geometry};
use crate::spec::KernelSpec;

/// The most threads of a CTA.
const THREADS: u64 = 128;
/// Pieces that a thread copies: loads under way together, for one index.
const PIECES: u64 = 4;

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
    let stretches = pieces.div_ceil(THREADS * PIECES);
    let threads = pieces.div_ceil(stretches * PIECES).next_multiple_of(32);
    let grid = [geometry::rows(y.ty.shape[0]), Extent::Const(stretches), Extent::Const(1)];
    Ok(Kernel::new(geometry::of(grid, threads as u32), move |e| {
        let (source, row) = (e.operand(source), e.cta(0));
        let index = e.load_int(e.operand(indices).0, row);
        let first = e.add(e.times(e.cta(1), threads * PIECES), e.thread());
        let copy = Copy {
            chosen: e.cmp(IntPredicate::SGE, index, e.word(0)),
            from: (e.row(source, index), source.1.dtype()),
            to: (e.row(e.result(), row), e.result().1.dtype()),
            vector,
        };
        let round = |round| {
            let piece = e.plus(first, round * threads);
            let column = e.times(piece, vector.into());
            (e.cmp(IntPredicate::ULT, piece, e.word(pieces as u32)), column)
        };
        let rounds: Vec<_> = (0..PIECES).map(round).collect();
        let loaded: Vec<_> = rounds.iter().map(|(there, column)| copy.load(e, *there, *column)).collect();
        for ((there, column), loaded) in rounds.iter().zip(&loaded) {
            e.when(*there, || copy.store(e, *column, loaded));
        }
        Ok(())
    }))
}

/// A row on its way.
struct Copy<'c> {
    /// Whether there is one: zeros go elsewhere.
    chosen: IntValue<'c>,
    from: (Ptr<'c>, Dtype),
    to: (Ptr<'c>, Dtype),
    vector: u32,
}

impl<'c> Copy<'c> {
    /// Whether the elements are only moved: then they are not widened.
    fn is_plain(&self) -> bool {
        self.from.1 == self.to.1
    }

    fn load(&self, e: &Emit<'c, '_>, there: IntValue<'c>, column: Int<'c>) -> Vec<Any<'c>> {
        let (dtype, vector) = (self.from.1, self.vector);
        let place = e.at(self.from.0, dtype, column);
        let there = e.and(there, self.chosen);
        if self.is_plain() {
            let ty = bits(e, dtype, vector);
            let load = || vec![e.load_read_only(ty, place, vector * dtype.bytes() as u32)];
            return e.choose(there, load, || vec![ty.const_zero()]);
        }
        let load = || e.load(place, dtype, (vector, vector), Written::Before);
        let found = || load().into_iter().map(Any::from).collect();
        e.choose(there, found, || vec![e.float(0.0).into(); vector as usize])
    }

    fn store(&self, e: &Emit<'c, '_>, column: Int<'c>, loaded: &[Any<'c>]) {
        let (dtype, vector) = (self.to.1, self.vector);
        let place = e.at(self.to.0, dtype, column);
        if self.is_plain() {
            e.store_aligned(place, loaded[0], vector * dtype.bytes() as u32);
            return;
        }
        let values: Vec<_> = loaded.iter().map(|value| value.into_float_value()).collect();
        e.store(place, dtype, &values, vector);
    }
}

/// The type of so many elements as bits: what is only moved is not widened.
fn bits<'c>(e: &Emit<'c, '_>, dtype: Dtype, vector: u32) -> BasicTypeEnum<'c> {
    let i32 = e.context.i32_type();
    match vector * dtype.bytes() as u32 {
        2 => e.context.i16_type().into(),
        4 => i32.into(),
        bytes => i32.vec_type(bytes / 4).into(),
    }
}
