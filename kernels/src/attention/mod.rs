//! RoPE, KV cache, attention.
pub(crate) mod host;
