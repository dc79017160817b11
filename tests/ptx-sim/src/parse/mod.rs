//! From text to a tree: tokens, then declarations and statements whose registers and variables are resolved.

mod body;
mod lex;
mod module;
mod operand;
mod special;
mod tree;

pub(crate) use module::{collapse, parse};
pub(crate) use special::Special;
pub(crate) use tree::*;
