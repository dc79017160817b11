//! The ways in which a kernel can be built, and what each takes: for those who choose among them.

use std::fmt;

use nemo_ir::plan::Geometry;
use serde::{Deserialize, Serialize};

use crate::target::Sm;

/// A way to build the kernel of an op. All compute the same, but for the order of their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// There is no other.
    Sole,
    /// Tiles of many rows by instructions of whole warpgroups, which the tensor memory accelerator feeds.
    Warpgroup,
    /// Tiles of many rows on the tensor cores of warps, fed by asynchronous copies.
    Tile,
    /// Weights stream from memory into the registers of tensor cores, past up to 16 rows at a time.
    Stream,
    /// Sums of multiply-adds, of any dtypes and shapes.
    Simt,
}

impl Form {
    /// Its name in a kernel's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sole => "sole",
            Self::Warpgroup => "warpgroup",
            Self::Tile => "tile",
            Self::Stream => "stream",
            Self::Simt => "simt",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One way to build a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub form: Form,
    /// How it is launched.
    pub geometry: Geometry,
    /// What it takes of a multiprocessor beyond its geometry.
    pub needs: Needs,
    /// How it cuts a product; `None` where there is no product.
    pub cut: Option<Cut>,
}

/// What a kernel takes of a multiprocessor beyond its geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// 32-bit registers of a thread, at most; NVIDIA's assembler is held to it.
    pub registers: u32,
    /// Bytes of global memory that a CTA has asked for and not got yet, while it streams.
    pub under_way: u64,
    /// Bytes that a CTA reads although others read them, too; what a [`Cut`] tells of is not among them.
    pub again: u64,
    /// Round trips to memory that a CTA has to make one after the other, however little it reads.
    pub waits: u32,
}

/// How a product is cut into CTAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Rows of x that a CTA multiplies, those that are not there included.
    pub rows: u64,
    /// Columns of a CTA, of all products together.
    pub columns: u64,
    /// CTAs that share K, each of which leaves its sums in memory, where there are more than one.
    pub splits: u64,
}

impl Needs {
    /// Of a kernel whose threads have two pieces of 16 bytes under way each, at once, and few registers.
    pub(crate) fn of_threads(threads: u32) -> Self {
        Self { registers: 64, under_way: 32 * u64::from(threads), again: 0, waits: 1 }
    }

    /// Of a kernel of which a multiprocessor is to hold so many CTAs, each with so many bytes under way.
    pub(crate) fn of_residents(threads: u32, ctas: u32, under_way: u64) -> Self {
        let registers = Sm::REGISTERS / (threads.next_multiple_of(32) * ctas) / 8 * 8;
        Self { registers: registers.min(255), under_way, again: 0, waits: 1 }
    }
}

/// Round trips until the last of the CTAs that work on one result has what the others have left: to leave it, to
/// count, to read.
pub(crate) const COMBINING: u32 = 3;

impl Candidate {
    /// CTAs that a multiprocessor holds at once; one at least, of what there are kernels of.
    pub fn resident(&self, sm: Sm) -> u32 {
        resident(sm, &self.geometry, self.needs.registers, 0)
    }
}

/// Shared memory that the system keeps of each CTA's.
const RESERVED_SHARED: u32 = 1024;

/// CTAs that a multiprocessor holds at once, given the registers of a thread and the bytes of shared memory that stand
/// outside of the geometry (CUDA programming guide, compute capabilities).
pub fn resident(sm: Sm, geometry: &Geometry, registers: u32, more_shared: u32) -> u32 {
    let warps = geometry.threads.div_ceil(32);
    // Registers are given to warps in units of 256.
    let of_warp = (registers * 32).next_multiple_of(256);
    let shared = geometry.shared + more_shared + RESERVED_SHARED;
    let by_registers = Sm::REGISTERS / (of_warp * warps).max(1);
    by_registers.min(sm.shared_of_all() / shared).min(sm.threads() / (warps * 32)).min(sm.ctas())
}
