//! The GPU's memory: what there must be room for, and where it is.

use std::fmt;

use nemo_ir::plan::{Plan, StateUnit};

use super::GpuError;
use super::driver::{ALIGN, Driver};
use super::inputs::Inputs;
use super::launches::Addresses;
use super::random;
use crate::device::human_bytes;
use crate::device::sizes::{Sizes, total};
use crate::step::Bounds;
use crate::weights::stream::Supply;

/// What a model takes and the GPU does not have, as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFit {
    rows: Vec<(&'static str, u64)>,
    free: u64,
}

impl NoFit {
    fn needed(&self) -> u64 {
        self.rows.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl std::error::Error for NoFit {}

impl fmt::Display for NoFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the GPU has not enough free memory; lower --max-context or --max-seqs")?;
        for (what, bytes) in self.rows.iter().chain(&[("needed", self.needed()), ("free", self.free)]) {
            write!(f, "\n  {what:<20} {:>10}", human_bytes(*bytes))?;
        }
        Ok(())
    }
}

/// Refuses what does not fit, before anything is taken.
///
/// # Errors
/// [`NoFit`] with what takes how much.
pub(super) fn check(plan: &Plan, sizes: &Sizes, free: u64) -> Result<(), NoFit> {
    let all = |bytes: &[u64]| total(&bytes.iter().map(|bytes| aligned(*bytes)).collect::<Vec<_>>());
    let of = |unit| {
        let states = plan.states.iter().zip(&sizes.states).filter(|(state, _)| state.per == unit);
        all(&states.map(|(_, bytes)| *bytes).collect::<Vec<_>>())
    };
    let rows = vec![
        ("weights", all(&sizes.weights)),
        ("KV pages", of(StateUnit::Page)),
        ("slots", of(StateUnit::Slot)),
        ("arena and workspace", all(&[sizes.arena, sizes.counters, sizes.partials])),
        ("logits", all(&[sizes.logits, sizes.next])),
        ("tables and inputs", total(&[all(&sizes.tables), all(&sizes.inputs)])),
    ];
    let wanted = NoFit { rows, free };
    if wanted.needed() <= free { Ok(()) } else { Err(wanted) }
}

fn aligned(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
}

/// Takes the memory, uploads or makes weights, uploads tables, and zeros the rest.
///
/// # Errors
/// [`GpuError`] when the driver refuses.
pub(super) fn place(
    driver: &mut dyn Driver,
    plan: &Plan,
    (sizes, inputs): (&Sizes, &Inputs),
    weights: &Supply<'_>,
    bounds: &Bounds,
) -> Result<Addresses, GpuError> {
    let rest = [inputs.bytes(), sizes.arena, sizes.logits, sizes.next, sizes.counters, sizes.partials];
    let lists = [&sizes.weights[..], &sizes.states, &sizes.tables, &rest];
    let mut places = driver.alloc_all(&lists.concat())?.into_iter();
    let mut take = |list: &[u64]| places.by_ref().take(list.len()).collect::<Vec<_>>();
    let [weights_at, states, tables, rest] = lists.map(&mut take);
    let mut addresses = Addresses {
        weights: weights_at,
        states,
        tables,
        inputs: Vec::new(),
        staged: rest[0],
        arena: rest[1],
        logits: rest[2],
        next: rest[3],
        counters: rest[4],
        partials: rest[5],
    };
    let first = addresses.staged;
    addresses.inputs = inputs.offsets().map(|offset| first.offset(offset)).collect();
    // Kernels lower their counters again, and a state is read before it is written only by those who mask what they
    // read: masked numbers must be numbers, too.
    for (address, bytes) in addresses.states.iter().zip(&sizes.states) {
        driver.zero(*address, *bytes)?;
    }
    for (address, bytes) in [
        (addresses.arena, sizes.arena),
        (addresses.counters, sizes.counters),
        (addresses.partials, sizes.partials),
        (first, inputs.bytes()),
    ] {
        if bytes > 0 {
            driver.zero(address, bytes)?;
        }
    }
    for (address, table) in addresses.tables.iter().zip(&plan.tables) {
        driver.upload(*address, bytemuck::cast_slice(&table.rows(bounds.max_context)))?;
    }
    match weights {
        Supply::Stored(stream) => stream.each_piece(|weight, offset, bytes| {
            driver.upload(addresses.weights[weight].offset(offset), bytes)
        })?,
        Supply::Random { seed } => random::make(driver, &plan.weights, *seed, &addresses.weights)?,
    }
    driver.synchronize()?;
    Ok(addresses)
}
