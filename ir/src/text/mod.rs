//! The text form of blocks and programs: what `--emit graph,fused` writes, and what reads back to the
//! same graph.
//!
//! ```text
//! program prefill
//!
//! block mlp(%x: bf16[T,64]) {
//!   weight @norm.weight: f32[64]
//!   weight @up.weight: bf16[128,64]
//!   weight @down.weight: bf16[64,128]
//!   %0 = rms_norm(%x, @norm.weight) {eps: 1e-5, group: 64, dtype: bf16} : bf16[T,64]
//!   %1 = linear(%0, @up.weight) {dtype: bf16} : bf16[T,128]
//!   %2 = relu2(%1) {dtype: bf16} : bf16[T,128]
//!   %3 = linear(%2, @down.weight) {dtype: bf16} : bf16[T,64]
//!   %4 = add(%x, %3) {dtype: bf16} : bf16[T,64]
//!   return x = %4
//! }
//!
//! calls {
//!   embed
//!   layers "model.layers.{}." {
//!     mlp 0-3
//!   }
//!   head
//! }
//! ```
//!
//! `%` is a value, `@` a weight, `&` a state (`&conv.1` is what the first write of `&conv` leaves), `#` a
//! constant table, `$` a step input. The step inputs that the op table declares are not written. In
//! `layers`, `{}` stands for the layer's number; a call outside is `block layer "prefix"`, and layer and
//! prefix may be absent. `//` starts a comment.

mod lex;
mod names;
mod parse;
mod print;

pub use lex::{ParseError, Position};
pub use parse::{parse_block, parse_program};

pub(crate) use names::Names;

/// Whether a word can name a block, an input, a state or an output: `[a-z][a-z0-9_]*`.
pub(crate) fn is_identifier(word: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(legal)
}

/// Whether a word can name a weight or be a prefix: `[A-Za-z0-9_.-]+`.
pub(crate) fn is_weight_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(is_weight_char)
}

pub(crate) fn is_weight_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}
