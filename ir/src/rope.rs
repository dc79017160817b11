//! Rotary position embedding: the table of angles that kernels and the interpreter read.
//!
//! Su et al., "RoFormer" (2021); the `llama3` frequency scaling is that of the Llama 3.1 release.

use serde::{Deserialize, Serialize};

/// Llama 3.1 frequency scaling, which stretches long wavelengths past the original context.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Llama3Scaling {
    /// Stretch of the longest wavelengths.
    pub factor: f64,
    /// Wavelengths above `original_context / low_freq_factor` are stretched fully.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_context / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Positions that the model was first trained for.
    pub original_context: u64,
}

/// What determines a table of cosines and sines `f32[positions, head_dim]`.
///
/// A row holds `head_dim / 2` cosines, then as many sines, of `position * inv_freq`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RopeTable {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Head dimension; even.
    pub head_dim: u64,
    /// Rows that the model allows; an engine fills only those that its sequences can reach.
    pub positions: u64,
    /// Frequency scaling, where the model has one.
    pub scaling: Option<Llama3Scaling>,
}

impl RopeTable {
    /// Inverse frequencies `f32[head_dim / 2]`, rounded where the published implementations round.
    pub fn inv_freq(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                let freq = 1.0 / f64::from((self.theta.powf(f64::from(exponent))) as f32);
                self.scale(freq as f32)
            })
            .collect()
    }

    fn scale(&self, freq: f32) -> f32 {
        let Some(scaling) = self.scaling else { return freq };
        let wavelength = 2.0 * std::f64::consts::PI / f64::from(freq);
        let original = scaling.original_context as f64;
        if wavelength < original / scaling.high_freq_factor {
            return freq;
        }
        let stretched = f64::from(freq) / scaling.factor;
        if wavelength > original / scaling.low_freq_factor {
            return stretched as f32;
        }
        let smooth = (original / wavelength - scaling.low_freq_factor)
            / (scaling.high_freq_factor - scaling.low_freq_factor);
        ((1.0 - smooth) * stretched + smooth * f64::from(freq)) as f32
    }

    /// The table's first `positions` rows.
    ///
    /// The product of position and frequency is rounded to f32, as the models were trained; the cosine
    /// and sine of that product are exact to f32.
    pub fn rows(&self, positions: u64) -> Vec<f32> {
        let inv_freq = self.inv_freq();
        let mut table = Vec::with_capacity((positions * self.head_dim) as usize);
        for position in 0..positions {
            let angles = inv_freq.iter().map(|freq| f64::from(position as f32 * freq));
            table.extend(angles.clone().map(|angle| angle.cos() as f32));
            table.extend(angles.map(|angle| angle.sin() as f32));
        }
        table
    }
}
