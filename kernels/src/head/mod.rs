//! Embedding, row selection, sampling.
pub(crate) mod host;
