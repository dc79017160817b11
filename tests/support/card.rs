//! A simulated GPU behind the driver that `nemort` asks for: whole models run on it, with all checks of the simulator.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_kernels::nvptx;
use nemo_kernels::target::Sm;
use nemort::device::gpu::driver::{
    Address, Driver, DriverError, DriverFactory, Facts, GraphId, Image, KernelId, KernelUse, Launch, Loaded,
    Matrix, Memory, ModuleId, TensorMapBytes,
};
use ptx_sim::{Counts, Module, Options};

use crate::sim::matrix_map;

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

/// A factory of cards, and what they have done.
pub fn cards(sm: Sm) -> (DriverFactory, Arc<Mutex<Tally>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let shared = Arc::clone(&tally);
    let make = move || -> Result<Box<dyn Driver>, DriverError> {
        let needs = nvptx::needs(sm);
        let name = format!("simulated {}", sm.name());
        Ok(Box::new(Card {
            facts: Facts { name, capability: needs.capability, driver: needs.driver },
            taken: 0,
            memory: ptx_sim::Memory::new(),
            modules: Vec::new(),
            kernels: Vec::new(),
            graphs: Vec::new(),
            tally: Arc::clone(&shared),
        }))
    };
    (DriverFactory::new(make), tally)
}

fn said(error: impl std::fmt::Display) -> DriverError {
    DriverError(error.to_string())
}

impl Card {
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
        let Matrix { address, dtype, rows, columns, row_bytes, box_rows, box_columns, swizzle } = *matrix;
        matrix_map(dtype, address.0, [rows, columns], row_bytes, [box_rows, box_columns], swizzle)
            .map_err(said)
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
