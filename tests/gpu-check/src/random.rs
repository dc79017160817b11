//! Random weights: what a GPU makes of a seed is what a CPU makes of it, bit for bit.

use nemo_ir::plan::{Placement, Weight};
use nemo_ir::types::Dtype;
use nemort::device::gpu::driver::{Address, Driver, DriverError};
use nemort::device::gpu::random::make;
use nemort::weights::{Progress, Weights, WeightsSource};

use crate::run::Summary;

const SEED: u64 = 5;

/// Weights of every law and dtype; the first two take more than one piece, and more elements than threads.
fn weights() -> Vec<Weight> {
    let weight = |name: &str, shape: &[u64], placement| Weight {
        names: vec![name.to_owned()],
        shape: shape.to_vec(),
        placement,
    };
    vec![
        weight("a.in_proj.weight", &[(1 << 15) + 3, 65], Placement::InPlace(Dtype::Bf16)),
        weight("b.weight", &[(1 << 14) + 1, 65], Placement::InPlace(Dtype::F32)),
        weight("c.weight", &[9, 7], Placement::InPlace(Dtype::F16)),
        weight("a.A_log", &[300], Placement::WidenedToF32),
        weight("a.dt_bias", &[5], Placement::WidenedToF32),
        weight("a.conv1d.weight", &[1000, 1, 4], Placement::WidenedToF32),
        weight("a.conv1d.bias", &[33], Placement::WidenedToF32),
        weight("a.norm.weight", &[77], Placement::InPlace(Dtype::Bf16)),
        weight("scales", &[13], Placement::InPlace(Dtype::U8)),
    ]
}

/// A case a weight.
pub fn run(driver: &mut dyn Driver) -> Summary {
    let mut summary = Summary::default();
    let weights = weights();
    let source = WeightsSource::Random { seed: SEED };
    let wanted = match Weights::load(&source, &weights, 1, Progress::Silent) {
        Ok(wanted) => wanted,
        Err(error) => {
            summary.note("random weights", Err(error.to_string()));
            return summary;
        }
    };
    let mut addresses = Vec::new();
    let made = made(driver, &weights, &wanted, &mut addresses);
    for address in addresses {
        // A GPU that has failed says so again here, and the cases report it.
        let _ = driver.free(address);
    }
    match made {
        Ok(made) => {
            for (index, (weight, made)) in weights.iter().zip(made).enumerate() {
                let differs = made.iter().zip(wanted.bytes(index)).position(|(a, b)| a != b);
                let differs = differs.map(|at| format!("byte {at} is not the one that a CPU makes"));
                summary.note(&format!("random weights, {}", weight.names[0]), differs.map_or(Ok(()), Err));
            }
        }
        Err(error) => summary.note("random weights", Err(error.to_string())),
    }
    summary
}

/// The bytes that the GPU makes of each weight.
fn made(
    driver: &mut dyn Driver,
    weights: &[Weight],
    wanted: &Weights,
    addresses: &mut Vec<Address>,
) -> Result<Vec<Vec<u8>>, DriverError> {
    for index in 0..weights.len() {
        addresses.push(driver.alloc(wanted.bytes(index).len() as u64)?);
    }
    make(driver, weights, SEED, addresses)?;
    let mut made = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let mut bytes = vec![0; wanted.bytes(index).len()];
        driver.download(*address, &mut bytes)?;
        made.push(bytes);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::card;
    use nemort::device::gpu::driver::Facts;

    #[test]
    fn a_simulated_card_makes_the_weights_of_a_cpu() {
        let facts = Facts { name: "simulated".to_owned(), capability: (8, 6), driver: 525 };
        let (mut card, tally) = card(facts);
        let summary = run(card.as_mut());
        assert_eq!((summary.run, &summary.failed[..]), (weights().len(), &[][..]));
        let counts = &tally.lock().expect("nothing has panicked while it was held").counts;
        assert_eq!((counts.local_loads, counts.local_stores), (0, 0));
        // Whole warps store bytes that lie together.
        assert!(counts.global_stores.full_fraction() > 0.99, "{:?}", counts.global_stores);
    }
}
