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

impl Llama3Scaling {
    /// The scaled frequency.
    fn scale(&self, freq: f32) -> f32 {
        let (factor, low) = (self.factor as f32, self.low_freq_factor as f32);
        let original = self.original_context as f32;
        let wavelength = freq.recip() * std::f32::consts::TAU;
        if f64::from(wavelength) < self.original_context as f64 / self.high_freq_factor {
            return freq;
        }
        if f64::from(wavelength) > self.original_context as f64 / self.low_freq_factor {
            return freq / factor;
        }
        let span = (self.high_freq_factor - self.low_freq_factor) as f32;
        let smooth = (wavelength.recip() * original - low) / span;
        (1.0 - smooth) * freq / factor + smooth * freq
    }
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
    /// Inverse frequencies `f32[head_dim / 2]`, rounded where the published implementations round: each
    /// operation of theirs is one of f32, and a quotient with a number on top is a product with a
    /// reciprocal.
    pub fn inv_freq(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                // The power in f64 and rounded once: f32 powers differ by a unit between libraries.
                let power = (self.theta).powf(f64::from(exponent)) as f32;
                self.scaling.map_or(power.recip(), |scaling| scaling.scale(power.recip()))
            })
            .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const SUPER_49B: RopeTable = RopeTable {
        theta: 500_000.0,
        head_dim: 128,
        positions: 131_072,
        scaling: Some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        }),
    };

    #[track_caller]
    fn close(found: f32, wanted: f64) {
        assert!((f64::from(found) - wanted).abs() <= 3e-7 * wanted.abs(), "{found} for {wanted}");
    }

    #[test]
    fn plain_frequencies_are_a_geometric_series() {
        let table = RopeTable { theta: 10_000.0, head_dim: 8, positions: 16, scaling: None };
        assert_eq!(table.inv_freq(), [1.0, 0.1, 0.01, 0.001]);
    }

    /// The three regimes of the llama3 scaling, from the published formula in exact arithmetic.
    #[test]
    fn llama3_scaling_keeps_blends_and_stretches() {
        let freq = SUPER_49B.inv_freq();
        let wanted = [
            (0, 1.000000000000e+00),  // kept
            (1, 8.146172338565e-01),  // kept
            (20, 1.656044008099e-02), // kept
            (28, 3.211445994753e-03), // kept
            (29, 2.166570763503e-03), // blended
            (31, 8.567514129196e-04), // blended
            (34, 1.785078127680e-04), // blended
            (35, 9.556212353965e-05), // stretched
            (36, 7.784655273932e-05), // stretched
            (50, 4.411534674558e-06), // stretched
            (63, 3.068925988915e-07), // stretched
        ];
        for (i, wanted) in wanted {
            close(freq[i], wanted);
        }
    }

    #[test]
    fn rows_are_cosines_then_sines() {
        let table = RopeTable { theta: 10_000.0, head_dim: 4, positions: 16, scaling: None };
        let rows = table.rows(3);
        assert_eq!(rows.len(), 12);
        assert_eq!(rows[..4], [1.0, 1.0, 0.0, 0.0]);
        close(rows[8], -0.416_146_836_547_142_4); // cos 2
        close(rows[9], 0.999_800_006_666_577_8); // cos 0.02
        close(rows[10], 0.909_297_426_825_681_7); // sin 2
        close(rows[11], 0.019_998_666_693_333_08); // sin 0.02
    }
}
