//! Inputs: reproducible numbers, and their bytes.

use super::{Case, Comparison, Param, Target};

/// A reproducible stream of numbers (splitmix64).
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// An integer of magnitude at most 8: sums of products of such are exact in every order.
    pub(super) fn integer(&mut self) -> f32 {
        self.below(17) as f32 - 8.0
    }

    /// Between -1 and 1, of at most 8 bits and so exact in every type. Magnitudes differ so much that sums of
    /// products are inexact in f32.
    pub(super) fn fraction(&mut self) -> f32 {
        (self.below(256) as f32 - 128.0) / 128.0 * 2f32.powi(-(self.below(12) as i32))
    }

    pub(super) fn matrix(
        &mut self,
        rows: usize,
        columns: usize,
        mut one: impl FnMut(&mut Self) -> f32,
    ) -> Matrix {
        (0..rows).map(|_| (0..columns).map(|_| one(self)).collect()).collect()
    }
}

/// Rows of numbers.
pub(super) type Matrix = Vec<Vec<f32>>;

/// `a b + c`, in f64 and rounded once.
pub(super) fn product(a: &[Vec<f32>], b: &[Vec<f32>], c: &[Vec<f32>]) -> Matrix {
    let cell = |i: usize, j: usize| {
        let sum: f64 = a[i].iter().zip(b).map(|(x, row)| f64::from(*x) * f64::from(row[j])).sum();
        (sum + f64::from(c[i][j])) as f32
    };
    (0..a.len()).map(|i| (0..c[i].len()).map(|j| cell(i, j)).collect()).collect()
}

pub(super) fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// An output that must have these bytes, and had others before.
pub(super) fn output(expected: Vec<u8>) -> Param {
    Param::Output { initial: vec![0xa5; expected.len()], expected, comparison: Comparison::Exact }
}

/// A case of one CTA.
pub(super) fn case(
    name: impl Into<String>,
    module: (&'static str, &'static str, Target),
    kernel: &'static str,
    block: u32,
    params: Vec<Param>,
) -> Case {
    let (file, ptx, target) = module;
    Case { name: name.into(), file, ptx, kernel, target, grid: 1, block, params }
}
