//! Mamba-2: causal convolution, step sizes, state-space scan.
pub(crate) mod host;
pub(crate) mod nvptx;
