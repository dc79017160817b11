//! RoPE, KV cache, attention.
pub(crate) mod host;
pub(crate) mod nvptx;
