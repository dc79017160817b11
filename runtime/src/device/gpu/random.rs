//! Random weights, made on the GPU: a large model's cross no bus.
//!
//! One block of random bytes, copied into all weights, would be as fast. But rows of a matrix and whole layers would
//! repeat, which makes logits of few values and products that cost less power than real ones, and what a model gives
//! could not be compared with a CPU. Here each element has a value of its own, the one that a CPU gives it.

use nemo_ir::plan::Weight;
use nemo_ir::types::Dtype;

use super::driver::{Address, Driver, DriverError, Image, KernelId, KernelUse, Launch};
use crate::weights::random::Recipe;

/// The module of the one kernel, written by hand: it says itself what it computes.
pub const PTX: &str = include_str!("random.ptx");

/// The kernel's symbol.
pub const KERNEL: &str = "nemort_random";

/// Threads of a CTA.
const THREADS: u32 = 256;

/// Most CTAs of a launch: enough to fill any GPU; threads take more than one element then.
const MOST_CTAS: u64 = 1 << 12;

/// Fills the memory of each weight with what `Weights::load` makes of the same seed, bit for bit.
///
/// # Errors
/// What the driver says.
pub fn make(
    driver: &mut dyn Driver,
    weights: &[Weight],
    seed: u64,
    addresses: &[Address],
) -> Result<(), DriverError> {
    let about = |DriverError(error)| DriverError(format!("random weights: {error}"));
    let module = driver.load(Image::Ptx(PTX)).map_err(about)?.module;
    let kernel = KernelUse { symbol: KERNEL, threads: THREADS, shared: 0 };
    let kernel = driver.kernel(module, kernel).map_err(about)?;
    let mut launches = Vec::new();
    for (index, (weight, address)) in weights.iter().zip(addresses).enumerate() {
        let recipe = Recipe::of(index, weight, seed);
        match kind(recipe.dtype) {
            Some(kind) => launches.push(launch(kernel, *address, &recipe, kind)),
            // Indices and bytes have no law; zero is always in range.
            None => driver.zero(*address, recipe.elements * recipe.dtype.bytes()).map_err(about)?,
        }
    }
    driver.run(&launches).map_err(about)
}

/// What the kernel calls a dtype; `None` for those that it does not make.
fn kind(dtype: Dtype) -> Option<u32> {
    match dtype {
        Dtype::F32 => Some(0),
        Dtype::Bf16 => Some(1),
        Dtype::F16 => Some(2),
        Dtype::I32 | Dtype::U8 => None,
    }
}

fn launch(kernel: KernelId, address: Address, recipe: &Recipe, kind: u32) -> Launch {
    let ctas = recipe.elements.div_ceil(u64::from(THREADS)).min(MOST_CTAS) as u32;
    let mut parameters = Vec::new();
    for word in [address.0, recipe.elements, recipe.seed] {
        parameters.extend(word.to_le_bytes());
    }
    for word in [recipe.law.low.to_bits(), recipe.law.span.to_bits(), recipe.log_piece, kind] {
        parameters.extend(word.to_le_bytes());
    }
    Launch { kernel, grid: [ctas, 1, 1], threads: THREADS, shared: 0, parameters }
}
