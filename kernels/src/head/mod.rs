//! Embedding, row selection, sampling.
pub(crate) mod host;
pub(crate) mod nvptx;
