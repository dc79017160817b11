//! What the cross-crate tests share.

pub mod commands;
pub mod golden;
pub mod kernel;
pub mod random;
