//! Products with weights, and residual addition.
pub(crate) mod host;
pub(crate) mod nvptx;
