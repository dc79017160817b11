//! Writes the kernel cases of a bundle that a machine with a GPU and without a compiler runs.

use std::path::Path;

use gpu_check::bundle::{BundleError, Case, Cases, Expected};
use gpu_check::compare::Tolerance;
use nemo_ir::ops::{Op, Recipe, table};
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;
use nemo_kernels::nvptx;
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::Sm;

use crate::drawn::{DTYPES, EXTENTS, case, drawable, steps};
use crate::kernel::{Backend, Given, Machine};

/// Kernels of one module: a driver's time grows with the module.
const BATCH: usize = 64;

/// Writes the cases of some ops for a target; `only` empty takes all that can be drawn. How many there are.
///
/// # Errors
/// [`BundleError`] where a file cannot be written.
///
/// # Panics
/// Where a kernel cannot be made that the target has.
pub fn write(folder: &Path, sm: Sm, only: &[String]) -> Result<usize, BundleError> {
    let mut cases = Cases::default();
    let mut kernels: Vec<(String, KernelSpec)> = Vec::new();
    for op in table().filter(|op| only.is_empty() || only.iter().any(|name| name == op.name)) {
        for (index, (extents, dtypes)) in EXTENTS.iter().zip(DTYPES).enumerate() {
            if !drawable(op, extents, dtypes) {
                continue;
            }
            for phase in [Phase::Decode, Phase::Prefill] {
                let mut machine = Machine::new(&Backend::Sim(sm, phase), case(op, extents, dtypes, 1));
                for (number, step) in steps().iter().enumerate() {
                    let dims = step.dims();
                    // The rest of the steps of decode are those of prefill.
                    if (phase == Phase::Decode && dims.tokens != dims.seqs) || !serves(op, phase) {
                        continue;
                    }
                    let fresh = case(op, extents, dtypes, step.tokens.len());
                    for (operand, given) in fresh.operands.into_iter().enumerate() {
                        if let Given::Tensor { tensor, rows: Some(_), .. } = given {
                            machine.set(operand, tensor);
                        }
                    }
                    let tolerance = if dtypes.y == Dtype::F32 { Tolerance::F32 } else { Tolerance::Bf16 };
                    let drawn = machine.draw(sm, phase, step);
                    let known =
                        kernels.iter().position(|(_, spec)| spec.to_string() == drawn.spec.to_string());
                    let kernel = known.unwrap_or(kernels.len());
                    let symbol = format!("k{kernel}_{}", op.name);
                    if known.is_none() {
                        kernels.push((symbol.clone(), drawn.spec));
                    }
                    let initial =
                        drawn.buffers.iter().map(|bytes| bytes.as_ref().map(|b| cases.add(b))).collect();
                    let mut expected = Vec::new();
                    for (room, dtype, values) in drawn.expected {
                        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                        let at = cases.add(&bytes);
                        expected.push(Expected { room, dtype, tolerance, at, count: values.len() });
                    }
                    cases.cases.push(Case {
                        name: format!("{} {index} step {number}, {} {}", op.name, sm.name(), phase.name()),
                        op: op.name.to_owned(),
                        module: format!("{}-{}.ptx", sm.name(), kernel / BATCH),
                        symbol,
                        launch: drawn.launch,
                        initial,
                        expected,
                    });
                }
            }
        }
    }
    let file = |source, file| BundleError::File { file, source };
    std::fs::create_dir_all(folder).map_err(|error| file(error, folder.to_owned()))?;
    for (number, batch) in kernels.chunks(BATCH).enumerate() {
        let module = nvptx::compile(sm, batch, false).unwrap_or_else(|error| panic!("{error}"));
        let path = folder.join(format!("{}-{number}.ptx", sm.name()));
        std::fs::write(&path, module.ptx).map_err(|error| file(error, path))?;
    }
    cases.write(folder, sm.name())?;
    Ok(cases.cases.len())
}

/// GPUs convolve products on their way only in kernels of decode steps.
fn serves(op: Op, phase: Phase) -> bool {
    let both = |recipe: &Recipe| recipe.step("linear").is_some() && recipe.step("causal_conv1d").is_some();
    phase == Phase::Decode || !Recipe::of(op).is_some_and(both)
}
