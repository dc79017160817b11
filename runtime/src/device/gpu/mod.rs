//! The GPU device: a model in the memory of one GPU, behind a [`Driver`].
//!
//! It decides nothing about the model. Launches come from the plan, extents from checked steps.

pub mod driver;
mod graphs;
mod inputs;
mod launches;
mod memory;
pub mod ptx;
pub mod random;

use nemo_ir::artifact::CudaNeeds;
use nemo_ir::plan::{self, Plan};
use nemo_ir::step::StepDims;
use thiserror::Error;

use self::driver::{Compiled, Driver, DriverError, Image, KernelId, KernelUse, Loaded, ModuleId};
use self::graphs::{Graphs, buckets};
use self::inputs::Inputs;
use self::launches::{Addresses, Extents, Maps, Program, check_grids};
use super::sizes::{Sizes, total};
use super::{Device, DeviceError, LaunchTime, MemoryUse, Profiling};
use crate::step::{Bounds, CheckedStep};
use crate::weights::stream::Supply;

pub use memory::NoFit;

/// How a GPU device is set up.
#[derive(Debug)]
pub(crate) struct GpuOptions {
    /// The GPU.
    pub driver: Box<dyn Driver>,
    /// Whether launches are timed.
    pub profiling: Profiling,
    /// What its steps may reach.
    pub bounds: Bounds,
}

/// A target's kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels<'a> {
    /// What they need.
    pub needs: &'a CudaNeeds,
    /// PTX.
    pub ptx: &'a [u8],
    /// Machine code, where it was assembled.
    pub cubin: Option<&'a [u8]>,
}

/// Why a GPU device could not be set up.
#[derive(Debug, Error)]
pub enum GpuError {
    /// What the driver said.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// More than the GPU's memory holds.
    #[error(transparent)]
    NoFit(#[from] NoFit),
    /// Kernels that are no text.
    #[error("its PTX is not text: {0}")]
    NotText(std::str::Utf8Error),
    /// A kernel that the plan launches.
    #[error("its PTX has no kernel `{kernel}`")]
    NoKernel {
        /// The kernel's symbol.
        kernel: String,
    },
    /// A kernel of a plan for a CPU.
    #[error("the plan does not say how kernel `{kernel}` is launched on a GPU")]
    NoGeometry {
        /// The kernel's symbol.
        kernel: String,
    },
    /// More CTAs than a grid has.
    #[error("the largest step launches kernel `{kernel}` with a grid of {grid:?}, more than a GPU takes")]
    Grid {
        /// The kernel's symbol.
        kernel: String,
        /// CTAs along x, y and z.
        grid: [u64; 3],
    },
}

/// The PTX of a plan's kernels as text.
///
/// # Errors
/// [`GpuError`] where it is none, or lacks a kernel of the plan.
pub fn check_ptx<'a>(plan: &Plan, ptx: &'a [u8]) -> Result<&'a str, GpuError> {
    let text = std::str::from_utf8(ptx).map_err(GpuError::NotText)?;
    let entries = ptx::entries(text);
    for plan::Kernel { symbol, geometry, .. } in &plan.kernels {
        if !entries.contains(symbol.as_str()) {
            return Err(GpuError::NoKernel { kernel: symbol.clone() });
        }
        if geometry.is_none() {
            return Err(GpuError::NoGeometry { kernel: symbol.clone() });
        }
    }
    Ok(text)
}

/// The model on a GPU.
#[derive(Debug)]
pub(crate) struct Gpu {
    driver: Box<dyn Driver>,
    bounds: Bounds,
    profiling: Profiling,
    programs: Vec<Program>,
    graphs: Graphs,
    maps: Maps,
    inputs: Inputs,
    addresses: Addresses,
    memory: MemoryUse,
    /// The last step's tokens.
    next: Vec<i32>,
    /// The last step's logits, as far as they were asked for.
    logits: Vec<f32>,
}

impl Gpu {
    /// Loads the kernels, and brings weights and tables to the GPU; random weights are made there.
    ///
    /// The plan must have passed `nemo_ir::artifact::validate`, and the weights and bounds be those of the plan.
    /// With it comes what its users may want to know of the load.
    ///
    /// # Errors
    /// [`GpuError`] when the driver refuses something or there is not enough memory.
    pub(crate) fn new(
        plan: &Plan,
        kernels: Kernels<'_>,
        weights: &Supply<'_>,
        options: GpuOptions,
    ) -> Result<(Self, Vec<String>), GpuError> {
        let GpuOptions { mut driver, profiling, bounds } = options;
        let text = check_ptx(plan, kernels.ptx)?;
        for program in &plan.programs {
            check_grids(plan, program, largest(program, &bounds))?;
        }
        let buckets: Vec<_> = plan.programs.iter().map(|program| buckets(program, &bounds)).collect();
        let seqs = buckets.iter().flatten().fold(bounds.seqs, |most, bucket| most.max(*bucket));
        let sizes = Sizes::of(plan, &bounds, seqs);
        // Sizes are refused before places are made for them.
        let free = driver.memory()?.free;
        memory::check(plan, &sizes, free)?;
        let inputs = Inputs::new(&sizes.inputs);
        let mut notes = Vec::new();
        let module = load(driver.as_mut(), kernels, text, &mut notes)?;
        let ids = kernel_ids(driver.as_mut(), plan, module)?;
        let addresses = memory::place(driver.as_mut(), plan, (&sizes, &inputs), weights, &bounds)?;
        let mut programs: Vec<Program> = plan
            .programs
            .iter()
            .zip(buckets)
            .map(|(program, buckets)| Program::new(plan, program, &ids, &addresses, buckets))
            .collect::<Result<_, _>>()?;
        // What the driver says against a tensor map it says now.
        let mut maps = Maps::default();
        for (program, of) in programs.iter_mut().zip(&plan.programs) {
            program.resolve(driver.as_mut(), &mut maps, largest(of, &bounds))?;
        }
        let memory = MemoryUse {
            weights: total(&sizes.weights),
            states: total(&sizes.states),
            buffers: total(&[sizes.buffers(), sizes.counters, sizes.partials]),
        };
        let gpu = Self {
            driver,
            bounds,
            profiling,
            programs,
            graphs: Graphs::default(),
            maps,
            inputs,
            addresses,
            memory,
            next: Vec::new(),
            logits: Vec::new(),
        };
        Ok((gpu, notes))
    }

