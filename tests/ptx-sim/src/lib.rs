//! A simulator of PTX: parses the modules that LLVM emits, executes grids of CTAs, checks what they do with
//! memory, and counts what that would cost on a card.

#![forbid(unsafe_code)]

mod check;
mod count;
mod decode;
mod error;
mod exec;
pub mod isa;
mod layout;
mod memory;
mod parse;
pub mod tensor;

pub use check::Checks;
pub use count::{AllocationCounts, Counts, GlobalCounts, KindCounts, SharedCounts};
pub use decode::{Kernel, Module, Param};
pub use error::{Fault, FaultKind, MemoryError, ParseError, ParseErrorKind, Race, Space};
pub use exec::{CtaRange, Launch, Options, run};
pub use memory::Memory;
