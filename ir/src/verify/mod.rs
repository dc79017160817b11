//! The rules of the graph IR, checked. All errors are found, not only the first.
//!
//! **Blocks.** Names follow their pattern and are unique among nodes of their kind. The graph has no
//! cycle; every operand is there once, of the kind and type that the op table asks for; result types are
//! what the table infers. Everything but a final state is used. Outputs are values, not states.
//!
//! **State.** A state value has at most one consumer that writes, and nothing else may follow it: a read
//! of a state value that an op also supersedes is legal only where that op depends on the read's result.
//! Then every legal order of execution reads before it writes, and the update may be made in place.
//!
//! **Programs.** Block names are unique and every block is called. Each input of a call is an output of
//! the call before, of the same type. A block with state is called with a layer, no two calls share a
//! state, and one weight has one type.

mod block;
mod error;
mod program;

pub use error::VerifyError;

pub(crate) use block::structure;

use crate::graph::{Block, Program};

/// Checks a program.
///
/// # Errors
/// Everything found.
pub fn verify_program(program: &Program) -> Result<(), Vec<VerifyError>> {
    let mut errors: Vec<_> = program.blocks.iter().flat_map(block::all).collect();
    errors.extend(program::calls(program));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Checks a block.
///
/// # Errors
/// Everything found.
pub fn verify_block(block: &Block) -> Result<(), Vec<VerifyError>> {
    let errors = block::all(block);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
