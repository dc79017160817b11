//! How far results are from what they should be.

use half::bf16;
use nemo_ir::types::Dtype;
use serde::{Deserialize, Serialize};

/// What a result may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// Every element within 2^-7 (|ref| + rms(ref)).
    Bf16,
    /// Relative L2 of 1e-5.
    F32,
    /// The same numbers: tokens.
    Exact,
}

impl Tolerance {
    /// The error over what is allowed: at most 1 is close, and what cannot be compared is infinitely far.
    pub fn error(self, found: &[f64], reference: &[f64]) -> f64 {
        if found.len() != reference.len() {
            return f64::INFINITY;
        }
        let norm: f64 = reference.iter().map(|x| x * x).sum();
        let pairs = found.iter().zip(reference);
        let error = match self {
            Self::Exact if found == reference => 0.0,
            Self::Exact => f64::INFINITY,
            Self::F32 => {
                let error: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
                error.sqrt() / (1e-5 * norm.sqrt().max(1e-12))
            }
            Self::Bf16 => {
                let rms = (norm / reference.len().max(1) as f64).sqrt();
                let ratio = |(a, b): (&f64, &f64)| match (a - b).abs() {
                    0.0 => 0.0,
                    off => off * 128.0 / (b.abs() + rms),
                };
                // `max` passes a NaN over.
                pairs.map(ratio).map(|x| if x.is_nan() { f64::INFINITY } else { x }).fold(0.0, f64::max)
            }
        };
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// Elements as numbers; `None` for a dtype that no kernel gives.
pub fn loaded(bytes: &[u8], dtype: Dtype) -> Option<Vec<f64>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
        Dtype::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::F16 | Dtype::U8 => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_and_not_close() {
        let reference = [1.0, -1.0, 1.0, -1.0];
        let off = |by: f64| [1.0, -1.0, 1.0 + by, -1.0];
        // |ref| and rms are 1, so 2/128 is allowed.
        assert!(Tolerance::Bf16.error(&off(0.0156), &reference) <= 1.0);
        assert!(Tolerance::Bf16.error(&off(0.0157), &reference) > 1.0);
        // The norm is 2, so 2e-5 is allowed.
        assert!(Tolerance::F32.error(&off(1.9e-5), &reference) <= 1.0);
        assert!(Tolerance::F32.error(&off(2.1e-5), &reference) > 1.0);
        assert_eq!(Tolerance::Exact.error(&off(1e-12), &reference), f64::INFINITY);
        for tolerance in [Tolerance::Bf16, Tolerance::F32, Tolerance::Exact] {
            assert_eq!(tolerance.error(&reference, &reference), 0.0);
            assert_eq!(tolerance.error(&off(f64::NAN), &reference), f64::INFINITY);
            assert_eq!(tolerance.error(&[1.0], &reference), f64::INFINITY);
            assert!(tolerance.error(&[1e-3], &[0.0]) > 1.0);
        }
        // A NaN is not forgotten for what follows it.
        assert_eq!(Tolerance::Bf16.error(&[f64::NAN, 1.0, 1.0, 1.0], &reference), f64::INFINITY);
    }

    #[test]
    fn elements() {
        assert_eq!(loaded(&[0x80, 0x3F, 0x00, 0xC0], Dtype::Bf16), Some(vec![1.0, -2.0]));
        assert_eq!(loaded(&1.5_f32.to_le_bytes(), Dtype::F32), Some(vec![1.5]));
        assert_eq!(loaded(&(-3_i32).to_le_bytes(), Dtype::I32), Some(vec![-3.0]));
        assert_eq!(loaded(&[0], Dtype::U8), None);
    }
}
