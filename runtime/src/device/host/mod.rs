//! The host device: this machine's CPU.

#![allow(unsafe_code, reason = "kernels are called with raw pointers")]

mod available;
pub mod bandwidth;
pub mod cpu;
pub mod memory;
pub mod object;
pub mod peak;
pub mod pool;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nemo_ir::plan::{self, Arg, Phase, Plan, StateUnit};
use nemo_ir::step::StepInput;
use nemo_ir::types::Symbol;
use thiserror::Error;

use self::memory::{MemoryError, Region};
use self::object::{Code, KernelFn, ObjectError};
use self::pool::{Pinning, Pool, Worker};
use super::{Device, DeviceError, LaunchTime, MemoryUse, Profiling};
use crate::step::{Bounds, CheckedStep};
use crate::weights::Weights;

/// How a host device is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostOptions {
    /// Threads that compute.
    pub threads: u32,
    /// Which of them are bound to cores.
    pub pinning: Pinning,
    /// Whether launches are timed.
    pub profiling: Profiling,
    /// What its steps may reach.
    pub bounds: Bounds,
}

/// Why a host device could not be set up.
#[derive(Debug, Error)]
pub enum HostError {
    /// The machine code.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The threads.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were wanted.
        threads: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The model on this machine's CPU.
#[derive(Debug)]
pub(crate) struct Host {
    pool: Pool,
    bounds: Bounds,
    programs: Vec<Program>,
    inputs: Vec<Region>,
    logits: Region,
    next: Region,
    memory: MemoryUse,
    profiling: Profiling,
    /// A buffer for measuring bandwidth, made when first wanted.
    stream: Option<Region>,
    // What the programs' pointers lead to; held, never read here.
    _code: Code,
    _weights: Weights,
    _arena: Region,
    _states: Vec<Region>,
    _tables: Vec<Region>,
}

/// A program's launches, resolved to addresses.
#[derive(Debug)]
struct Program {
    phase: Phase,
    /// The values of T that it serves.
    tokens: RangeInclusive<u64>,
    blocks: Vec<Block>,
    launches: Vec<Launch>,
    /// The launches' arguments, one after the other.
    args: Vec<*mut u8>,
    /// Steps that were timed.
    steps: AtomicU64,
}

/// What profiles say about a block.
#[derive(Debug)]
struct Block {
    name: String,
    /// How often a step calls it.
    calls: u64,
}

/// One launch.
#[derive(Debug)]
struct Launch {
    function: KernelFn,
    first_arg: usize,
    /// Index into the program's blocks.
    block: usize,
    op: String,
    symbol: String,
    /// Time in the steps that were timed.
    nanos: AtomicU64,
}

// SAFETY: the pointers lead into regions and mappings that the same `Host` owns and that do not move.
unsafe impl Send for Program {}
// SAFETY: a shared program is only read; what its kernels write is kept apart by their thread shares
// and by the barriers between launches.
unsafe impl Sync for Program {}

impl Host {
    /// Loads the kernels and lays out everything that they read and write.
    ///
    /// The plan must have passed `nemo_ir::artifact::validate`, and the weights and bounds be those of the plan.
    ///
    /// # Errors
    /// [`HostError`] when the object cannot be loaded or there is not enough memory.
    pub(crate) fn new(
        plan: &Plan,
        object: &[u8],
        weights: Weights,
        options: HostOptions,
    ) -> Result<Self, HostError> {
        let code = object::load(object)?;
        let HostOptions { threads, pinning, profiling, bounds } = options;
        let sizes = Sizes::of(plan, &bounds);
        let states_bytes = total(&sizes.states);
        let buffer_bytes = sizes.buffers();
        let hint = "; lower --max-context or --max-seqs";
        memory::check_available(
            "the state of all sequences",
            states_bytes.saturating_add(buffer_bytes),
            hint,
        )?;
        let region = |bytes: &u64| Region::new(*bytes);
        let states = sizes.states.iter().map(region).collect::<Result<Vec<_>, _>>()?;
        let inputs = sizes.inputs.iter().map(region).collect::<Result<Vec<_>, _>>()?;
        let mut tables = sizes.tables.iter().map(region).collect::<Result<Vec<_>, _>>()?;
        for (table, region) in plan.tables.iter().zip(&mut tables) {
            let rows = table.rows(bounds.max_context);
            let bytes: &[u8] = bytemuck::cast_slice(&rows);
            region.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        }
        let (arena, logits, next) = (region(&sizes.arena)?, region(&sizes.logits)?, region(&sizes.next)?);
        let address = |arg: Arg, call: &plan::Call| match arg {
            Arg::Arena(offset) => arena.as_ptr().wrapping_add(offset as usize),
            // Kernels take every argument as `*mut u8` and only read their weights.
            Arg::Weight(n) => weights.bytes(call.weights[n]).as_ptr().cast_mut(),
            Arg::State(n) => states[call.states[n]].as_ptr(),
            Arg::Table(n) => tables[n].as_ptr(),
            Arg::Step(input) => inputs[place(input)].as_ptr(),
            Arg::Logits => logits.as_ptr(),
            Arg::Next => next.as_ptr(),
        };
        let mut programs = Vec::new();
        for program in &plan.programs {
            let mut flat = Program {
                phase: program.phase,
                tokens: program.tokens(),
                blocks: program.blocks.iter().map(|block| called(program, block)).collect(),
                launches: Vec::new(),
                args: Vec::new(),
                steps: AtomicU64::new(0),
            };
            for call in &program.calls {
                for launch in &program.blocks[call.block].launches {
                    let symbol = &plan.kernels[launch.kernel].symbol;
                    let first_arg = flat.args.len();
                    flat.args.extend(launch.args.iter().map(|arg| address(*arg, call)));
                    flat.launches.push(Launch {
                        function: code.function(symbol)?,
                        first_arg,
                        block: call.block,
                        op: launch.op.clone(),
                        symbol: symbol.clone(),
                        nanos: AtomicU64::new(0),
                    });
                }
            }
            programs.push(flat);
        }
        let pool = Pool::new(threads, pinning).map_err(|source| HostError::Threads { threads, source })?;
        Ok(Self {
            pool,
            bounds,
            programs,
            inputs,
            logits,
            next,
            memory: MemoryUse { weights: weights.total_bytes(), states: states_bytes, buffers: buffer_bytes },
            profiling,
            stream: None,
            _code: code,
            _weights: weights,
            _arena: arena,
            _states: states,
            _tables: tables,
        })
    }
}

/// A block's name, and how often a step calls what has this name.
fn called(program: &plan::Program, block: &plan::Block) -> Block {
    let calls = program.calls.iter().filter(|call| program.blocks[call.block].name == block.name).count();
    Block { name: block.name.clone(), calls: calls as u64 }
}

/// Bytes of everything that a plan needs under some options.
#[derive(Debug)]
struct Sizes {
    arena: u64,
    states: Vec<u64>,
    inputs: Vec<u64>,
    tables: Vec<u64>,
    logits: u64,
    next: u64,
}

impl Sizes {
    /// No sum or product wraps, whatever the plan says: what is too much is refused for its size.
    fn of(plan: &Plan, bounds: &Bounds) -> Self {
        let tokens = plan.programs.iter().map(|program| program.max_tokens).max().unwrap_or(1);
        let value = |symbol| match symbol {
            // A row is a token of the step, so there are never more.
            Symbol::T | Symbol::L => tokens,
            Symbol::R => bounds.seqs,
            Symbol::S => bounds.slots,
            Symbol::P => bounds.pages_per_seq,
            Symbol::N => bounds.pages,
        };
        let units = |per| match per {
            StateUnit::Slot => value(Symbol::S),
            StateUnit::Page => value(Symbol::N),
        };
        let product = |factors: &[u64]| factors.iter().fold(1_u64, |product, n| product.saturating_mul(*n));
        // One more element everywhere is what `seq_start` wants, and harms nobody.
        let input = |input: &StepInput| input.ty().bytes(value).saturating_add(4);
        Self {
            arena: plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0),
            states: plan
                .states
                .iter()
                .map(|state| product(&[state.unit_bytes(), units(state.per)]))
                .collect(),
            inputs: StepInput::ALL.iter().map(input).collect(),
            tables: plan
                .tables
                .iter()
                .map(|table| product(&[bounds.max_context, table.head_dim, 4]))
                .collect(),
            logits: product(&[value(Symbol::L), bounds.vocab, 4]),
            next: product(&[bounds.seqs, 4]),
        }
    }

