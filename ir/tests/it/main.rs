//! Tests of the IR through its public interface.

mod fused;
mod ops_dense;
mod ops_head;
mod ops_state;
mod program;
mod properties;
mod support;
mod text;
mod verify;
