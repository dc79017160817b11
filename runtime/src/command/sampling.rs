//! How tokens are drawn, as the command line says it.

use clap::Args;

use super::{number, whole};
use crate::session::Sampling;

/// Options over a checkpoint's own settings.
#[derive(Debug, Args)]
pub(super) struct SamplingArgs {
    /// 0 takes the most probable token.
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Only the K most probable tokens; 0 is off, as is a checkpoint that names no K.
    #[arg(long, value_name = "K", value_parser = top_k, allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Only the most probable tokens that together reach P; 1 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Only tokens at least P times as probable as the most probable one; 0 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Key of the random generator.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    seed: Option<u64>,
}

fn top_k(text: &str) -> Result<u32, String> {
    number(text, 0..=u32::MAX.into()).map(|k| k as u32)
}

impl SamplingArgs {
    /// What is given, and the checkpoint's own for the rest.
    pub(super) fn over(&self, defaults: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            seed: self.seed.unwrap_or(defaults.seed),
        }
    }
}
