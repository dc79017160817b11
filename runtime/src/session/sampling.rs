//! How a sequence's tokens are drawn. The drawing itself is a kernel's.

use thiserror::Error;

/// Sampling parameters of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// Only the k most probable tokens; 0 is off.
    pub top_k: u32,
    /// Only the most probable tokens that together reach this probability; 1 is off.
    pub top_p: f32,
    /// Only tokens at least this probable relative to the most probable one; 0 is off.
    pub min_p: f32,
    /// Key of the counter-based generator: the same seed gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// A parameter out of its range.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{name} is {value}, but must be {wanted}")]
pub struct SamplingError {
    /// The parameter.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Its range.
    pub wanted: &'static str,
}

impl Sampling {
    /// Checks every parameter's range.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn check(&self) -> Result<(), SamplingError> {
        fn check(
            name: &'static str,
            value: &dyn ToString,
            good: bool,
            wanted: &'static str,
        ) -> Result<(), SamplingError> {
            if good { Ok(()) } else { Err(SamplingError { name, value: value.to_string(), wanted }) }
        }
        let t = self.temperature;
        check("temperature", &t, t.is_finite() && t >= 0.0, "finite and at least 0")?;
        // Logits over less are no numbers in f32.
        check("temperature", &t, t == 0.0 || t >= 1e-6, "0, or at least 0.000001")?;
        check("top-p", &self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        check("min-p", &self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1")?;
        check("top-k", &self.top_k, i32::try_from(self.top_k).is_ok(), "below 2147483648")
    }

    /// The seed as the step contract wants it: low word, high word.
    pub(super) fn seed_words(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}
