//! A GPU that is none: its memory is the host's, its kernels are the toy's, and it notes what it is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nemort::device::choice::DeviceChoice;
use nemort::device::gpu::driver::{
    Address, Compiled, Driver, DriverError, DriverFactory, Facts, GraphId, Image, KernelId, KernelUse,
    Launch, Loaded, Matrix, Memory, ModuleId, TensorMapBytes,
};

/// What the fake GPU was asked, as far as tests look.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    Ptx,
    Cubin,
    Kernel(String, u32, u32),
    Upload(Address, usize),
    Download(Address, usize),
    TensorMap(Matrix),
    Run(usize),
    Record(GraphId, usize),
    Replay(GraphId),
    Time(usize),
}

/// How a fake GPU is made.
#[derive(Debug, Clone)]
pub struct Setup {
    pub facts: Facts,
    pub free: u64,
    /// What the driver says to machine code, if it does not take it.
    pub cubin: Result<(), DriverError>,
    /// Why what is compiled of PTX cannot be kept, if it cannot.
    pub not_kept: Option<String>,
    /// What a download says, if it fails.
    pub download: Result<(), DriverError>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            facts: Facts { name: "Fake".to_owned(), capability: (8, 6), driver: 535 },
            free: 1 << 30,
            cubin: Ok(()),
            not_kept: None,
            download: Ok(()),
        }
    }
}

/// What a fake GPU holds.
#[derive(Debug)]
pub struct State {
    pub setup: Setup,
    pub asked: Vec<Asked>,
    /// Launches of the latest run, recording or timing.
    pub launches: Vec<Launch>,
    kernels: Vec<String>,
    graphs: Vec<Vec<Launch>>,
    memory: BTreeMap<u64, Vec<u8>>,
}

/// A fake GPU that tests look into.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Mutex<State>>);

