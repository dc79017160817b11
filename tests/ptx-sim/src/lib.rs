//! A simulator of PTX: parses the modules that LLVM emits for NVIDIA cards, executes grids of CTAs, checks what
//! they do with memory, and counts what that would cost on a card.
//!
//! ```
//! use ptx_sim::{Launch, Memory, Module, Options, run};
//!
//! let module = Module::parse(
//!     ".version 7.1
//!      .target sm_86
//!      .address_size 64
//!      .visible .entry double(.param .u64 data) {
//!          .reg .b32 %r<3>; .reg .b64 %d<4>;
//!          ld.param.b64 %d1, [data];
//!          mov.u32 %r1, %tid.x;
//!          mul.wide.u32 %d2, %r1, 4;
//!          add.s64 %d3, %d1, %d2;
//!          ld.global.b32 %r2, [%d3];
//!          shl.b32 %r2, %r2, 1;
//!          st.global.b32 [%d3], %r2;
//!          ret;
//!      }",
//! )?;
//! let mut memory = Memory::new();
//! let data = memory.alloc(128);
//! memory.write(data, &[1; 128])?;
//! let launch = Launch {
//!     kernel: "double",
//!     grid: [1, 1, 1],
//!     block: [32, 1, 1],
//!     dynamic_shared: 0,
//!     params: &data.to_le_bytes(),
//! };
//! let counts = run(&module, &mut memory, &launch, &Options::default())?;
//! let mut bytes = [0; 128];
//! memory.read(data, &mut bytes)?;
//! assert_eq!(bytes, [2; 128]);
//! assert_eq!(counts.global_loads.sectors, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`Module::parse`] refuses what it cannot execute, with the line and the text.
//! * [`run`] executes CTAs one after another and the 32 lanes of an instruction at once. It returns [`Counts`],
//!   or the [`Fault`] that ended the launch: where, and what is wrong.
//! * [`Checks`] says what is checked; by default everything.
//! * [`tensor`] holds the functions behind matrix instructions and tensor copies, for use without a kernel.
//! * [`isa`] holds kernels of single instructions with the bytes they must produce, for this simulator or a card.

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
