//! The matrix instructions and tensor copies against plain loops and the layout formulas of the ISA, written a
//! second time.

mod bytes;
mod float;
mod ldmatrix;
mod mma;
mod tma;
mod tma_map;
mod wgmma;

/// A reproducible stream of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An integer of magnitude at most 8: sums of products of such are exact in every order.
    fn small(&mut self) -> f32 {
        self.below(17) as f32 - 8.0
    }
}

/// A plain product with exact sums: `a` is rows of k, `b` is k rows of columns.
fn product(a: &[Vec<f32>], b: &[Vec<f32>]) -> Vec<Vec<f32>> {
    a.iter()
        .map(|row| {
            (0..b[0].len())
                .map(|column| {
                    row.iter().zip(b).map(|(x, line)| f64::from(*x) * f64::from(line[column])).sum::<f64>()
                        as f32
                })
                .collect()
        })
        .collect()
}

fn random_matrix(random: &mut Random, rows: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..rows).map(|_| (0..columns).map(|_| random.small()).collect()).collect()
}
