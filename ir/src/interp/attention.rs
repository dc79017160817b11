//! RoPE, the paged KV cache, and attention over it.

use super::args::{EvalArgs, EvalError};
use super::linear::dot;
use super::tensor::Tensor;
use crate::step::PAGE_TOKENS;

/// `rope` of the op table. Halves are rotated: column i of a head turns with column i + head_dim / 2.
pub fn rope(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, table) = (args.matrix("x"), args.matrix("table"));
    let half = table.width / 2;
    let mut y = x.data.to_vec();
    for (row, position) in args.ints("positions").iter().enumerate() {
        // Padded rows may carry any negative position; their result is never used.
        let (cos, sin) = table.row((*position).max(0) as usize).split_at(half);
        for head in y[row * x.width..][..x.width].chunks_exact_mut(table.width) {
            let (first, second) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (first[i], second[i]);
                first[i] = a * cos[i] - b * sin[i];
                second[i] = b * cos[i] + a * sin[i];
            }
        }
    }
    Ok(vec![Tensor::real([x.rows, x.width], y)])
}

/// Extents of a KV state `[N, 2, kv_heads, 64, head_dim]`.
struct Cache {
    kv_heads: usize,
    head_dim: usize,
}

impl Cache {
    fn new(args: &EvalArgs<'_>) -> Self {
        let shape = args.tensor("kv").shape();
        Self { kv_heads: shape[2], head_dim: shape[4] }
    }

    /// Offset of the key (`which` 0) or the value (1) of one token and head.
    fn at(&self, (page, place): (usize, usize), which: usize, head: usize) -> usize {
        (((page * 2 + which) * self.kv_heads + head) * PAGE_TOKENS as usize + place) * self.head_dim
    }
}

/// `kv_append` of the op table.
///
/// # Errors
/// [`EvalError::PastBlockTable`].
pub fn kv_append(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let cache = Cache::new(args);
    let mut kv = args.real("kv").to_vec();
    for sequence in args.cached_sequences() {
        for row in sequence.rows.clone() {
            let Some(place) = sequence.place(sequence.position(row))? else { continue };
            for (which, source) in [args.matrix("k"), args.matrix("v")].into_iter().enumerate() {
                for (head, values) in source.row(row).chunks_exact(cache.head_dim).enumerate() {
                    kv[cache.at(place, which, head)..][..cache.head_dim].copy_from_slice(values);
                }
            }
        }
    }
    Ok(vec![Tensor::real(args.tensor("kv").shape(), kv)])
}

/// `paged_attention` of the op table. A row that sees no cached token at all (a padded one) gives zeros.
///
/// # Errors
/// [`EvalError::PastBlockTable`].
pub fn paged_attention(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let cache = Cache::new(args);
    let (q, kv) = (args.matrix("q"), args.real("kv"));
    let (scale, window) = (args.float("scale"), args.int("window"));
    let heads_per_kv = q.width / cache.head_dim / cache.kv_heads;
    let mut y = vec![0.0; q.data.len()];
    for sequence in args.cached_sequences() {
        for row in sequence.rows.clone() {
            let last = sequence.position(row);
            let first = if window == 0 { 0 } else { (last + 1).saturating_sub(window) };
            let mut places = Vec::new();
            for position in first..=last {
                places.extend(sequence.place(position)?);
            }
            for (head, query) in q.row(row).chunks_exact(cache.head_dim).enumerate() {
                let kv_head = head / heads_per_kv;
                let vector = |place, which| &kv[cache.at(place, which, kv_head)..][..cache.head_dim];
                let scores: Vec<f64> =
                    places.iter().map(|place| scale * dot(query, vector(*place, 0))).collect();
                let out = &mut y[row * q.width + head * cache.head_dim..][..cache.head_dim];
                for (weight, place) in softmax(&scores).into_iter().zip(&places) {
                    for (out, value) in out.iter_mut().zip(vector(*place, 1)) {
                        *out += weight * value;
                    }
                }
            }
        }
    }
    Ok(vec![Tensor::real([q.rows, q.width], y)])
}

/// Weights that sum to one, in proportion to the exponentials.
pub(super) fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}
