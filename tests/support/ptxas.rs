//! What the kernels of systems take of a card, as NVIDIA's assembler says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use nemo_ir::plan::Geometry;
use nemo_kernels::nvptx;
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::{Sm, Target};
use nemo_models::Model;
use nemoc::assemble::{Resources, assemble};
use nemoc::{CompileOptions, plan_for};

/// Kernels of one module; the assembler's time grows with the module.
const BATCH: usize = 64;

/// A kernel with what it takes.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// What it computes.
    pub spec: KernelSpec,
    /// How it is launched.
    pub geometry: Geometry,
    /// What it takes.
    pub resources: Resources,
}

impl Assembled {
    /// CTAs that an SM holds at once.
    pub fn ctas(&self, sm: Sm) -> u32 {
        let has = Multiprocessor::of(sm);
        let warps = self.geometry.threads.div_ceil(32);
        // Registers are given to warps in units of 256.
        let by_registers =
            has.registers / ((self.resources.registers * 32).next_multiple_of(256) * warps).max(1);
        let shared = self.geometry.shared + self.resources.shared + RESERVED_SHARED;
        by_registers.min(has.shared / shared).min(has.threads / (warps * 32)).min(has.ctas)
    }

    /// Warps that an SM holds at once, as a share of those it has room for.
    pub fn occupancy(&self, sm: Sm) -> f64 {
        let warps = self.geometry.threads.div_ceil(32);
        f64::from(self.ctas(sm) * warps * 32) / f64::from(Multiprocessor::of(sm).threads)
    }
}

/// Shared memory that the system keeps of each CTA's.
const RESERVED_SHARED: u32 = 1024;

/// What a streaming multiprocessor has (CUDA programming guide, technical specifications by compute capability).
struct Multiprocessor {
    registers: u32,
    shared: u32,
    threads: u32,
    ctas: u32,
}

impl Multiprocessor {
    fn of(sm: Sm) -> Self {
        match sm {
            Sm::Sm86 => Self { registers: 65536, shared: 100 << 10, threads: 1536, ctas: 16 },
            Sm::Sm90 => Self { registers: 65536, shared: 228 << 10, threads: 2048, ctas: 32 },
        }
    }
}

/// The assembler that `tools/setup.sh --ptxas` fetched, or the one on PATH.
///
/// # Panics
/// When there is none.
pub fn assembler() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ptxas/ptxas");
    if fetched.is_file() {
        return fetched;
    }
    nemoc::assemble::find().unwrap_or_else(|error| panic!("{error}; `tools/setup.sh --ptxas` fetches it"))
}

/// The distinct kernels of a model for a GPU.
///
/// # Panics
/// When the model cannot be planned.
pub fn kernels(model: &Model, sm: Sm) -> Vec<KernelSpec> {
    let options = CompileOptions { max_seqs: 64, chunk: 2048, ..CompileOptions::new(vec![Target::Gpu(sm)]) };
    let planned =
        plan_for(model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{}: {error}", model.name));
    let kernels = planned.targets.into_iter().flat_map(|target| target.planned.kernels);
    kernels.map(|(_, spec)| spec).collect()
}

/// Assembles kernels, equal ones once; by their text.
///
/// # Panics
/// When a kernel cannot be generated or assembled.
pub fn assembled(sm: Sm, specs: impl IntoIterator<Item = KernelSpec>) -> BTreeMap<String, Assembled> {
    let program = assembler();
    let distinct: BTreeMap<String, KernelSpec> =
        specs.into_iter().map(|spec| (spec.to_string(), spec)).collect();
    let mut all = BTreeMap::new();
    let distinct: Vec<_> = distinct.into_iter().collect();
    for batch in distinct.chunks(BATCH) {
        let named = batch.iter().enumerate().map(|(index, (_, spec))| (format!("k{index}"), spec.clone()));
        let named: Vec<_> = named.collect();
        let module = nvptx::compile(sm, &named, false).unwrap_or_else(|error| panic!("{error}"));
        let made = assemble(&program, sm, &module.ptx).unwrap_or_else(|error| panic!("{error}"));
        for ((symbol, spec), (text, _)) in named.into_iter().zip(batch) {
            let geometry = nvptx::geometry_of(sm, &spec).unwrap_or_else(|error| panic!("{error}"));
            all.insert(text.clone(), Assembled { resources: made.resources[&symbol], geometry, spec });
        }
    }
    all
}

/// What stands against a kernel: spills, or an SM that cannot hold one CTA.
pub fn faults(sm: Sm, kernels: &BTreeMap<String, Assembled>) -> Vec<String> {
    let mut faults = Vec::new();
    for (text, kernel) in kernels {
        let Resources { registers, stack, spilled, .. } = kernel.resources;
        if spilled > 0 || stack > 0 {
            faults.push(format!("{}: {text}: {spilled} bytes spilled, {stack} bytes of stack", sm.name()));
        }
        if kernel.ctas(sm) == 0 {
            let shared = kernel.geometry.shared;
            faults.push(format!(
                "{}: {text}: no SM holds {registers} registers a thread, {shared} bytes",
                sm.name()
            ));
        }
    }
    faults
}

/// A table in Markdown: a line for each kernel.
pub fn table(sm: Sm, kernels: &BTreeMap<String, Assembled>) -> String {
    let mut text = "| kernel | threads | registers | shared, KiB | CTAs an SM | occupancy |\n|---|---|---|---|---|---|\n".to_owned();
    for (what, kernel) in kernels {
        let shared = f64::from(kernel.geometry.shared + kernel.resources.shared) / 1024.0;
        let line = format!(
            "| `{what}` | {} | {} | {shared:.1} | {} | {:.0} % |",
            kernel.geometry.threads,
            kernel.resources.registers,
            kernel.ctas(sm),
            100.0 * kernel.occupancy(sm)
        );
        writeln!(text, "{line}").expect("a String takes it");
    }
    text
}
