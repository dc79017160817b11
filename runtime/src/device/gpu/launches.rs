//! The plan and a step become launches: grids, and blocks of parameters.
//!
//! All that a step cannot change is worked out once, at load; a step patches its extents and the tensor maps that
//! depend on them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use nemo_ir::plan::{self, Arg, Call, Extent, Phase, Plan};
use nemo_ir::step::{StepDims, StepInput};
use nemo_ir::types::Symbol;

use super::GpuError;
use super::driver::{Address, Driver, DriverError, KernelId, Launch, Matrix, TensorMapBytes};
use crate::device::LaunchTime;
use crate::device::profile::{Block, Timed, gather};
use crate::device::sizes::place;
use crate::step::Bounds;

/// Tensor maps are aligned to this among the parameters.
const MAP_ALIGN: usize = 64;

/// Most CTAs along x, y and z.
const MAX_GRID: [u64; 3] = [i32::MAX as u64, 65_535, 65_535];

/// Tensor maps that are kept; those of the weights never change, those of values do with the number of tokens.
const MAX_MAPS: usize = 1 << 14;

/// Where everything is that a plan's arguments name.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    pub weights: Vec<Address>,
    pub states: Vec<Address>,
    pub tables: Vec<Address>,
    /// By place in the contract.
    pub inputs: Vec<Address>,
    /// The memory that all inputs lie in.
    pub staged: Address,
    pub arena: Address,
    pub logits: Address,
    pub next: Address,
    pub counters: Address,
    pub partials: Address,
}

impl Addresses {
    fn of(&self, arg: Arg, call: &Call) -> Address {
        match arg {
            Arg::Arena(offset) => self.arena.offset(offset),
            Arg::Weight(n) => self.weights[call.weights[n]],
            Arg::State(n) => self.states[call.states[n]],
            Arg::Table(n) => self.tables[n],
            Arg::Step(input) => self.input(input),
            Arg::Logits => self.logits,
            Arg::Next => self.next,
        }
    }

    fn input(&self, input: StepInput) -> Address {
        self.inputs[place(input)]
    }
}

/// Where a kernel's parameters lie in their block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// The i32 values of T, R, L and P, after the pointers.
    dims: usize,
    /// The first tensor map.
    maps: usize,
    /// Bytes in all.
    bytes: usize,
}

impl Layout {
    /// Of a kernel with so many pointer arguments and tensor maps. Two more pointers follow the arguments: to the
    /// counters and to the partial results.
    fn of(args: usize, maps: usize) -> Self {
        let dims = (args + 2) * size_of::<u64>();
        let end = dims + 4 * size_of::<i32>();
        let first = end.next_multiple_of(MAP_ALIGN);
        let bytes = if maps == 0 { end } else { first + maps * size_of::<TensorMapBytes>() };
        Self { dims, maps: first, bytes }
    }
}

/// The launches of one program.
#[derive(Debug)]
pub(super) struct Program {
    pub phase: Phase,
    /// The values of T that it serves.
    pub tokens: RangeInclusive<u64>,
    /// Sizes of steps that are recorded, ascending; none of prefill.
    pub buckets: Vec<u64>,
    blocks: Vec<Block>,
    parts: Vec<Part>,
    /// One a part, for the steps of these extents.
    launches: Vec<Launch>,
    resolved: Option<StepDims>,
    /// Steps that were timed.
    steps: u64,
}

/// What a launch has beside what the driver takes.
#[derive(Debug)]
struct Part {
    /// Index into the program's blocks.
    block: usize,
    op: String,
    symbol: String,
    layout: Layout,
    grid: [Extent; 3],
    maps: Vec<Map>,
    /// Time in the steps that were timed.
    total: Duration,
}

/// A tensor map whose number of rows the step decides.
#[derive(Debug)]
struct Map {
    matrix: Matrix,
    rows: Extent,
}

/// The values of all symbols.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    pub dims: StepDims,
    pub slots: u64,
    pub pages: u64,
}

impl Extents {
    /// Of a step in an engine of these bounds.
    pub(super) fn new(dims: StepDims, bounds: &Bounds) -> Self {
        Self { dims, slots: bounds.slots, pages: bounds.pages }
    }

    fn of(&self, symbol: Symbol) -> u64 {
        match symbol {
            Symbol::S => self.slots,
            Symbol::N => self.pages,
            Symbol::T | Symbol::R | Symbol::L | Symbol::P => self.dims.of(symbol),
        }
    }

    fn grid(&self, grid: &[Extent; 3]) -> [u64; 3] {
        grid.map(|extent| extent.value(|symbol| self.of(symbol)))
    }
}

/// That no launch of a program has more CTAs than there can be, in a step of its largest extents.
///
/// # Errors
/// [`GpuError::Grid`].
pub(super) fn check_grids(plan: &Plan, program: &plan::Program, largest: Extents) -> Result<(), GpuError> {
    for launch in program.blocks.iter().flat_map(|block| &block.launches) {
        let kernel = &plan.kernels[launch.kernel];
        let Some(geometry) = &kernel.geometry else { continue };
        let grid = largest.grid(&geometry.grid);
        if grid.iter().zip(MAX_GRID).any(|(has, most)| *has > most) {
            return Err(GpuError::Grid { kernel: kernel.symbol.clone(), grid });
        }
    }
    Ok(())
}