    /// Runs one step's launches after its inputs are on the GPU.
    fn launch(&mut self, step: &CheckedStep<'_>, index: usize) -> Result<(), DriverError> {
        let Self { driver, bounds, programs, graphs, maps, inputs, .. } = self;
        let (driver, program) = (driver.as_mut(), &mut programs[index]);
        let dims = step.dims();
        let timed = self.profiling == Profiling::EachLaunch;
        let bucket = program.buckets.iter().find(|bucket| dims.seqs <= **bucket && !timed).copied();
        driver.upload(self.addresses.staged, inputs.fill(step, bucket.unwrap_or(dims.seqs)))?;
        if let Some(bucket) = bucket {
            if let Some(graph) = graphs.get(index, bucket) {
                return driver.replay(graph);
            }
            let dims = StepDims { tokens: bucket, seqs: bucket, rows: bucket, pages: dims.pages };
            let graph = {
                let launches = program.resolve(driver, maps, Extents::new(dims, bounds))?;
                driver.record(launches)?
            };
            graphs.insert(index, bucket, graph);
            return driver.replay(graph);
        }
        let launches = program.resolve(driver, maps, Extents::new(dims, bounds))?;
        if timed {
            let times = driver.time(launches)?;
            program.add_times(&times);
            return Ok(());
        }
        driver.run(launches)
    }
}

/// Extents of the largest step of a program.
fn largest(program: &plan::Program, bounds: &Bounds) -> Extents {
    let dims = StepDims {
        tokens: program.max_tokens,
        seqs: program.max_seqs,
        rows: program.max_tokens,
        pages: bounds.pages_per_seq,
    };
    Extents::new(dims, bounds)
}

/// Loads the machine code where it is the GPU's own and the driver takes it, and PTX otherwise.
fn load(
    driver: &mut dyn Driver,
    kernels: Kernels<'_>,
    text: &str,
    notes: &mut Vec<String>,
) -> Result<ModuleId, GpuError> {
    let own = driver.facts().capability == kernels.needs.capability;
    if let Some(cubin) = kernels.cubin.filter(|_| own) {
        match driver.load(Image::Cubin(cubin)) {
            Ok(Loaded { module, .. }) => return Ok(module),
            Err(error) => notes.push(format!("the artifact's machine code is not used, its PTX is: {error}")),
        }
    }
    let Loaded { module, compiled } = driver.load(Image::Ptx(text))?;
    if let Some(Compiled { took, not_kept }) = compiled {
        notes.push(format!("the driver compiled the kernels in {:.1} s", took.as_secs_f64()));
        if let Some(why) = not_kept {
            notes.push(format!("what it compiled cannot be kept for the next time: {why}"));
        }
    }
    Ok(module)
}

/// The plan's kernels, by index.
fn kernel_ids(driver: &mut dyn Driver, plan: &Plan, module: ModuleId) -> Result<Vec<KernelId>, GpuError> {
    let id = |kernel: &plan::Kernel| {
        let no_geometry = || GpuError::NoGeometry { kernel: kernel.symbol.clone() };
        let geometry = kernel.geometry.as_ref().ok_or_else(no_geometry)?;
        let (threads, shared) = (geometry.threads, geometry.shared);
        Ok(driver.kernel(module, KernelUse { symbol: &kernel.symbol, threads, shared })?)
    };
    plan.kernels.iter().map(id).collect()
}

impl Device for Gpu {
    fn describe(&self) -> String {
        self.driver.facts().to_string()
    }

    fn run(&mut self, step: &CheckedStep<'_>) -> Result<(), DeviceError> {
        if *step.bounds() != self.bounds {
            return Err(DeviceError::OtherBounds);
        }
        let dims = step.dims();
        let serves =
            |program: &Program| program.phase == step.phase() && program.tokens.contains(&dims.tokens);
        let index = self.programs.iter().position(serves).ok_or(DeviceError::NoProgram(step.phase()))?;
        self.launch(step, index)?;
        self.next.resize(dims.seqs as usize, 0);
        self.driver.download(self.addresses.next, bytemuck::cast_slice_mut(&mut self.next))?;
        Ok(())
    }

    fn logits(&mut self, rows: usize) -> Result<&[f32], DeviceError> {
        self.logits.resize(rows * self.bounds.vocab as usize, 0.0);
        self.driver.download(self.addresses.logits, bytemuck::cast_slice_mut(&mut self.logits))?;
        Ok(&self.logits)
    }

    fn next(&self, seqs: usize) -> &[i32] {
        &self.next[..seqs.min(self.next.len())]
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }

    fn read_bandwidth(&mut self) -> Option<f64> {
        self.driver.measure_bandwidth()
    }

    fn product_peak(&mut self) -> Option<f64> {
        self.driver.measure_products()
    }

    fn take_profile(&mut self) -> Vec<LaunchTime> {
        self.programs.iter_mut().flat_map(Program::take_times).collect()
    }
}
