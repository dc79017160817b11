//! The inner product of the chunked scan: a tile of sums in registers.

use crate::host::{Any, Emit, Float, Int, Lanes};

/// `sums[i][v] += a(i, k) * b(k)[v]` for k in `0 .. count`, with `rows` values of i; `sums` is row-major.
pub(super) fn accumulate<'c>(
    e: &Emit<'c, '_>,
    count: Int<'c>,
    rows: u32,
    sums: &[Any<'c>],
    a: impl Fn(u32, Int<'c>) -> Float<'c>,
    b: impl Fn(Int<'c>) -> Vec<Lanes<'c>>,
) -> Vec<Any<'c>> {
    e.fold((e.int(0), count, 1), sums, |k, sums| {
        let right = b(k);
        let mut next = Vec::with_capacity(sums.len());
        for i in 0..rows {
            let left = e.splat(a(i, k));
            let line = &sums[i as usize * right.len()..][..right.len()];
            next.extend(
                line.iter()
                    .zip(&right)
                    .map(|(sum, b)| -> Any<'c> { e.fma(left, *b, sum.into_vector_value()).into() }),
            );
        }
        next
    })
}
