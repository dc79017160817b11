//! A simulated GPU behind the driver that `nemort` asks for: whole models run on it, with all checks of the simulator.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_ir::types::Dtype;
use nemort::device::gpu::driver::{
    Address, Driver, DriverError, DriverFactory, Facts, GraphId, Image, KernelId, KernelUse, Launch, Loaded,
    Matrix, Memory, ModuleId, TensorMapBytes,
};
use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma_map::{self, DataType, OobFill, TensorSpec};
use ptx_sim::{Counts, Module, Options};

/// Memory of the card, as large as an A10G's.
const BYTES: u64 = 24 << 30;

/// What a card has done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// What all launches cost together.
    pub counts: Counts,
    /// How often something was recorded.
    pub recorded: usize,
    /// How often a recording was run.
    pub replayed: usize,
}

/// A card of a target's compute capability.
#[derive(Debug)]
struct Card {
    facts: Facts,
    taken: u64,
    memory: ptx_sim::Memory,
    modules: Vec<Module>,
    kernels: Vec<(usize, String)>,
    graphs: Vec<Vec<Launch>>,
    tally: Arc<Mutex<Tally>>,
}

/// A card, and what it has done.
pub fn card(facts: Facts) -> (Box<dyn Driver>, Arc<Mutex<Tally>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    (Box::new(Card::new(facts, Arc::clone(&tally))), tally)
}

/// A factory of cards, and what they have done.
pub fn cards(facts: Facts) -> (DriverFactory, Arc<Mutex<Tally>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let shared = Arc::clone(&tally);
    let make = move || -> Result<Box<dyn Driver>, DriverError> {
        Ok(Box::new(Card::new(facts.clone(), Arc::clone(&shared))))
    };
    (DriverFactory::new(make), tally)
}

fn said(error: impl std::fmt::Display) -> DriverError {
    DriverError(error.to_string())
}

impl Card {
    fn new(facts: Facts, tally: Arc<Mutex<Tally>>) -> Self {
        Self {
            facts,
            taken: 0,
            memory: ptx_sim::Memory::new(),
            modules: Vec::new(),
            kernels: Vec::new(),
            graphs: Vec::new(),
            tally,
        }
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), DriverError> {
        if launch.is_empty() {
            return Ok(());
        }
        let (module, symbol) = &self.kernels[launch.kernel.0 as usize];
        let launch = ptx_sim::Launch {
            kernel: symbol,
            grid: launch.grid,
            block: [launch.threads, 1, 1],
            dynamic_shared: launch.shared,
            params: &launch.parameters,
        };
        let counts = ptx_sim::run(&self.modules[*module], &mut self.memory, &launch, &Options::default());
        self.tally.lock().expect("no test panics while it holds it").counts += counts.map_err(said)?;
        Ok(())
    }
}

impl Driver for Card {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&mut self) -> Result<Memory, DriverError> {
        Ok(Memory { free: BYTES - self.taken, total: BYTES })
    }

    fn load(&mut self, image: Image<'_>) -> Result<Loaded, DriverError> {
        let Image::Ptx(text) = image else {
            return Err(DriverError("the simulator runs PTX only".to_owned()));
        };
        self.modules.push(Module::parse(text).map_err(said)?);
        Ok(Loaded { module: ModuleId(self.modules.len() as u32 - 1), compiled: None })
    }

    fn kernel(&mut self, module: ModuleId, kernel: KernelUse<'_>) -> Result<KernelId, DriverError> {
        let module = module.0 as usize;
        if self.modules[module].kernel(kernel.symbol).is_none() {
            return Err(DriverError(format!("there is no kernel `{}`", kernel.symbol)));
        }
        self.kernels.push((module, kernel.symbol.to_owned()));
        Ok(KernelId(self.kernels.len() as u32 - 1))
    }

    fn alloc(&mut self, bytes: u64) -> Result<Address, DriverError> {
        self.taken += bytes;
        Ok(Address(self.memory.alloc(bytes)))
    }

    fn free(&mut self, address: Address) -> Result<(), DriverError> {
        self.memory.free(address.0);
        Ok(())
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), DriverError> {
        self.memory.write(to.0, bytes).map_err(said)
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DriverError> {
        self.memory.read(from.0, bytes).map_err(said)
    }

    fn zero(&mut self, at: Address, bytes: u64) -> Result<(), DriverError> {
        self.memory.write(at.0, &vec![0; bytes as usize]).map_err(said)
    }

    fn tensor_map(&mut self, matrix: &Matrix) -> Result<TensorMapBytes, DriverError> {
        if self.facts.capability < (9, 0) {
            return Err(DriverError("the card has no tensor memory accelerator".to_owned()));
        }
        matrix_map(matrix)
    }

    fn run(&mut self, launches: &[Launch]) -> Result<(), DriverError> {
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    fn record(&mut self, launches: &[Launch]) -> Result<GraphId, DriverError> {
        self.tally.lock().expect("no test panics while it holds it").recorded += 1;
        self.graphs.push(launches.to_vec());
        Ok(GraphId(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), DriverError> {
        self.tally.lock().expect("no test panics while it holds it").replayed += 1;
        let launches = self.graphs[graph.0 as usize].clone();
        self.run(&launches)
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<Duration>, DriverError> {
        self.run(launches)?;
        Ok(vec![Duration::ZERO; launches.len()])
    }

    fn synchronize(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn measure_bandwidth(&mut self) -> Option<f64> {
        None
    }
}

/// The tensor map of a matrix.
///
/// # Errors
/// Where hardware would refuse it.
pub fn matrix_map(matrix: &Matrix) -> Result<TensorMapBytes, DriverError> {
    let dtype = match matrix.dtype {
        Dtype::Bf16 => DataType::Bf16,
        Dtype::F32 => DataType::F32,
        other => return Err(DriverError(format!("no kernel reads boxes of {other}"))),
    };
    let swizzle = match matrix.swizzle {
        0 => Swizzle::None,
        32 => Swizzle::B32,
        64 => Swizzle::B64,
        128 => Swizzle::B128,
        other => return Err(DriverError(format!("there is no swizzle over {other} bytes"))),
    };
    let spec = TensorSpec {
        dtype,
        rank: 2,
        address: matrix.address.0,
        dims: [matrix.columns, matrix.rows, 1, 1, 1],
        strides: [matrix.row_bytes, 0, 0, 0],
        box_dims: [matrix.box_columns, matrix.box_rows, 1, 1, 1],
        element_strides: [1; 5],
        swizzle,
        fill: OobFill::Zero,
    };
    tma_map::TensorMap::new(spec).map(|map| map.encode()).map_err(said)
}
