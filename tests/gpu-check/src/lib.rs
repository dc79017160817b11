//! Bundles of kernel cases, and what runs them: a GPU through its driver, or the simulator of PTX in its place.
//!
//! A bundle holds everything that a case needs (code, launch, bytes, expected results), so a machine that runs one
//! needs no compiler.

pub mod bundle;
pub mod card;
pub mod compare;
pub mod isa;
pub mod launch;
pub mod random;
pub mod report;
pub mod run;
pub mod safetensors;
