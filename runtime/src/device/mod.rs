//! Devices: what runs an artifact's kernels. One trait; `host` always exists, a GPU is found at run time.

pub mod choice;
pub mod cuda;
pub mod gpu;
pub mod host;
mod profile;
mod sizes;

use std::ops::RangeInclusive;
use std::time::Duration;

use nemo_ir::plan::Phase;
use thiserror::Error;

use crate::step::CheckedStep;

/// Something that holds a model and runs its steps. Only the engine has one: what it asks of a caller
/// (a plan that was validated, the weights of that plan) is not for everyone to promise.
pub(crate) trait Device: Send + std::fmt::Debug {
    /// What it is, for people.
    fn describe(&self) -> String;

    /// Runs one step that was checked against this device's own bounds.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing has run then, unless it is a driver's: after that what the device holds is anything.
    fn run(&mut self, step: &CheckedStep<'_>) -> Result<(), DeviceError>;

    /// The first `rows` rows of the last step's logits; they are brought from the device when they are asked for.
    ///
    /// # Errors
    /// [`DeviceError`] when they cannot be brought.
    fn logits(&mut self, rows: usize) -> Result<&[f32], DeviceError>;

    /// The last step's tokens, one a sequence.
    fn next(&self, seqs: usize) -> &[i32];

    /// What it has taken.
    fn memory(&self) -> MemoryUse;

    /// Bytes a second that a plain stream over a large buffer moves, measured now; `None` where that cannot be.
    fn read_bandwidth(&mut self) -> Option<f64>;

    /// Floating-point operations a second that dot products between registers reach, measured now, in the
    /// dtype of the device's fastest product of bf16; `None` where that cannot be measured.
    fn product_peak(&mut self) -> Option<f64>;

    /// Time of each kernel of each block since the last call; empty unless the device was told to profile.
    fn take_profile(&mut self) -> Vec<LaunchTime>;
}

/// Why a device could not run a step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// A step of another engine.
    #[error("the step was checked against the bounds of another engine")]
    OtherBounds,
    /// A step that no program of the plan serves.
    #[error("the artifact has no {} program", .0.name())]
    NoProgram(Phase),
    /// A caller with a small stack, and no thread with a larger one.
    #[error("cannot start a thread with the stack that kernels need: {0}")]
    Stack(String),
    /// What a GPU's driver said.
    #[error("the GPU failed: {0}")]
    Driver(#[from] gpu::driver::DriverError),
}

/// Whether a device times each launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profiling {
    /// No: nothing is recorded.
    #[default]
    Off,
    /// After each launch the time is taken.
    EachLaunch,
}

/// Bytes that a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Weights, mapped or converted.
    pub weights: u64,
    /// KV pages and state slots.
    pub states: u64,
    /// The arena, step inputs, tables and results.
    pub buffers: u64,
}

/// How long a kernel took in all, in one block of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchTime {
    /// Phase of the program.
    pub phase: Phase,
    /// The values of T that the program serves.
    pub tokens: RangeInclusive<u64>,
    /// Name of the block.
    pub block: String,
    /// How often the block was called.
    pub calls: u64,
    /// The op that the kernel computes.
    pub op: String,
    /// The kernel's symbol.
    pub symbol: String,
    /// How often the kernel ran.
    pub count: u64,
    /// All of those together.
    pub total: Duration,
}

/// Bytes as people read them.
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=0xF_FFFF => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..=0x3FFF_FFFF => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
