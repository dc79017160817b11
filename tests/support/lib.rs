//! What the cross-crate tests share.

pub mod bundle;
mod chain;
pub mod commands;
pub mod drawn;
pub mod golden;
pub mod kernel;
mod native;
pub mod ptxas;
pub mod random;
pub mod sampling;
pub mod sim;
pub mod trained;
pub mod wide;
