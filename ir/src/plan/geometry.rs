//! What a plan says about launches on a GPU.

use serde::{Deserialize, Serialize};

use crate::types::{Dtype, Symbol};

/// How a kernel is launched on a GPU.
///
/// The kernel's parameters are, in this order: a pointer per argument; pointers to the counters and to the
/// partial results of [`super::Plan::workspace`]; the i32 values of T, R, L and P; and its tensor maps, 128 bytes each
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
    /// As many tiles as the T rows of R sequences can need, where a tile has up to `per` rows and all of one sequence:
    /// `times * (floor(T / per) + R)`.
    ///
    /// With `start[s]` as the first row of sequence s, its tiles are those from `floor(start[s] / per) + s` on: there are at
    /// least as many up to those of the next sequence as its rows fill.
    Ragged {
        /// The most rows of a tile.
        per: u64,
        /// How many for each tile.
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

    /// So many times as many.
    pub fn times(self, n: u64) -> Self {
        match self {
            Self::Const(one) => Self::Const(one * n),
            Self::Per { symbol, per, times } => Self::Per { symbol, per, times: times * n },
            Self::Ragged { per, times } => Self::Ragged { per, times: times * n },
        }
    }

    /// Its value, given those of the symbols.
    pub fn value(self, symbols: impl Fn(Symbol) -> u64) -> u64 {
        match self {
            Self::Const(n) => n,
            Self::Per { symbol, per, times } => symbols(symbol).div_ceil(per.max(1)).saturating_mul(times),
            Self::Ragged { per, times } => {
                let tiles = symbols(Symbol::T) / per.max(1);
                tiles.saturating_add(symbols(Symbol::R)).saturating_mul(times)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_extents() {
        let symbols = |symbol| match symbol {
            Symbol::T => 130,
            Symbol::R => 3,
            _ => 0,
        };
        assert_eq!(Extent::Const(7).value(symbols), 7);
        assert_eq!(Extent::each(Symbol::R).value(symbols), 3);
        assert_eq!(Extent::Per { symbol: Symbol::T, per: 64, times: 5 }.value(symbols), 15);
        assert_eq!(Extent::Ragged { per: 64, times: 5 }.value(symbols), 25);
    }

    /// Every sequence finds room for its tiles before those of the next.
    #[test]
    fn ragged_tiles_do_not_overlap() {
        let first = |start: u64, sequence: u64| start / 8 + sequence;
        for lengths in [[1, 1, 1], [7, 9, 8], [8, 8, 8], [9, 15, 1], [0, 17, 0], [1, 63, 2]] {
            let mut start = 0;
            for (sequence, length) in (0..).zip(lengths) {
                let tiles = u64::div_ceil(length, 8);
                assert!(first(start, sequence) + tiles <= first(start + length, sequence + 1), "{lengths:?}");
                start += length;
            }
            let symbols = |symbol| if symbol == Symbol::T { start } else { 3 };
            assert_eq!(Extent::Ragged { per: 8, times: 1 }.value(symbols), first(start, 3));
        }
    }
}
