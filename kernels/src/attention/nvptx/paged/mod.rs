//! Grouped-query attention over pages with a running softmax (Milakov & Gimelshein, 2018; Dao et al., 2022).
//!
//! Scores are compared and subtracted as products of queries and keys; the scale, and the step from e to 2, is folded into
//! the exponent. A row goes through its sequence's pages in order, or every n-th of them where splits share the row, so its
//! bits depend on the shapes, the range of steps and that sequence alone.

mod decode;
mod exact;
mod merge;
mod prefill;
mod stage;
mod tensor;
mod tile;
mod warpgroup;
mod warps;

use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;

use super::cache::Cache;
use crate::nvptx::{Emit, Float, Int, Kernel, Ptr};
use crate::spec::KernelSpec;
use crate::target::Sm;

/// The largest score of a row that has seen no token. Finite, so that it can be subtracted from itself.
const LOWEST: f64 = -1e30;
/// The widest head.
const MAX_HEAD_DIM: u64 = 1024;
/// The widest head that tensor cores take: wider ones do not fit the registers.
const MAX_TENSOR_HEAD_DIM: u64 = 128;

/// Extents of the op.
#[derive(Debug, Clone, Copy)]
struct Shape {
    cache: Cache,
    /// Query heads that share a KV head.
    group: u64,
    /// The most tokens that a row sees; 0: all.
    window: u64,
    /// The scale of scores, times log2 e.
    scale: f64,
    /// Query and result elements that one access can take.
    vectors: (u32, u32),
    /// Whether all is bf16, and aligned as tensor cores want it.
    tensor: bool,
}

impl Shape {
    fn of(spec: &KernelSpec) -> Result<Self, String> {
        let cache = Cache::of(spec)?;
        let (q, y) = (spec.operand("q").1, &spec.results[0]);
        let width = q.ty.width().ok_or("the queries have no rows")?;
        let scale = spec.float("scale") * std::f64::consts::LOG2_E;
        if cache.head_dim > MAX_HEAD_DIM {
            return Err(format!("head_dim is {}; up to {MAX_HEAD_DIM} fit the registers", cache.head_dim));
        }
        if scale.is_nan() || scale <= 0.0 {
            return Err(format!("the scale is {}; the softmax wants a positive one", spec.float("scale")));
        }
        let bf16 = [q.dtype(), cache.dtype, y.dtype()].into_iter().all(|dtype| dtype == Dtype::Bf16);
        let aligned = q.vector() == 8 && cache.vector == 8;
        Ok(Self {
            cache,
            group: width / cache.head_dim / cache.heads,
            window: spec.int("window"),
            scale,
            vectors: (q.vector(), y.vector()),
            tensor: bf16 && aligned && cache.head_dim <= MAX_TENSOR_HEAD_DIM,
        })
    }

    /// The first token that a row at `position` sees.
    fn first_seen<'c>(&self, e: &Emit<'c, '_>, position: Int<'c>) -> Int<'c> {
        if self.window == 0 {
            return e.word(0);
        }
        let window = e.word(u32::try_from(self.window - 1).unwrap_or(i32::MAX as u32).min(i32::MAX as u32));
        e.max(e.sub(position, window), e.word(0))
    }
}

pub(super) fn kernels(sm: Sm, spec: &KernelSpec) -> Result<Vec<Kernel>, String> {
    let shape = Shape::of(spec)?;
    let steps = spec.steps.ok_or("the op is for a range of steps")?;
    Ok(match steps.phase {
        Phase::Decode => vec![decode::kernel(sm, spec, steps, shape)],
        Phase::Prefill if shape.tensor => prefill::kernels(sm, spec, shape),
        Phase::Prefill => vec![exact::prefill(shape)],
    })
}

/// A weight: 2^(scale * (score - largest)); without a score (-infinity), 0.
fn weight<'c>(e: &Emit<'c, '_>, shape: &Shape, score: Float<'c>, largest: Float<'c>) -> Float<'c> {
    let scale = e.float(shape.scale);
    exp2(e, e.fma(score, scale, e.fneg(e.fmul(largest, scale))))
}

/// What sums so far are multiplied by when the largest score changes: 1 where it does not, even if no token was seen. (As
/// a [`weight`] it would not be: a product of [`LOWEST`] is rounded far from itself.)
fn fade<'c>(e: &Emit<'c, '_>, shape: &Shape, before: Float<'c>, largest: Float<'c>) -> Float<'c> {
    exp2(e, e.fmul(e.fsub(before, largest), e.float(shape.scale)))
}

/// 2^x, and 0 where that is below the normal numbers.
fn exp2<'c>(e: &Emit<'c, '_>, x: Float<'c>) -> Float<'c> {
    e.call("llvm.nvvm.ex2.approx.ftz", &[x.into()])
}

/// What weighted sums are multiplied by, given the sum of the weights; a row that saw no token has zeros for sums.
fn normalizer<'c>(e: &Emit<'c, '_>, total: Float<'c>) -> Float<'c> {
    e.fdiv(e.float(1.0), e.fmax(total, e.float(f64::from(f32::MIN_POSITIVE))))
}

/// Four words at a multiple of 16 bytes, of tensors that no kernel writes at the same time.
fn words<'c>(e: &Emit<'c, '_>, address: Ptr<'c>) -> [Int<'c>; 4] {
    let loaded = e.load_read_only(e.context.i32_type().vec_type(4), address, 16).into_vector_value();
    std::array::from_fn(|lane| e.extract(loaded, lane as u32).into_int_value())
}

/// As [`words`], zeros where the condition does not hold; `None`: it always holds.
fn words_where<'c>(
    e: &Emit<'c, '_>,
    condition: Option<inkwell::values::IntValue<'c>>,
    address: impl FnOnce() -> Ptr<'c>,
) -> [Int<'c>; 4] {
    let Some(condition) = condition else { return words(e, address()) };
    let zeros = || vec![e.word(0).into(); 4];
    let loaded = e.choose(condition, || words(e, address()).map(Into::into).to_vec(), zeros);
    std::array::from_fn(|lane| loaded[lane].into_int_value())
}
