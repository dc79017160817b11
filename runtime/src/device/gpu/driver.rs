//! What a GPU's driver gives: memory, modules of kernels, launches in order.
//!
//! The device is written on this trait alone, so that whatever keeps to it can stand for a GPU.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nemo_ir::types::Dtype;
use thiserror::Error;

/// What a driver said against something, as a sentence without its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DriverError(pub String);

/// What is known of a GPU before anything runs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name, for people.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Branch of the driver (`535`); it decides which versions of PTX are understood.
    pub driver: u32,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, capability: (major, minor), driver } = self;
        write!(f, "{name}, compute capability {major}.{minor}, driver {driver}")
    }
}

/// Bytes of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Not taken by anybody.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// An address in the GPU's memory; 0 is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub u64);

impl Address {
    /// The address `bytes` further.
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// A module that the driver has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleId(pub u32);

/// A kernel of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelId(pub u32);

/// Launches that were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(pub u32);

/// Kernels as the driver is given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image<'a> {
    /// PTX, which the driver compiles.
    Ptx(&'a str),
    /// Machine code of the GPU's own architecture.
    Cubin(&'a [u8]),
}

/// Whatever a GPU holds begins at a multiple of so many bytes.
pub const ALIGN: u64 = 256;

/// A module, and what it took to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The module.
    pub module: ModuleId,
    /// How PTX was compiled; `None` where nothing was compiled now.
    pub compiled: Option<Compiled>,
}

/// What came of compiling PTX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// How long it took.
    pub took: Duration,
    /// Why the machine code is not kept for the next time, where it cannot be.
    pub not_kept: Option<String>,
}

/// A kernel as it is to be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelUse<'a> {
    /// Its symbol.
    pub symbol: &'a str,
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA; above 48 KiB a driver has to be told before the launch.
    pub shared: u32,
}

/// One launch with everything that it needs.
///
/// A grid with an extent of 0 is a launch that does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: KernelId,
    /// CTAs along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a CTA.
    pub shared: u32,
    /// The kernel's parameters as one block of bytes, each at its own alignment: what the kernel sees as its
    /// parameter space.
    pub parameters: Vec<u8>,
}

impl Launch {
    /// Whether there is no CTA.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

/// A matrix in the GPU's memory that kernels read in boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Its first element.
    pub address: Address,
    /// Element type.
    pub dtype: Dtype,
    /// Rows that exist; a read past them gives zeros.
    pub rows: u64,
    /// Elements of a row; a read past them gives zeros.
    pub columns: u64,
    /// Bytes from row to row.
    pub row_bytes: u64,
    /// Rows of a box.
    pub box_rows: u32,
    /// Columns of a box.
    pub box_columns: u32,
    /// The span in bytes within which 16-byte pieces are permuted: 32, 64 or 128, or 0 for none.
    pub swizzle: u32,
}

/// A tensor map as kernels take it.
pub type TensorMapBytes = [u8; 128];

/// A GPU, and everything on it that belongs to one model.
///
/// All work is in order: what is called first has happened before what is called next, as far as anybody can see.
/// Calls other than [`Driver::download`], [`Driver::synchronize`] and the measuring ones need not wait for it.
/// Dropping a driver gives back all that was taken through it.
pub trait Driver: Send + fmt::Debug {
    /// What it is.
    fn facts(&self) -> &Facts;

    /// How much memory there is, and is left.
    ///
    /// # Errors
    /// What the driver says.
    fn memory(&mut self) -> Result<Memory, DriverError>;

    /// Loads kernels.
    ///
    /// # Errors
    /// What the driver says of the image, with its log where there is one.
    fn load(&mut self, image: Image<'_>) -> Result<Loaded, DriverError>;

    /// Finds a kernel and prepares it for its launches.
    ///
    /// # Errors
    /// Where there is none of this name, or the GPU has not as many threads or as much shared memory.
    fn kernel(&mut self, module: ModuleId, kernel: KernelUse<'_>) -> Result<KernelId, DriverError>;

    /// Takes memory, aligned to 256 bytes; what it holds is anything.
    ///
    /// # Errors
    /// Where there is not so much.
    fn alloc(&mut self, bytes: u64) -> Result<Address, DriverError>;

    /// Takes several pieces of memory that are kept as long as the driver, each aligned to 256 bytes. As one piece, where
    /// the driver would round each one up.
    ///
    /// # Errors
    /// Where there is not so much.
    fn alloc_all(&mut self, sizes: &[u64]) -> Result<Vec<Address>, DriverError> {
        sizes.iter().map(|bytes| self.alloc(*bytes)).collect()
    }

    /// Gives back what [`Driver::alloc`] gave.
    ///
    /// # Errors
    /// Where it was not taken.
    fn free(&mut self, address: Address) -> Result<(), DriverError>;

    /// Copies bytes to the GPU; they may change when the call is over.
    ///
    /// # Errors
    /// What the driver says.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), DriverError>;

    /// Copies bytes from the GPU, after all work before.
    ///
    /// # Errors
    /// What the driver says; an error of earlier work is found here at the latest.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DriverError>;

    /// Fills memory with zeros.
    ///
    /// # Errors
    /// What the driver says.
    fn zero(&mut self, at: Address, bytes: u64) -> Result<(), DriverError>;

    /// Describes a matrix for the tensor memory accelerator.
    ///
    /// # Errors
    /// Where the GPU has none, or cannot read such a matrix.
    fn tensor_map(&mut self, matrix: &Matrix) -> Result<TensorMapBytes, DriverError>;

    /// Runs launches, one after the other.
    ///
    /// # Errors
    /// What the driver says.
    fn run(&mut self, launches: &[Launch]) -> Result<(), DriverError>;

    /// Records launches with their parameters as they are now; nothing runs.
    ///
    /// # Errors
    /// What the driver says.
    fn record(&mut self, launches: &[Launch]) -> Result<GraphId, DriverError>;

    /// Runs what was recorded.
    ///
    /// # Errors
    /// What the driver says.
    fn replay(&mut self, graph: GraphId) -> Result<(), DriverError>;

    /// Runs launches as [`Driver::run`] does and says how long each took.
    ///
    /// # Errors
    /// What the driver says.
    fn time(&mut self, launches: &[Launch]) -> Result<Vec<Duration>, DriverError>;

    /// Waits for all work.
    ///
    /// # Errors
    /// Those of the work.
    fn synchronize(&mut self) -> Result<(), DriverError>;

    /// Bytes a second that a copy within the GPU's memory reads and writes together, measured now; `None` where it
    /// cannot be measured.
    fn measure_bandwidth(&mut self) -> Option<f64>;

    /// Floating-point operations a second of products between registers, measured now; `None` where it cannot be
    /// measured.
    fn measure_products(&mut self) -> Option<f64> {
        None
    }
}

/// Something that makes drivers: an engine takes one of its own.
#[derive(Clone)]
pub struct DriverFactory(Arc<Make>);

type Make = dyn Fn() -> Result<Box<dyn Driver>, DriverError> + Send + Sync;

impl DriverFactory {
    /// A factory that calls `make` for each engine.
    pub fn new(make: impl Fn() -> Result<Box<dyn Driver>, DriverError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// A new driver.
    ///
    /// # Errors
    /// Those of the function that makes it.
    pub fn make(&self) -> Result<Box<dyn Driver>, DriverError> {
        (self.0)()
    }
}

impl fmt::Debug for DriverFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DriverFactory")
    }
}
