//! Tests that need no particular hardware.

mod interpreter;
mod workspace;
