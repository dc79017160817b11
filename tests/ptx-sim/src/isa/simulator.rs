//! The simulator as a machine that runs cases.

use super::{Case, Machine, Param};
use crate::tensor::tma_map::{MapError, TensorMap, TensorSpec};
use crate::{Fault, Launch, Memory, MemoryError, Module, Options, ParseError, run};

/// Runs cases with all checks.
#[derive(Debug, Default)]
pub struct Simulator {
    /// How launches are executed.
    pub options: Options,
}

/// Why the simulator did not run a case.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The module is not understood.
    #[error("{case}: {source}")]
    Parse {
        /// Name of the case.
        case: String,
        /// What is wrong with the text.
        source: ParseError,
    },
    /// Execution stopped.
    #[error("{case}: {source}")]
    Fault {
        /// Name of the case.
        case: String,
        /// Where and why.
        source: Box<Fault>,
    },
    /// The case does not fit the kernel.
    #[error("{case}: {problem}")]
    Case {
        /// Name of the case.
        case: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Memory of a parameter could not be reached.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A tensor map of the case is illegal.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Machine for Simulator {
    type Error = SimulatorError;

    fn run(&mut self, case: &Case) -> Result<Vec<Vec<u8>>, SimulatorError> {
        let module = Module::parse(case.ptx)
            .map_err(|source| SimulatorError::Parse { case: case.name.clone(), source })?;
        let mut memory = Memory::new();
        let addresses =
            case.params.iter().map(|param| allocate(&mut memory, param)).collect::<Result<Vec<_>, _>>()?;
        let params = parameter_block(case, &module, &addresses)?;
        let launch = Launch {
            kernel: case.kernel,
            grid: [case.grid, 1, 1],
            block: [case.block, 1, 1],
            dynamic_shared: case.shared,
            params: &params,
        };
        run(&module, &mut memory, &launch, &self.options)
            .map_err(|source| SimulatorError::Fault { case: case.name.clone(), source: Box::new(source) })?;
        let mut outputs = Vec::new();
        for (param, &address) in case.params.iter().zip(&addresses) {
            if let Param::Output { expected, .. } = param {
                let mut bytes = vec![0; expected.len()];
                memory.read(address, &mut bytes)?;
                outputs.push(bytes);
            }
        }
        Ok(outputs)
    }
}

/// Address of the memory of a parameter; 0 for what is passed by value.
fn allocate(memory: &mut Memory, param: &Param) -> Result<u64, MemoryError> {
    let (Param::Input(bytes) | Param::Output { initial: bytes, .. }) = param else { return Ok(0) };
    let address = memory.alloc(bytes.len() as u64);
    memory.write(address, bytes)?;
    Ok(address)
}

fn parameter_block(case: &Case, module: &Module, addresses: &[u64]) -> Result<Vec<u8>, SimulatorError> {
    let misfit = |problem| SimulatorError::Case { case: case.name.clone(), problem };
    let kernel = module.kernel(case.kernel).ok_or_else(|| misfit("the module has no such kernel"))?;
    if kernel.params().len() != case.params.len() {
        return Err(misfit("the kernel has another number of parameters"));
    }
    let mut block = vec![0; kernel.param_bytes()];
    for ((place, param), address) in kernel.params().iter().zip(&case.params).zip(addresses) {
        let bytes = match param {
            Param::Input(_) | Param::Output { .. } => address.to_le_bytes().to_vec(),
            Param::Value(bytes) => bytes.clone(),
            Param::Tensor { buffer, spec } => {
                let address = addresses[*buffer] + spec.address;
                TensorMap::new(TensorSpec { address, ..*spec })?.encode().to_vec()
            }
        };
        if bytes.len() != place.size {
            return Err(misfit("a parameter of the kernel has another size"));
        }
        block[place.offset..place.offset + place.size].copy_from_slice(&bytes);
    }
    Ok(block)
}
