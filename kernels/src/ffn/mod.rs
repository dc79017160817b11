//! Activations of the feed-forward layers.
pub(crate) mod host;
pub(crate) mod nvptx;