/// The driver of a fake GPU.
#[derive(Debug)]
struct FakeDriver {
    facts: Facts,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn new(setup: Setup) -> Self {
        let (asked, launches, kernels) = (Vec::new(), Vec::new(), Vec::new());
        let (graphs, memory) = (Vec::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { setup, asked, launches, kernels, graphs, memory })))
    }

    /// What makes engines run on it.
    pub fn device(&self) -> DeviceChoice {
        let state = Arc::clone(&self.0);
        DeviceChoice::Driver(DriverFactory::new(move || {
            let facts = state.lock().unwrap().setup.facts.clone();
            Ok(Box::new(FakeDriver { facts, state: Arc::clone(&state) }))
        }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

impl State {
    /// The bytes that begin at an address.
    pub fn bytes(&mut self, Address(at): Address, len: usize) -> &mut [u8] {
        let (start, bytes) = self.memory.range_mut(..=at).next_back().expect("no memory there");
        let offset = (at - start) as usize;
        &mut bytes[offset..offset + len]
    }

    pub fn i32(&mut self, at: Address, index: i32) -> i32 {
        i32::from_le_bytes(self.bytes(at.offset(index as u64 * 4), 4).try_into().unwrap())
    }

    fn f32(&mut self, at: Address, index: i32) -> f32 {
        f32::from_bits(self.i32(at, index) as u32)
    }

    fn set(&mut self, at: Address, index: i32, bits: u32) {
        self.bytes(at.offset(index as u64 * 4), 4).copy_from_slice(&bits.to_le_bytes());
    }

    fn set_f32(&mut self, at: Address, index: i32, value: f32) {
        self.set(at, index, value.to_bits());
    }

    fn run_all(&mut self, launches: &[Launch]) {
        for launch in launches.iter().filter(|launch| !launch.is_empty()) {
            self.execute(launch);
        }
    }

    /// The toy's kernels, from their parameter blocks alone.
    fn execute(&mut self, launch: &Launch) {
        let symbol = self.kernels[launch.kernel.0 as usize].clone();
        if symbol == "nemort_random" {
            // Tests look at its parameters; what is in the memory is as random as anything.
            return;
        }
        let count = match symbol.as_str() {
            "toy_embed" => 4,
            "toy_scan" => 7,
            "toy_cache" => 6,
            "toy_head" => 3,
            "toy_sample" => 5,
            other => panic!("no kernel {other}"),
        };
        let words = launch.parameters.as_chunks::<8>().0;
        let a: Vec<_> = words.iter().map(|word| Address(u64::from_le_bytes(*word))).collect();
        let dims = &launch.parameters[(count + 2) * 8..];
        let dims = dims.as_chunks::<4>().0;
        let [tokens, seqs, rows, pages] = std::array::from_fn(|n| i32::from_le_bytes(dims[n]));
        match symbol.as_str() {
            "toy_embed" => {
                for t in 0..tokens {
                    let token = self.i32(a[2], t);
                    // A negative token embeds as zeros.
                    let value = if token < 0 {
                        0.0
                    } else {
                        let half = self.bytes(a[0].offset(token as u64 * 4), 2).try_into().unwrap();
                        half::bf16::from_le_bytes(half).to_f32() * self.f32(a[1], 0)
                    };
                    self.set_f32(a[3], t, value);
                }
            }
            "toy_scan" => {
                for r in 0..seqs {
                    let (from, to) = (self.i32(a[2], r), self.i32(a[2], r + 1));
                    let (read, written) = (self.i32(a[3], r), self.i32(a[4], r));
                    let mut sum = if read < 0 { 0.0 } else { self.f32(a[1], read * 3 + 1) };
                    for t in from..to {
                        sum += self.f32(a[0], t) * self.f32(a[5], 0);
                        self.set_f32(a[6], t, sum);
                    }
                    if written >= 0 {
                        self.set_f32(a[1], written * 3 + 1, sum);
                    }
                }
            }
            "toy_cache" => {
                for r in 0..seqs {
                    let (from, to, context) = (self.i32(a[1], r), self.i32(a[1], r + 1), self.i32(a[2], r));
                    for t in from..to {
                        let at = context + t - from;
                        let page = |state: &mut Self, at: i32| state.i32(a[3], r * pages + at / 64);
                        let own = page(self, at);
                        if own < 0 {
                            continue;
                        }
                        let value = (self.i32(a[0], t) * (at + 1)) as f32;
                        self.set_f32(a[4], own * 64 + at % 64, value);
                        for past in 0..=at {
                            let page = page(self, past);
                            let sum = self.f32(a[5], t) + self.f32(a[4], page * 64 + past % 64);
                            self.set_f32(a[5], t, sum);
                        }
                    }
                }
            }
            "toy_head" => {
                for l in 0..rows {
                    let row = self.i32(a[1], l);
                    let wanted = self.f32(a[0], row) as i32 % 16;
                    for v in 0..16 {
                        self.set_f32(a[2], l * 16 + v, -((v - wanted) * (v - wanted)) as f32);
                    }
                }
            }
            _ => {
                for r in 0..seqs {
                    self.set(a[4], r, -1_i32 as u32);
                    for l in 0..rows {
                        if self.i32(a[1], l) != self.i32(a[2], r + 1) - 1 {
                            continue;
                        }
                        let logit = |state: &mut Self, v| state.f32(a[0], l * 16 + v);
                        let mut best = 0;
                        for v in 1..16 {
                            if logit(self, v) > logit(self, best) {
                                best = v;
                            }
                        }
                        let forced = self.i32(a[3], r);
                        self.set(a[4], r, if forced >= 0 { forced } else { best } as u32);
                    }
                }
            }
        }
    }
}

impl FakeDriver {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn ask(&self, what: Asked) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.asked.push(what);
        state
    }
}

impl Driver for FakeDriver {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&mut self) -> Result<Memory, DriverError> {
        let free = self.state().setup.free;
        Ok(Memory { free, total: free })
    }

    fn load(&mut self, image: Image<'_>) -> Result<Loaded, DriverError> {
        match image {
            Image::Ptx(_) => {
                let not_kept = self.ask(Asked::Ptx).setup.not_kept.clone();
                let compiled = Compiled { took: Duration::from_millis(1500), not_kept };
                Ok(Loaded { module: ModuleId(0), compiled: Some(compiled) })
            }
            Image::Cubin(_) => {
                let taken = self.ask(Asked::Cubin).setup.cubin.clone();
                taken.map(|()| Loaded { module: ModuleId(1), compiled: None })
            }
        }
    }

    fn kernel(&mut self, _: ModuleId, kernel: KernelUse<'_>) -> Result<KernelId, DriverError> {
        let KernelUse { symbol, threads, shared } = kernel;
        let mut state = self.ask(Asked::Kernel(symbol.to_owned(), threads, shared));
        state.kernels.push(symbol.to_owned());
        Ok(KernelId(state.kernels.len() as u32 - 1))
    }

    fn alloc(&mut self, bytes: u64) -> Result<Address, DriverError> {
        let mut state = self.state();
        // Nothing follows anything at once, so that a stray access is found.
        let after = state.memory.last_key_value().map_or(4096, |(at, bytes)| at + bytes.len() as u64 + 1);
        let at = after.next_multiple_of(256) + 256;
        // Whatever was there before.
        state.memory.insert(at, vec![0xAB; bytes as usize]);
        Ok(Address(at))
    }

    fn free(&mut self, address: Address) -> Result<(), DriverError> {
        let freed = self.state().memory.remove(&address.0);
        freed.map(|_| ()).ok_or_else(|| DriverError("never taken".to_owned()))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), DriverError> {
        self.ask(Asked::Upload(to, bytes.len())).bytes(to, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DriverError> {
        let mut state = self.ask(Asked::Download(from, bytes.len()));
        state.setup.download.clone()?;
        bytes.copy_from_slice(state.bytes(from, bytes.len()));
        Ok(())
    }

    fn zero(&mut self, at: Address, bytes: u64) -> Result<(), DriverError> {
        self.state().bytes(at, bytes as usize).fill(0);
        Ok(())
    }

    /// The matrix in words, so that tests find it among the parameters.
    fn tensor_map(&mut self, matrix: &Matrix) -> Result<TensorMapBytes, DriverError> {
        drop(self.ask(Asked::TensorMap(*matrix)));
        let mut bytes = [0; 128];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([matrix.address.0, matrix.rows]) {
            *to = word.to_le_bytes();
        }
        Ok(bytes)
    }

    fn run(&mut self, launches: &[Launch]) -> Result<(), DriverError> {
        let mut state = self.ask(Asked::Run(launches.len()));
        state.launches = launches.to_vec();
        state.run_all(launches);
        Ok(())
    }

    fn record(&mut self, launches: &[Launch]) -> Result<GraphId, DriverError> {
        let mut state = self.state();
        let graph = GraphId(state.graphs.len() as u32);
        state.graphs.push(launches.to_vec());
        state.launches = launches.to_vec();
        state.asked.push(Asked::Record(graph, launches.len()));
        Ok(graph)
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), DriverError> {
        let mut state = self.ask(Asked::Replay(graph));
        let launches = state.graphs[graph.0 as usize].clone();
        state.run_all(&launches);
        Ok(())
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<Duration>, DriverError> {
        let mut state = self.ask(Asked::Time(launches.len()));
        state.launches = launches.to_vec();
        state.run_all(launches);
        Ok((0..launches.len()).map(|n| Duration::from_micros(n as u64 + 1)).collect())
    }

    fn synchronize(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn measure_bandwidth(&mut self) -> Option<f64> {
        Some(1e9)
    }
}
