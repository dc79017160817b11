//! Measures this machine for the cost model: bandwidth of memory and of the last-level cache, peaks of products,
//! element-wise arithmetic, and the cost of a barrier.
//!
//! Each figure is the median of several rounds in which all threads work at once; the file that comes out says
//! beside it how far the rounds were apart.

mod read;
mod team;
mod vectors;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZero;

use nemo_kernels::target::{Feature, HostTarget, Level, TargetError};
use thiserror::Error;

use crate::device::{Device, Peak, machine_memory, print};
use team::Rounds;

/// Memory to stream through: larger than caches by this factor, and at least so many bytes.
const CACHES: u64 = 8;
const STREAM_AT_LEAST: u64 = 256 << 20;

/// Bytes that a round reads out of the last-level cache.
const FROM_CACHE: u64 = 512 << 20;

/// Turns of the loops over products between registers: some hundredths of a second.
const PRODUCT_TURNS: u64 = 1 << 22;
/// Passes over a buffer in the first-level cache.
const VECTOR_PASSES: u64 = 1 << 14;
/// Barriers in a round.
const MEETINGS: u64 = 5_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The facts, as the cost model takes them.
    pub device: Device,
    /// The text of its device file, which says how each figure came about.
    pub toml: String,
}

/// Why nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalibrateError {
    /// A number of threads that makes no sense.
    #[error("--threads is {threads}; it must be 1 to {most}, as many as this process may run at once")]
    Threads {
        /// The number.
        threads: u64,
        /// The cores.
        most: u64,
    },
    /// A machine that no target is for.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A target without a built-in device to take the rest from: a mistake in the compiler.
    #[error("no built-in device runs {0}, which is a mistake in nemoc")]
    NoDevice(&'static str),
    /// Not enough memory to stream through, or no more threads.
    #[error("cannot measure with {threads} threads: {why}")]
    System {
        /// The threads that were wanted.
        threads: u64,
        /// What the system says.
        why: String,
    },
}

/// Measures this machine with some threads; `None` for as many as the process may run at once. Takes a second or two.
///
/// # Errors
/// [`CalibrateError`].
pub fn calibrate(threads: Option<u64>) -> Result<Calibration, CalibrateError> {
    let most = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let threads = threads.unwrap_or(most);
    if !(1..=most).contains(&threads) {
        return Err(CalibrateError::Threads { threads, most });
    }
    let target = HostTarget::detect()?;
    let level = target.level();
    let base = Device::for_target(level.name()).ok_or(CalibrateError::NoDevice(level.name()))?;
    let cache_bytes = read::last_level_cache().unwrap_or(base.cache_bytes);
    let measured = Measured::of(&target, threads, cache_bytes)
        .map_err(|error| CalibrateError::System { threads, why: error.to_string() })?;
    let device = Device {
        name: "calibrated".to_owned(),
        target: level.name().to_owned(),
        units: threads,
        bandwidth_gb_s: measured.memory.median(),
        cache_bandwidth_gb_s: measured.cache.median(),
        cache_bytes,
        products_gflop_s: Peak {
            bf16: measured.bf16.as_ref().unwrap_or(&measured.f32).median(),
            f32: measured.f32.median(),
        },
        vector_gflop_s: measured.vector.median(),
        launch_us: measured.barrier.median(),
        memory_bytes: machine_memory(),
        ..base
    };
    let toml = print::annotated(&device, &header(&target, threads), &measured.notes(level));
    Ok(Calibration { device, toml })
}

/// The rounds of every figure, in the unit of its key.
struct Measured {
    memory: Rounds,
    cache: Rounds,
    /// `None` where the machine has no such instruction.
    bf16: Option<Rounds>,
    f32: Rounds,
    vector: Rounds,
    barrier: Rounds,
}

