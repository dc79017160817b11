//! The options that decide what a model is fused to; an artifact's fusions are already chosen.

use nemo_ir::types::Dtype;
use nemo_kernels::target::Target;
use nemoc::CompileOptions;
use nemoc::device::Device;

use super::super::CliError;
use super::super::compile::{Activations, NumericsArg, RulesArg, fusion};
use super::super::whole;

/// Each one absent has the default of `nemoc compile`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for a model, with the defaults of `nemoc compile`")]
pub(super) struct ModelOptions {
    /// Device whose facts choose the fusions: a name (see `nemoc targets`) or a file that `nemoc calibrate` wrote
    #[arg(long, value_name = "NAME|FILE")]
    device: Option<String>,
    /// How operations are fused
    #[arg(long, value_name = "HOW")]
    rules: Option<RulesArg>,
    /// What fusion may do to the bits: nothing, or leave out roundings and reorder sums
    #[arg(long, value_name = "WHAT")]
    numerics: Option<NumericsArg>,
    /// Sequences in one step
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_seqs: Option<u64>,
    /// Tokens in one prefill step
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    chunk: Option<u64>,
    /// Positions that a sequence may reach
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_context: Option<u64>,
    /// Dtype of the values between kernels and of the KV cache
    #[arg(long, value_name = "DTYPE")]
    activations: Option<Activations>,
}

impl ModelOptions {
    /// The options that were given, as they are spelled.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let given = [
            ("--device", self.device.is_some()),
            ("--rules", self.rules.is_some()),
            ("--numerics", self.numerics.is_some()),
            ("--max-seqs", self.max_seqs.is_some()),
            ("--chunk", self.chunk.is_some()),
            ("--max-context", self.max_context.is_some()),
            ("--activations", self.activations.is_some()),
        ];
        given.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// What the compiler is asked for.
    pub(super) fn options(&self, target: Target) -> Result<CompileOptions, CliError> {
        let defaults = CompileOptions::new(vec![target]);
        Ok(CompileOptions {
            activations: self.activations.map(Dtype::from),
            max_seqs: self.max_seqs.unwrap_or(defaults.max_seqs),
            max_context: self.max_context,
            chunk: self.chunk.unwrap_or(defaults.chunk),
            fusion: fusion(
                self.rules.unwrap_or(RulesArg::Saturate),
                self.numerics.unwrap_or(NumericsArg::Reassociate),
            ),
            device: self.device.as_deref().map(Device::find).transpose()?,
            ..defaults
        })
    }
}
