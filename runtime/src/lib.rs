//! nemort runs what nemoc compiles: an artifact and the published safetensors weights.
//!
//! ```text
//! Artifact + WeightsSource ──Engine::load──▶ Engine ──Session::new──▶ Session ──submit──▶ sequences
//! ```
//!
//! [`engine::Engine`] runs single steps of the step contract; [`session::Session`] turns requests into
//! steps, with slots, KV pages, sampling and hooks; [`text`] is the way from and to text,
//! [`chat`] is a dialogue of turns, and
//! [`eval`] counts what a model gets right.

pub mod chat;
pub mod command;
pub mod device;
pub mod engine;
pub mod eval;
pub mod session;
pub mod step;
pub mod text;
pub mod weights;
