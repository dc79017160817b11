//! Random weights of a size that keeps activations sane: for measuring speed without a checkpoint.
//!
//! A value depends on the seed, the weight's index and its place alone, so that every device makes the same.

use std::ops::Range;

use half::{bf16, f16};
use nemo_ir::plan::Weight;
use nemo_ir::types::Dtype;

use super::dtype;
use super::populate::{Progress, bar};
use crate::device::host::memory::Region;

/// Bytes that a thread fills at a time; a multiple of every element.
const PIECE: usize = 4 << 20;

/// What a tensor's values are drawn from: `low` and up to `span` more, uniformly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Law {
    pub low: f32,
    pub span: f32,
}

impl Law {
    fn uniform(low: f32, high: f32) -> Self {
        Self { low, span: high - low }
    }

    fn constant(value: f32) -> Self {
        Self { low: value, span: 0.0 }
    }
}

/// How one weight is made, element by element, wherever that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recipe {
    pub law: Law,
    pub dtype: Dtype,
    pub elements: u64,
    /// Of the whole weight; each piece has one of its own.
    pub seed: u64,
    /// Elements of a piece, as a power of two.
    pub log_piece: u32,
}

impl Recipe {
    /// Of the plan's `index`-th weight.
    pub(crate) fn of(index: usize, weight: &Weight, seed: u64) -> Self {
        let dtype = dtype(weight);
        Self {
            law: law(weight),
            dtype,
            elements: super::elements(weight),
            seed: mix(seed ^ mix(index as u64)),
            log_piece: (PIECE as u64 / dtype.bytes()).ilog2(),
        }
    }
}

/// Fills every weight, with a progress bar.
pub(super) fn fill(
    own: &mut Region,
    weights: &[Weight],
    ranges: &[Range<usize>],
    seed: u64,
    (threads, progress): (u32, Progress),
) {
    let bar = bar("making weights", ranges.iter().map(|range| range.len() as u64).sum(), progress);
    let mut pieces = Vec::new();
    let mut rest = own.bytes_mut();
    let mut at = 0;
    for (index, (weight, range)) in weights.iter().zip(ranges).enumerate() {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(range.start - at);
        let (bytes, tail) = tail.split_at_mut(range.len());
        rest = tail;
        at = range.end;
        let recipe = Recipe::of(index, weight, seed);
        for (n, piece) in bytes.chunks_mut(PIECE).enumerate() {
            pieces.push((piece, recipe, mix(recipe.seed.wrapping_add(n as u64))));
        }
    }
    let threads = threads.max(1) as usize;
    let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for (n, piece) in pieces.into_iter().enumerate() {
        shares[n % threads].push(piece);
    }
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(|| {
                for (piece, recipe, seed) in share {
                    fill_piece(piece, recipe.law, recipe.dtype, seed);
                    bar.inc(piece.len() as u64);
                }
            });
        }
    });
    bar.finish_and_clear();
}

/// The law of a tensor, by the last words of its usual name and its shape.
fn law(weight: &Weight) -> Law {
    let name = weight.names.first().map_or("", String::as_str);
    let ends = |suffix: &str| name.ends_with(suffix);
    if ends("A_log") {
        Law::uniform(0.0, 2.7)
    } else if ends("dt_bias") {
        Law::uniform(-4.0, 0.0)
    } else if ends("bias") {
        Law::constant(0.0)
    } else if ends("conv1d.weight") {
        Law::uniform(-0.5, 0.5)
    } else if weight.shape.len() < 2 {
        Law::constant(1.0)
    } else {
        // Variance 1/K: a uniform law on ±sqrt(3/K).
        let k = weight.shape.last().copied().unwrap_or(1).max(1);
        let bound = (3.0 / k as f32).sqrt();
        Law::uniform(-bound, bound)
    }
}

fn fill_piece(piece: &mut [u8], law: Law, dtype: Dtype, seed: u64) {
    match dtype {
        Dtype::F32 => {
            for (i, out) in piece.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *out = value(law, seed, i as u64).to_le_bytes();
            }
        }
        Dtype::Bf16 => {
            for (i, out) in piece.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *out = bf16::from_f32(value(law, seed, i as u64)).to_le_bytes();
            }
        }
        Dtype::F16 => {
            for (i, out) in piece.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *out = f16::from_f32(value(law, seed, i as u64)).to_le_bytes();
            }
        }
        // Indices and bytes have no law; zero is always in range.
        Dtype::I32 | Dtype::U8 => {}
    }
}

fn value(law: Law, seed: u64, index: u64) -> f32 {
    let unit = (mix(seed.wrapping_add(index)) >> 40) as f32 / (1 << 24) as f32;
    law.low + law.span * unit
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a counter in, a random word out.
fn mix(counter: u64) -> u64 {
    let mut x = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use nemo_ir::plan::Placement;

    use super::*;

    #[test]
    fn matrices_have_unit_gain_and_vectors_their_laws() {
        let weight = |name: &str, shape: &[u64], placement| Weight {
            names: vec![name.to_owned()],
            shape: shape.to_vec(),
            placement,
        };
        let weights = [
            weight("a.in_proj.weight", &[64, 256], Placement::InPlace(Dtype::Bf16)),
            weight("a.norm.weight", &[64], Placement::WidenedToF32),
            weight("a.dt_bias", &[64], Placement::WidenedToF32),
        ];
        let (ranges, bytes) = super::super::lay_out([64 * 256 * 2, 256, 256].into_iter());
        let mut own = Region::new(bytes).unwrap();
        fill(&mut own, &weights, &ranges, 1, (3, Progress::Silent));
        let matrix: Vec<f32> = own.bytes()[ranges[0].clone()]
            .as_chunks()
            .0
            .iter()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect();
        let variance = matrix.iter().map(|x| x * x).sum::<f32>() / matrix.len() as f32;
        assert!((variance * 256.0 - 1.0).abs() < 0.05, "{variance}");
        let floats =
            |range: &Range<usize>| bytemuck::cast_slice::<u8, f32>(&own.bytes()[range.clone()]).to_vec();
        assert!(floats(&ranges[1]).iter().all(|x| *x == 1.0));
        assert!(floats(&ranges[2]).iter().all(|x| (-4.0..=0.0).contains(x)));
    }
}
