//! From the description of a model to one artifact: lowering to the graph IR, planning, code, packaging.
//!
//! [`compile()`] runs the pipeline, [`plan_for`] the part of it before code; each stage is a module of its own and can be called alone. Nothing here runs a
//! model or reads its weights.

pub mod assemble;
#[cfg(target_arch = "x86_64")]
pub mod calibrate;
mod compile;
pub mod cost;
pub mod device;
pub mod explain;
pub mod fit;
pub mod fuse;
pub mod lower;
mod package;
pub mod plan;
pub mod saturate;

pub use compile::{
    Code, CompileError, CompileOptions, Compiled, CompiledTarget, MAX_CHUNK, MAX_SEQS, PlannedModel,
    Progress, Stage, compile, lower_phases, plan_for,
};
