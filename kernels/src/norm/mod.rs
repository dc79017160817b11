//! RMSNorm and its gated, grouped form.
pub(crate) mod host;
pub(crate) mod nvptx;
