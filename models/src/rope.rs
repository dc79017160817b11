//! Rotary frequencies, computed in f32 in the order of operations of the reference implementation.

use crate::model::{Llama3Scaling, Rope};

impl Rope {
    /// The `head_dim / 2` rotation frequencies, in radians per position.
    ///
    /// The arithmetic is f32 throughout, like the `transformers` library: computing in f64 and rounding once gives
    /// other bits, and at position 100,000 the difference is visible in the angle.
    #[must_use]
    pub fn inv_freq(&self, head_dim: u64) -> Vec<f32> {
        let base = self.theta as f32;
        (0..head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head_dim as f32;
                let frequency = 1.0 / base.powf(exponent);
                self.scaling.as_ref().map_or(frequency, |scaling| scaling.apply(frequency))
            })
            .collect()
    }
}

impl Llama3Scaling {
    /// Scales one frequency.
    fn apply(&self, frequency: f32) -> f32 {
        let (factor, low, high) =
            (self.factor as f32, self.low_freq_factor as f32, self.high_freq_factor as f32);
        let original = self.original_context as f32;
        let wavelength = std::f32::consts::TAU / frequency;
        if wavelength > original / low {
            frequency / factor
        } else if wavelength < original / high {
            frequency
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}
