//! What the kernels of systems take of a card, as NVIDIA's assembler says.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use nemo_kernels::nvptx::{self, Candidate, resident};
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
    /// How it is built and launched, and what the cost model takes it to need.
    pub kernel: Candidate,
    /// What it takes.
    pub resources: Resources,
}

impl Assembled {
    /// CTAs that an SM holds at once.
    pub fn ctas(&self, sm: Sm) -> u32 {
        resident(sm, &self.kernel.geometry, self.resources.registers, self.resources.shared)
    }

    /// Warps that an SM holds at once, as a share of those it has room for.
    pub fn occupancy(&self, sm: Sm) -> f64 {
        let warps = self.kernel.geometry.threads.div_ceil(32);
        f64::from(self.ctas(sm) * warps * 32) / f64::from(sm.threads())
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
            let kernel = nvptx::candidate(sm, &spec).unwrap_or_else(|error| panic!("{error}"));
            all.insert(text.clone(), Assembled { resources: made.resources[&symbol], kernel, spec });
        }
    }
    all
}

/// What stands against a kernel: spills, an SM that cannot hold one CTA, or fewer CTAs on one than the cost model counts on.
pub fn faults(sm: Sm, kernels: &BTreeMap<String, Assembled>) -> Vec<String> {
    let mut faults = Vec::new();
    for (text, kernel) in kernels {
        let Resources { registers, stack, spilled, .. } = kernel.resources;
        if spilled > 0 || stack > 0 {
            faults.push(format!("{}: {text}: {spilled} bytes spilled, {stack} bytes of stack", sm.name()));
        }
        if kernel.ctas(sm) == 0 {
            let shared = kernel.kernel.geometry.shared;
            faults.push(format!(
                "{}: {text}: no SM holds {registers} registers a thread, {shared} bytes",
                sm.name()
            ));
        }
        let (holds, counted) = (kernel.ctas(sm), kernel.kernel.resident(sm));
        if holds < counted {
            faults.push(format!(
                "{}: {text}: {registers} registers a thread, so that an SM holds {holds} CTAs, and not {counted}",
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
        let shared = f64::from(kernel.kernel.geometry.shared + kernel.resources.shared) / 1024.0;
        let line = format!(
            "| `{what}` | {} | {} | {shared:.1} | {} | {:.0} % |",
            kernel.kernel.geometry.threads,
            kernel.resources.registers,
            kernel.ctas(sm),
            100.0 * kernel.occupancy(sm)
        );
        writeln!(text, "{line}").expect("a String takes it");
    }
    text
}
