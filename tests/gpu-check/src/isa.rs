//! The simulator's cases of single instructions, on a driver.

use nemo_ir::types::Dtype;
use nemort::device::gpu::driver::{Address, Driver, Image, KernelUse, Launch, Matrix};
use ptx_sim::Module;
use ptx_sim::isa::{Case, Param, Target, cases};
use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma_map::{DataType, OobFill, TensorSpec};

use crate::run::Summary;

/// Runs every `every`th case that the GPU and the driver's trait can express; the others are counted as skipped.
pub fn run(driver: &mut dyn Driver, every: usize) -> Summary {
    let mut summary = Summary::default();
    let capability = driver.facts().capability;
    for case in cases().iter().step_by(every.max(1)) {
        let serves = match case.target {
            Target::Sm80 => capability >= (8, 0),
            Target::Sm90 => capability >= (9, 0),
            Target::Sm90a => capability == (9, 0),
        };
        let maps = case.params.iter().all(|param| match param {
            Param::Tensor { spec, .. } => matrix(spec, 0).is_some(),
            _ => true,
        });
        if serves && maps {
            summary.note(&case.name, run_case(driver, case));
        } else {
            summary.skipped += 1;
        }
    }
    summary
}

/// A tensor as the driver's trait has it: matrices of two element types, whole boxes, zeros outside.
fn matrix(spec: &TensorSpec, base: u64) -> Option<Matrix> {
    let dtype = match spec.dtype {
        DataType::Bf16 => Dtype::Bf16,
        DataType::F32 => Dtype::F32,
        _ => return None,
    };
    if spec.rank != 2 || spec.element_strides[..2] != [1, 1] || spec.fill != OobFill::Zero {
        return None;
    }
    Some(Matrix {
        address: Address(base + spec.address),
        dtype,
        rows: spec.dims[1],
        columns: spec.dims[0],
        row_bytes: spec.strides[0],
        box_rows: spec.box_dims[1],
        box_columns: spec.box_dims[0],
        swizzle: if spec.swizzle == Swizzle::None { 0 } else { spec.swizzle.span() },
    })
}

fn run_case(driver: &mut dyn Driver, case: &Case) -> Result<(), String> {
    let mut taken = Vec::new();
    let found = outputs(driver, case, &mut taken);
    for address in taken {
        // A GPU that has failed says so again here, and the case has reported it.
        let _ = driver.free(address);
    }
    case.compare(&found?).map_err(|mismatch| mismatch.to_string())
}

fn outputs(driver: &mut dyn Driver, case: &Case, taken: &mut Vec<Address>) -> Result<Vec<Vec<u8>>, String> {
    let said = |error: nemort::device::gpu::driver::DriverError| error.to_string();
    // Where parameters lie is in the text.
    let parsed = Module::parse(case.ptx).map_err(|error| error.to_string())?;
    let entry = parsed.kernel(case.kernel).ok_or("the module has no such kernel")?;
    let module = driver.load(Image::Ptx(case.ptx)).map_err(said)?.module;
    let kernel_use = KernelUse { symbol: case.kernel, threads: case.block, shared: case.shared };
    let kernel = driver.kernel(module, kernel_use).map_err(said)?;
    let mut addresses = Vec::new();
    for param in &case.params {
        let address = match param {
            Param::Input(bytes) | Param::Output { initial: bytes, .. } => {
                let address = driver.alloc(bytes.len().max(1) as u64).map_err(said)?;
                taken.push(address);
                driver.upload(address, bytes).map_err(said)?;
                address
            }
            Param::Tensor { .. } | Param::Value(_) => Address(0),
        };
        addresses.push(address);
    }
    let mut parameters = vec![0; entry.param_bytes()];
    for ((place, param), address) in entry.params().iter().zip(&case.params).zip(&addresses) {
        let bytes = match param {
            Param::Input(_) | Param::Output { .. } => address.0.to_le_bytes().to_vec(),
            Param::Value(bytes) => bytes.clone(),
            Param::Tensor { buffer, spec } => {
                let matrix = matrix(spec, addresses[*buffer].0).ok_or("no matrix")?;
                driver.tensor_map(&matrix).map_err(said)?.to_vec()
            }
        };
        if bytes.len() != place.size {
            return Err("a parameter of the kernel has another size".to_owned());
        }
        parameters[place.offset..][..place.size].copy_from_slice(&bytes);
    }
    let grid = [case.grid, 1, 1];
    let launch = Launch { kernel, grid, threads: case.block, shared: case.shared, parameters };
    driver.run(&[launch]).map_err(said)?;
    let mut found = Vec::new();
    for (param, address) in case.params.iter().zip(addresses) {
        if let Param::Output { expected, .. } = param {
            let mut bytes = vec![0; expected.len()];
            driver.download(address, &mut bytes).map_err(said)?;
            found.push(bytes);
        }
    }
    Ok(found)
}
