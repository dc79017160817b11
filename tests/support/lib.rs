//! What the cross-crate tests share.

pub mod kernel;
pub mod random;
