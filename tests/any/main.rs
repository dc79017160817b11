//! Tests that need no particular hardware.

mod workspace;
