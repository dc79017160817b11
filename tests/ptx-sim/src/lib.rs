//! A simulator of PTX: parses the modules that LLVM emits, executes grids of CTAs, checks what they do with
//! memory, and counts what that would cost on a card.

pub mod isa;
pub mod tensor;
