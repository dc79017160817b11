//! Words for geometries.

use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::types::Dim;

/// A geometry without shared memory, workspace or tensor maps.
pub(crate) fn of(grid: [Extent; 3], threads: u32) -> Geometry {
    Geometry { grid, threads, shared: 0, counters: 0, partials: 0, maps: Vec::new() }
}

/// As many as a dimension counts.
pub(crate) fn rows(dim: Dim) -> Extent {
    tiles(dim, 1)
}

/// One for every `per` units of a dimension, or part of them.
///
/// # Panics
/// For a dimension that is a multiple of a symbol, which rows are not.
pub(crate) fn tiles(dim: Dim, per: u64) -> Extent {
    match dim {
        Dim::Const(n) => Extent::Const(n.div_ceil(per)),
        Dim::Symbolic { factor: 1, symbol } => Extent::per(symbol, per),
        Dim::Symbolic { .. } => unreachable!("rows are counted by a symbol alone"),
    }
}
