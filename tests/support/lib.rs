//! What the cross-crate tests share.

mod chain;
pub mod commands;
pub mod drawn;
pub mod golden;
pub mod kernel;
mod native;
pub mod random;
mod sim;