/// Tensor maps that the driver has made, by what they describe.
#[derive(Debug, Default)]
pub(super) struct Maps {
    made: HashMap<Matrix, TensorMapBytes>,
}

impl Maps {
    fn get(&mut self, driver: &mut dyn Driver, matrix: &Matrix) -> Result<TensorMapBytes, DriverError> {
        if let Some(made) = self.made.get(matrix) {
            return Ok(*made);
        }
        if self.made.len() >= MAX_MAPS {
            self.made.clear();
        }
        let bytes = driver.tensor_map(matrix)?;
        self.made.insert(*matrix, bytes);
        Ok(bytes)
    }
}

impl Program {
    /// Resolves a program's launches to addresses; steps of the sizes in `buckets` are recorded.
    ///
    /// # Errors
    /// [`GpuError`] where the plan does not say how a kernel is launched.
    pub(super) fn new(
        plan: &Plan,
        program: &plan::Program,
        kernels: &[KernelId],
        addresses: &Addresses,
        buckets: Vec<u64>,
    ) -> Result<Self, GpuError> {
        let mut parts = Vec::new();
        let mut launches = Vec::new();
        for call in &program.calls {
            for launch in &program.blocks[call.block].launches {
                let kernel = &plan.kernels[launch.kernel];
                let geometry = kernel
                    .geometry
                    .as_ref()
                    .ok_or_else(|| GpuError::NoGeometry { kernel: kernel.symbol.clone() })?;
                let layout = Layout::of(launch.args.len(), geometry.maps.len());
                let pointers = launch.args.iter().map(|arg| addresses.of(*arg, call));
                let mut parameters = Vec::with_capacity(layout.bytes);
                for Address(address) in pointers.chain([addresses.counters, addresses.partials]) {
                    parameters.extend(address.to_le_bytes());
                }
                parameters.resize(layout.bytes, 0);
                let map = |map: &plan::TensorMap| Map {
                    matrix: Matrix {
                        address: addresses.of(launch.args[map.arg], call),
                        dtype: map.dtype,
                        rows: 0,
                        columns: map.columns,
                        row_bytes: map.row_bytes,
                        box_rows: map.box_rows,
                        box_columns: map.box_columns,
                        swizzle: map.swizzle,
                    },
                    rows: map.rows,
                };
                launches.push(Launch {
                    kernel: kernels[launch.kernel],
                    grid: [0; 3],
                    threads: geometry.threads,
                    shared: geometry.shared,
                    parameters,
                });
                parts.push(Part {
                    block: call.block,
                    op: launch.op.clone(),
                    symbol: kernel.symbol.clone(),
                    layout,
                    grid: geometry.grid,
                    maps: geometry.maps.iter().map(map).collect(),
                    total: Duration::ZERO,
                });
            }
        }
        Ok(Self {
            phase: program.phase,
            tokens: program.tokens(),
            buckets,
            blocks: Block::all(program),
            parts,
            launches,
            resolved: None,
            steps: 0,
        })
    }

    /// The launches for a step of these extents.
    ///
    /// # Errors
    /// What the driver says against a tensor map.
    pub(super) fn resolve(
        &mut self,
        driver: &mut dyn Driver,
        maps: &mut Maps,
        extents: Extents,
    ) -> Result<&[Launch], DriverError> {
        let dims = extents.dims;
        if self.resolved == Some(dims) {
            return Ok(&self.launches);
        }
        self.resolved = None;
        let values = [dims.tokens, dims.seqs, dims.rows, dims.pages].map(|value| value as i32);
        for (launch, part) in self.launches.iter_mut().zip(&self.parts) {
            launch.grid = extents.grid(&part.grid).map(|ctas| ctas as u32);
            launch.parameters[part.layout.dims..][..16].copy_from_slice(bytemuck::cast_slice(&values));
            if launch.is_empty() {
                continue;
            }
            for (n, map) in part.maps.iter().enumerate() {
                let rows = map.rows.value(|symbol| extents.of(symbol));
                let bytes = maps.get(driver, &Matrix { rows, ..map.matrix })?;
                let at = part.layout.maps + n * bytes.len();
                launch.parameters[at..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.resolved = Some(dims);
        Ok(&self.launches)
    }

    /// Adds the times of the launches of one step.
    pub(super) fn add_times(&mut self, times: &[Duration]) {
        self.steps += 1;
        for (part, time) in self.parts.iter_mut().zip(times) {
            part.total += *time;
        }
    }

    /// The times since the last call.
    pub(super) fn take_times(&mut self) -> Vec<LaunchTime> {
        let launches = self.parts.iter().map(|part| Timed {
            block: &self.blocks[part.block],
            op: &part.op,
            symbol: &part.symbol,
            total: part.total,
        });
        let times = gather((self.phase, &self.tokens), self.steps, launches);
        self.steps = 0;
        for part in &mut self.parts {
            part.total = Duration::ZERO;
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lie_where_kernels_look() {
        assert_eq!(Layout::of(3, 0), Layout { dims: 40, maps: 64, bytes: 56 });
        assert_eq!(Layout::of(4, 1), Layout { dims: 48, maps: 64, bytes: 192 });
        assert_eq!(Layout::of(5, 2), Layout { dims: 56, maps: 128, bytes: 384 });
    }
}
