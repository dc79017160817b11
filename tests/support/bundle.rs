//! Writes the kernel cases of a bundle that a machine with a GPU and without a compiler runs.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use gpu_check::bundle::{BundleError, Case, Cases, Expected};
use gpu_check::compare::Tolerance;
use nemo_ir::ops::{Op, Recipe, table};
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_kernels::nvptx;
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::Sm;

use crate::drawn::{WITHOUT_KERNEL, case};
use crate::kernel::{Backend, Drawn, Given, Machine, loaded, stored_values};
use crate::wide::{Drawing, drawings};

/// Kernels of one module: a driver's time grows with the module.
const BATCH: usize = 64;

/// The cases of a target, and the kernels that they launch with their symbols.
#[derive(Debug, Default)]
pub struct Bundle {
    /// The cases with their bytes.
    pub cases: Cases,
    kernels: Vec<(String, KernelSpec)>,
    stored: Stored,
}

/// Where bytes are stored that many cases have, such as weights: places and lengths by hash.
#[derive(Debug, Default)]
struct Stored {
    hasher: RandomState,
    places: HashMap<u64, Vec<(u64, usize)>>,
}

impl Stored {
    /// Adds bytes to the blob if it does not have them; where they begin.
    fn add(&mut self, cases: &mut Cases, bytes: &[u8]) -> u64 {
        let places = self.places.entry(self.hasher.hash_one(bytes)).or_default();
        let same = |(at, len): &&(u64, usize)| cases.blob[*at as usize..][..*len] == *bytes;
        if let Some((at, _)) = places.iter().find(same) {
            return *at;
        }
        let at = cases.add(bytes);
        places.push((at, bytes.len()));
        at
    }
}

/// Draws and writes the cases of some ops for a target; `only` empty takes all. How many there are.
///
/// # Errors
/// [`BundleError`] where a file cannot be written.
///
/// # Panics
/// As [`draw`], and where a kernel cannot be made that the target has.
pub fn write(folder: &Path, sm: Sm, only: &[String]) -> Result<usize, BundleError> {
    let Bundle { cases, kernels, .. } = draw(sm, only);
    let file = |source, file| BundleError::File { file, source };
    std::fs::create_dir_all(folder).map_err(|error| file(error, folder.to_owned()))?;
    for (number, batch) in kernels.chunks(BATCH).enumerate() {
        let module = nvptx::compile(sm, batch, false).unwrap_or_else(|error| panic!("{error}"));
        let path = folder.join(module_name(sm, number));
        std::fs::write(&path, module.ptx).map_err(|error| file(error, path))?;
    }
    cases.write(folder, sm.name())?;
    Ok(cases.cases.len())
}

/// Draws the cases of some ops for a target; `only` empty takes all. No kernel is compiled.
///
/// # Panics
/// Where an op has an operand that no case knows, or the target has no kernel for it.
pub fn draw(sm: Sm, only: &[String]) -> Bundle {
    let mut bundle = Bundle::default();
    let drawings = drawings();
    let wanted = |op: &Op| only.is_empty() || only.iter().any(|name| name == op.name);
    let computed = |op: &Op| WITHOUT_KERNEL.iter().all(|(name, _)| *name != op.name);
    for op in table().filter(|op| wanted(op) && computed(op)) {
        for (index, drawing) in drawings.iter().enumerate().filter(|(_, drawing)| drawing.takes(op)) {
            for phase in Phase::ALL.into_iter().filter(|phase| serves(op, *phase)) {
                bundle.draw_steps(op, (index, drawing), sm, phase);
            }
        }
    }
    bundle
}

fn module_name(sm: Sm, number: usize) -> String {
    format!("{}-{number}.ptx", sm.name())
}

/// GPUs convolve products on their way only in kernels of decode steps.
fn serves(op: Op, phase: Phase) -> bool {
    let both = |recipe: &Recipe| recipe.step("linear").is_some() && recipe.step("causal_conv1d").is_some();
    phase == Phase::Decode || !Recipe::of(op).is_some_and(both)
}

impl Bundle {
    /// The steps of one op with one choice of extents, which share the op's states.
    fn draw_steps(&mut self, op: Op, (index, drawing): (usize, &Drawing), sm: Sm, phase: Phase) {
        let Drawing { extents, dtypes, steps, .. } = drawing;
        let mut machine = Machine::new(&Backend::Sim(sm, phase), case(op, extents, *dtypes, 1));
        for (number, (step, phases)) in steps.iter().enumerate() {
            let dims = step.dims();
            // The rest of the steps of decode are those of prefill.
            if !phases.contains(&phase) || (phase == Phase::Decode && dims.tokens != dims.seqs) {
                continue;
            }
            let fresh = case(op, extents, *dtypes, step);
            for (operand, given) in fresh.operands.into_iter().enumerate() {
                if let Given::Tensor { tensor, rows: Some(_), .. } = given {
                    machine.set(operand, tensor);
                }
            }
            let name = format!("{} {index} step {number}, {} {}", op.name, sm.name(), phase.name());
            self.add(&name, op, sm, dtypes.y, machine.draw(sm, phase, step));
        }
    }

    /// A case for each form of the kernel.
    fn add(&mut self, name: &str, op: Op, sm: Sm, y: Dtype, drawn: Drawn) {
        let (cases, stored) = (&mut self.cases, &mut self.stored);
        let mut add = |bytes: &[u8]| stored.add(cases, bytes);
        let initial: Vec<_> = drawn.buffers.iter().map(|bytes| bytes.as_deref().map(&mut add)).collect();
        let mut expected = Vec::new();
        for (room, dtype, values) in drawn.expected {
            let tolerance = match dtype {
                Dtype::I32 => Tolerance::Exact,
                // An intermediate that falls to the other side in bf16 shows as much in a result of f32.
                _ if y == Dtype::F32 => Tolerance::F32,
                _ => Tolerance::Bf16,
            };
            // The interpreter has rounded them to their dtype.
            let bytes = stored_values(&values, dtype);
            assert!(loaded(&bytes, dtype) == values, "{name}: what is expected is not of {dtype}");
            let at = add(&bytes);
            expected.push(Expected { room, dtype, tolerance, at, count: values.len() });
        }
        for (spec, launch) in drawn.launches {
            let form = spec.form.map_or_else(String::new, |form| format!(", {form}"));
            let (kernel, symbol) = self.kernel(op, spec);
            self.cases.cases.push(Case {
                name: format!("{name}{form}"),
                op: op.name.to_owned(),
                module: module_name(sm, kernel / BATCH),
                symbol,
                launch,
                initial: initial.clone(),
                expected: expected.clone(),
            });
        }
    }

    /// Index and symbol of a kernel, which is added where it is new.
    fn kernel(&mut self, op: Op, spec: KernelSpec) -> (usize, String) {
        let text = spec.to_string();
        let known = self.kernels.iter().position(|(_, known)| known.to_string() == text);
        let kernel = known.unwrap_or(self.kernels.len());
        let symbol = format!("k{kernel}_{}", op.name);
        if known.is_none() {
            self.kernels.push((symbol.clone(), spec));
        }
        (kernel, symbol)
    }
}
