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

use nemo_ir::plan::{self, Arg, Phase, Plan};
use nemo_ir::step::StepInput;
use thiserror::Error;

use self::memory::{MemoryError, Region};
use self::object::{Code, KernelFn, ObjectError};
use self::pool::{Pinning, Pool, Worker};
use super::profile::{Block, Timed, gather};
use super::sizes::{Sizes, place, total};
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
        let sizes = Sizes::of(plan, &bounds, bounds.seqs);
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
                blocks: Block::all(program),
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

    fn logits(&mut self, rows: usize) -> Result<&[f32], DeviceError> {
        Ok(self.logits.slice(rows * self.bounds.vocab as usize))
    }

    fn next(&self, seqs: usize) -> &[i32] {
        self.next.slice(seqs)
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }

    fn read_bandwidth(&mut self) -> Option<f64> {
        if self.stream.is_none() {
            self.stream = bandwidth::buffer(&mut self.pool);
        }
        let buffer = self.stream.as_ref()?;
        Some(bandwidth::measure(&mut self.pool, buffer))
    }

    fn product_peak(&mut self) -> Option<f64> {
        Some(peak::measure(&mut self.pool))
    }

    fn take_profile(&mut self) -> Vec<LaunchTime> {
        let mut times: Vec<LaunchTime> = Vec::new();
        for program in &self.programs {
            let steps = program.steps.swap(0, Ordering::Relaxed);
            let launches = program.launches.iter().map(|launch| Timed {
                block: &program.blocks[launch.block],
                op: &launch.op,
                symbol: &launch.symbol,
                total: Duration::from_nanos(launch.nanos.swap(0, Ordering::Relaxed)),
            });
            times.extend(gather((program.phase, &program.tokens), steps, launches));
        }
        times
    }
}

#[cfg(test)]
mod tests;
