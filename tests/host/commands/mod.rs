//! The commands as a user runs them, on the fixtures' checkpoints.

mod bad_artifacts;
mod bad_models;
mod bad_requests;
mod bad_text;
mod bad_weights;
mod bench;
mod chat;
mod compile;
mod generate;
mod logits;
mod text;

/// Targets of the artifacts that are run: the baseline, and all that this CPU has.
const TARGETS: &str = "x86-64-v3,host";

/// Target of the artifacts whose messages are kept: the same text on every machine.
const BASELINE: &str = "x86-64-v3";
