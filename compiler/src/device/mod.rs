//! Facts about devices: what the cost model and `nemoc fit` know of the machine that will run a model.
//!
//! One TOML file per device in `compiler/devices/`, with where each number comes from; `nemoc calibrate` writes such
//! a file for the machine it runs on.
//!
//! ```
//! use nemoc::device::{Device, Kind};
//!
//! let device = Device::for_target("x86-64-v4+avx512bf16").unwrap();
//! assert_eq!((device.name.as_str(), device.kind), ("x86-64-v4", Kind::Cpu));
//! let again = Device::parse(&device.to_toml(), "mine.toml").unwrap();
//! assert_eq!(again, device);
//! ```

mod find;
mod memory;
pub(crate) mod print;
mod read;

use nemo_kernels::target::Sm;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use memory::machine_memory;

/// A device, as the cost model sees it. GB and GFLOP are 1e9; every number is finite and above 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// Name of a built-in device, or what a file says.
    pub name: String,
    /// The compile target that it runs, without features: `sm_86`, `sm_90`, `x86-64-v3` or `x86-64-v4`.
    pub target: String,
    /// What sort of machine it is.
    pub kind: Kind,
    /// Streaming multiprocessors, or cores.
    pub units: u64,
    /// Streaming reads of memory, in GB/s.
    pub bandwidth_gb_s: f64,
    /// Reads of the cache that all units share (L2 of a GPU, last level of a CPU), all units together, in GB/s.
    pub cache_bandwidth_gb_s: f64,
    /// Size of that cache, in bytes.
    pub cache_bytes: u64,
    /// Dot products and products of matrices with f32 accumulation, all units together, in GFLOP/s.
    pub products_gflop_s: Peak,
    /// Element-wise f32 arithmetic, all units together, in GFLOP/s; nothing is contracted to multiply-adds.
    pub vector_gflop_s: f64,
    /// One kernel of a captured graph, or one barrier between the kernels of the thread pool, in microseconds.
    pub launch_us: f64,
    /// Fast memory that one share of a kernel can have, in bytes: shared memory of a thread block, or stack.
    pub work_space_bytes: u64,
    /// 32-bit registers of a multiprocessor, or vector registers of a core. A fact for `nemoc targets`: kernels are made for
    /// what every device of their target has.
    pub registers: u64,
    /// Memory that a model can have, in bytes; `None` on a CPU for whatever the machine has.
    pub memory_bytes: Option<u64>,
    /// Share of the roofline that each family of kernels reaches.
    pub efficiency: Efficiency,
}

impl Device {
    /// The target of a GPU.
    pub fn sm(&self) -> Option<Sm> {
        Sm::ALL.into_iter().find(|sm| sm.name() == self.target)
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A GPU.
    Gpu,
    /// Cores of a CPU.
    Cpu,
}

impl Kind {
    /// `gpu` or `cpu`, as files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
        }
    }
}

/// Peak rates by the dtype of the factors, in GFLOP/s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peak {
    /// Factors in bf16.
    pub bf16: f64,
    /// Factors in f32.
    pub f32: f64,
}

/// Shares of the roofline, above 0 and at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Efficiency {
    /// Of the peak of products, by linear layers.
    pub products: f64,
    /// Of the peak of products, by the scan.
    pub scan: f64,
    /// Of the peak of products, by attention.
    pub attention: f64,
    /// Of the element-wise rate, by norms and activations.
    pub elementwise: f64,
    /// Of the bandwidth of memory, by all that streams.
    pub memory: f64,
    /// Of the bandwidth of the cache, by what one kernel leaves to the next, writing included.
    pub cache: f64,
}

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// Neither built in nor a file.
    #[error("there is no device `{name}`: it is no file and no built-in device; {hint}")]
    Unknown {
        /// The name as written.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// A file that cannot be read.
    #[error("cannot read device file `{file}`: {why}")]
    Unreadable {
        /// Its path.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A file that does not describe a device.
    #[error("device file `{file}`, line {line}: {what}")]
    Wrong {
        /// Its path.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong there, with the key.
        what: String,
    },
    /// `host` on a machine that no target is for.
    #[error("this machine is no device that code can be compiled for: {0}")]
    Host(#[from] nemo_kernels::target::TargetError),
}
