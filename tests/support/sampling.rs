//! Cases of sampling: logits as models give them, the maxima of their tiles, and what narrows a choice.

use nemo_ir::interp::{Sequence, Tensor};
use nemo_ir::types::{Dtype, Symbol};

use crate::kernel::{Case, Given};
use crate::random::Random;

/// Temperature, top-k, top-p and min-p.
pub type Settings = (f32, i32, f32, f32);

/// Logits with a few likely tokens a row.
pub fn peaked(count: usize, vocab: usize, seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    let mut logits = random.tensor(&[count, vocab], -9.0, 1.0);
    for row in logits.as_real_mut().expect("it is real").chunks_mut(vocab) {
        for _ in 0..40 {
            row[random.below(vocab)] = random.within(4.0, 9.0);
        }
    }
    logits
}

/// The largest of each tile of each row; NaN where one of them is.
pub fn maxima(logits: &Tensor, tile: usize) -> Tensor {
    let larger = |a: f64, b: &f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(*b) };
    let (rows, vocab) = (logits.shape()[0], logits.shape()[1]);
    let data = logits.as_real().expect("logits are real");
    let tiles = data.chunks(vocab).flat_map(|row| row.chunks(tile));
    let maxima = tiles.map(|tile| tile.iter().fold(f64::NEG_INFINITY, larger)).collect();
    Tensor::real([rows, vocab.div_ceil(tile)], maxima)
}

/// Logits, or their maxima, as an operand.
pub fn given(logits: &Tensor) -> Given {
    Given::rows(logits.clone(), Dtype::F32, Symbol::L)
}

/// Sampling from all logits.
pub fn sample(logits: &Tensor) -> Case {
    Case { op: "sample", attrs: vec![], operands: vec![given(logits)] }
}

/// Sampling by the maxima of tiles.
pub fn sample_tiled(logits: &Tensor, tile: usize) -> Case {
    let operands = vec![given(logits), given(&maxima(logits, tile))];
    Case { op: "sample_tiled", attrs: vec![(tile as u64).into()], operands }
}

/// A sequence of some tokens with these settings.
pub fn sequence(tokens: usize, settings: Settings, seed: [u32; 2]) -> Sequence {
    let (temperature, top_k, top_p, min_p) = settings;
    Sequence { tokens: vec![0; tokens], temperature, top_k, top_p, min_p, seed, ..Sequence::default() }
}
