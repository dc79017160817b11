//! A launch with everything but addresses.

use nemo_ir::types::Dtype;
use nemort::device::gpu::driver::{Address, Matrix, TensorMapBytes};
use serde::{Deserialize, Serialize};

/// One launch of a kernel for one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// CTAs along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared: u32,
    /// The memory that arguments point to.
    pub rooms: Vec<Room>,
    /// Index into the rooms, by argument.
    pub args: Vec<usize>,
    /// Counters (u32) of the workspace; zero before and after.
    pub counters: u64,
    /// Bytes of the workspace's partial results.
    pub partials: u64,
    /// T, R, L and P.
    pub dims: [i32; 4],
    /// Tensor maps, in the order of parameters.
    pub maps: Vec<Map>,
}

/// Memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its size.
    pub bytes: u64,
    /// Bytes from an aligned address to its first: a view lies as its layout says and no better.
    pub shift: u64,
}

/// A tensor map whose rows are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// The argument that holds the matrix.
    pub arg: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Rows that exist.
    pub rows: u64,
    /// Elements of a row.
    pub columns: u64,
    /// Bytes from row to row.
    pub row_bytes: u64,
    /// Rows of a box.
    pub box_rows: u32,
    /// Columns of a box.
    pub box_columns: u32,
    /// Span of the swizzle in bytes, or 0.
    pub swizzle: u32,
}

/// Where the memory of a launch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// By room.
    pub rooms: Vec<u64>,
    /// The counters.
    pub counters: u64,
    /// The partial results.
    pub partials: u64,
}

/// Tensor maps are aligned to this among the parameters.
const MAP_ALIGN: usize = 64;

impl Prepared {
    /// The kernel's parameters as one block.
    ///
    /// # Errors
    /// Those of `tensor_map`.
    pub fn parameters<E>(
        &self,
        places: &Places,
        mut tensor_map: impl FnMut(&Matrix) -> Result<TensorMapBytes, E>,
    ) -> Result<Vec<u8>, E> {
        let mut block = Vec::new();
        let pointers = self.args.iter().map(|room| places.rooms[*room]);
        for pointer in pointers.chain([places.counters, places.partials]) {
            block.extend(pointer.to_le_bytes());
        }
        for dim in self.dims {
            block.extend(dim.to_le_bytes());
        }
        for map in &self.maps {
            block.resize(block.len().next_multiple_of(MAP_ALIGN), 0);
            block.extend(tensor_map(&Matrix {
                address: Address(places.rooms[self.args[map.arg]]),
                dtype: map.dtype,
                rows: map.rows,
                columns: map.columns,
                row_bytes: map.row_bytes,
                box_rows: map.box_rows,
                box_columns: map.box_columns,
                swizzle: map.swizzle,
            })?);
        }
        Ok(block)
    }
}