    fn buffers(&self) -> u64 {
        total(&[self.arena, total(&self.inputs), total(&self.tables), self.logits, self.next])
    }
}

/// The sum, or as much as there is.
fn total(bytes: &[u64]) -> u64 {
    bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Place of an input among the input buffers: its place in the contract.
fn place(input: StepInput) -> usize {
    input as usize
}

impl Device for Host {
    fn describe(&self) -> String {
        format!("host, {} threads", self.pool.threads())
    }

    fn run(&mut self, step: &CheckedStep<'_>) -> Result<(), DeviceError> {
        if *step.bounds() != self.bounds {
            return Err(DeviceError::OtherBounds);
        }
        let dims = step.dims();
        let serves =
            |program: &&Program| program.phase == step.phase() && program.tokens.contains(&dims.tokens);
        let program = self.programs.iter().find(serves).ok_or(DeviceError::NoProgram(step.phase()))?;
        for (input, region) in StepInput::ALL.into_iter().zip(&mut self.inputs) {
            let bytes = step.input(input);
            region.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        }
        let profiling = self.profiling;
        let job = |worker: Worker<'_>| {
            let timed = profiling == Profiling::EachLaunch && worker.thread == 0;
            let mut last = timed.then(Instant::now);
            for launch in &program.launches {
                let args = &program.args[launch.first_arg..];
                // SAFETY: the arguments are those that the plan gives this kernel and lead to memory that
                // lives as long as `self`; the step was checked against the sizes of that memory.
                unsafe { (launch.function)(args.as_ptr(), &dims, worker.thread, worker.threads) };
                worker.barrier();
                if let Some(last) = &mut last {
                    let now = Instant::now();
                    launch.nanos.fetch_add((now - *last).as_nanos() as u64, Ordering::Relaxed);
                    *last = now;
                }
            }
            if timed {
                program.steps.fetch_add(1, Ordering::Relaxed);
            }
        };
        self.pool.try_run(&job).map_err(|error| DeviceError::Stack(error.to_string()))
    }

    fn logits(&self, rows: usize) -> &[f32] {
        self.logits.slice(rows * self.bounds.vocab as usize)
    }

    fn next(&self, seqs: usize) -> &[i32] {
        self.next.slice(seqs)
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }

    fn read_bandwidth(&mut self) -> f64 {
        if self.stream.is_none() {
            self.stream = bandwidth::buffer(&mut self.pool);
        }
        let Some(buffer) = &self.stream else { return 0.0 };
        bandwidth::measure(&mut self.pool, buffer)
    }

    fn product_peak(&mut self) -> f64 {
        peak::measure(&mut self.pool)
    }

    fn take_profile(&mut self) -> Vec<LaunchTime> {
        let mut times: Vec<LaunchTime> = Vec::new();
        for program in &self.programs {
            let steps = program.steps.swap(0, Ordering::Relaxed);
            if steps == 0 {
                continue;
            }
            let own = times.len();
            for launch in &program.launches {
                let block = &program.blocks[launch.block];
                let total = Duration::from_nanos(launch.nanos.swap(0, Ordering::Relaxed));
                let same = |time: &&mut LaunchTime| time.block == block.name && time.symbol == launch.symbol;
                match times[own..].iter_mut().find(same) {
                    Some(time) => {
                        time.count += steps;
                        time.total += total;
                    }
                    None => times.push(LaunchTime {
                        phase: program.phase,
                        tokens: program.tokens.clone(),
                        block: block.name.clone(),
                        calls: steps * block.calls,
                        op: launch.op.clone(),
                        symbol: launch.symbol.clone(),
                        count: steps,
                        total,
                    }),
                }
            }
        }
        times
    }
}

#[cfg(test)]
mod tests;
