//! The middle of nemoc: types, the op table, graphs with their text form, verifier and reference
//! interpreter, and the two things that reach the runtime, the plan and the artifact.
//!
//! Nothing here knows LLVM, egg or any device.

pub mod artifact;
pub mod graph;
pub mod interp;
pub mod ops;
pub mod philox;
pub mod plan;
pub mod reference;
pub mod rope;
pub mod step;
pub mod text;
pub mod types;
pub mod verify;