impl Measured {
    fn of(target: &HostTarget, threads: u64, cache_bytes: u64) -> std::io::Result<Self> {
        let level = target.level();
        let giga = |work: u64| move |seconds: f64| work as f64 / seconds / 1e9;
        let stream =
            read::stream_bytes(cache_bytes.saturating_mul(CACHES).max(STREAM_AT_LEAST), machine_memory());
        // Half of the cache, so that what others keep there does not push it out.
        let resident = (cache_bytes / 2).max(1 << 20);
        let passes = FROM_CACHE.div_ceil(resident);
        let per_thread = |bytes: u64| read::words(bytes / threads);
        let memory = team::rounds(
            threads,
            || per_thread(stream),
            |words, _| _ = black_box(vectors::sum(level, words)),
        )?;
        let cache = team::rounds(
            threads,
            || per_thread(resident),
            |words, _| (0..passes).for_each(|_| _ = black_box(vectors::sum(level, black_box(words)))),
        )?;
        let f32 = team::rounds(threads, || (), |(), _| vectors::multiply_adds(level, PRODUCT_TURNS))?;
        let has_bf16 = target.has(Feature::Avx512Bf16);
        let bf16 = has_bf16.then(|| team::rounds(threads, || (), |(), _| vectors::dot_bf16(PRODUCT_TURNS)));
        let vector = team::rounds(
            threads,
            || vec![1.0; vectors::ELEMENTS],
            |values, _| (0..VECTOR_PASSES).for_each(|_| vectors::multiply_then_add(level, black_box(values))),
        )?;
        let barrier = team::rounds(threads, || (), |(), barrier| (0..MEETINGS).for_each(|_| barrier.wait()))?;
        let elements = vectors::ELEMENTS as u64;
        // What the threads really read: whole blocks of each one's share.
        let read = |bytes: u64| read::whole_blocks(bytes / threads) * 8 * threads;
        Ok(Self {
            memory: memory.map(giga(read(stream))),
            cache: cache.map(giga(read(resident) * passes)),
            bf16: bf16
                .transpose()?
                .map(|rounds| rounds.map(giga(threads * PRODUCT_TURNS * vectors::DOT_FLOP))),
            f32: f32.map(giga(threads * PRODUCT_TURNS * vectors::multiply_adds_flop(level))),
            vector: vector.map(giga(threads * VECTOR_PASSES * elements * 2)),
            barrier: barrier.map(|seconds| seconds * 1e6 / MEETINGS as f64),
        })
    }

    /// Where each figure of the file comes from, by key.
    fn notes(&self, level: Level) -> BTreeMap<&'static str, String> {
        let wide = match level {
            Level::V3 => "256-bit",
            Level::V4 => "512-bit",
        };
        let same = "this level's built-in device";
        let bf16 = match &self.bf16 {
            Some(rounds) => rounds.note("vdpbf16ps"),
            None => "no such instruction: as f32".to_owned(),
        };
        BTreeMap::from([
            ("units", "threads that were measured together".to_owned()),
            ("bandwidth_gb_s", self.memory.note("streaming reads")),
            ("cache_bandwidth_gb_s", self.cache.note("reads of half the cache")),
            ("cache_bytes", "last level, as the system reports it".to_owned()),
            ("products_gflop_s.bf16", bf16),
            ("products_gflop_s.f32", self.f32.note(&format!("{wide} multiply-adds"))),
            ("vector_gflop_s", self.vector.note("multiply, then add, in the first-level cache")),
            ("launch_us", self.barrier.note("a barrier between the threads")),
            ("work_space_bytes", same.to_owned()),
            ("registers", same.to_owned()),
            ("memory_bytes", "as the system reports it".to_owned()),
            ("efficiency.products", format!("all shares: {same}")),
        ])
    }
}

fn header(target: &HostTarget, threads: u64) -> String {
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    format!(
        "Written by `nemoc calibrate` with {threads} on a machine that is {target}.\n\
         Figures are medians of rounds in which all threads work; the range is that of the rounds, and a wide one\n\
         says that others used the machine."
    )
}
