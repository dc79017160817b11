//! What a plan says about launches on a GPU.

use serde::{Deserialize, Serialize};

use crate::types::{Dtype, Symbol};

/// How a kernel is launched on a GPU.
///
/// The kernel's parameters are, in this order: a pointer per argument; pointers to the counters and to the
/// partial results of [`Plan::workspace`]; the i32 values of T, R, L and P; and its tensor maps, 128 bytes each
/// and aligned to 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// CTAs along x, y and z. Never a matter of the context: CTAs loop over it, so a recorded launch stays valid.
    pub grid: [Extent; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared: u32,
    /// Counters (u32) that it takes from the workspace. They are zero between launches: who raises one lowers it again.
    #[serde(default)]
    pub counters: u64,
    /// Bytes of partial results that it writes and reads within one launch.
    #[serde(default)]
    pub partials: u64,
    /// What its tensor maps describe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<TensorMap>,
}

/// A number of CTAs or rows: a constant, or a matter of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Always this many.
    Const(u64),
    /// `times` for every `per` units of a symbol, or part of them: `times * ceil(symbol / per)`.
    Per {
        /// T, R or L; in rows of tensor maps also S or N.
        symbol: Symbol,
        /// Units that share.
        per: u64,
        /// How many each.
        times: u64,
    },
}

impl Extent {
    /// One for each unit of a symbol.
    pub fn each(symbol: Symbol) -> Self {
        Self::per(symbol, 1)
    }

    /// One for every `per` units of a symbol, or part of them.
    pub fn per(symbol: Symbol, per: u64) -> Self {
        Self::Per { symbol, per, times: 1 }
    }

    /// Its value, given those of the symbols.
    pub fn value(self, symbols: impl FnOnce(Symbol) -> u64) -> u64 {
        match self {
            Self::Const(n) => n,
            Self::Per { symbol, per, times } => symbols(symbol).div_ceil(per.max(1)).saturating_mul(times),
        }
    }
}

/// A matrix that a kernel reads in boxes through the tensor memory accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMap {
    /// The argument that holds it.
    pub arg: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Rows that exist; a read past them gives zeros.
    pub rows: Extent,
    /// Elements of a row; a read past them gives zeros.
    pub columns: u64,
    /// Bytes from row to row.
    pub row_bytes: u64,
    /// Rows of a box.
    pub box_rows: u32,
    /// Columns of a box.
    pub box_columns: u32,
    /// How the 16-byte pieces of a box are permuted in shared memory: the span in bytes, 32, 64 or 128, or 0 for none.
    pub swizzle: u32,
}

/// Memory that the launches of a plan share, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Counters (u32), zero when the engine starts.
    pub counters: u64,
    /// Bytes of partial results; what they hold does not outlive a launch.
    pub partials: u64,
}
