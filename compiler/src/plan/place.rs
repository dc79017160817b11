//! Offsets in the arena.
//!
//! Values that cross calls lie at its start, each name at one offset for all blocks of a program. Behind them each
//! block places its own storages, the largest first, as low as those that live at the same time allow.

use std::collections::BTreeMap;

use super::ALIGNMENT;
use super::storage::{Storage, Storages};

/// Offsets of the storages of one block.
#[derive(Debug, Clone)]
pub(super) struct Offsets {
    /// By storage.
    pub(super) of: Vec<u64>,
    /// First byte that no storage has.
    pub(super) end: u64,
}

/// Offset of each name that crosses calls, and where the rest of the arena starts.
#[derive(Debug, Clone, Default)]
pub(super) struct Crossings {
    offsets: BTreeMap<String, u64>,
    /// `None` when it does not fit 64 bits.
    end: Option<u64>,
}

/// Reserves a place for every name that crosses calls in some block.
pub(super) fn crossings(blocks: &[Storages]) -> Crossings {
    let mut sizes: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for storage in blocks.iter().flat_map(|block| &block.list) {
        if let Some(name) = &storage.crossing {
            let size = sizes.entry(name.clone()).or_insert(Some(0));
            *size = size.zip(storage.bytes).map(|(a, b)| a.max(b));
        }
    }
    let mut crossings = Crossings { offsets: BTreeMap::new(), end: Some(0) };
    for (name, size) in sizes {
        crossings.offsets.insert(name, crossings.end.unwrap_or(u64::MAX));
        crossings.end = crossings.end.zip(size).and_then(|(end, size)| aligned(end.checked_add(size)?));
    }
    crossings
}

/// Places the storages of a block; `None` when an offset does not fit 64 bits.
pub(super) fn place(block: &Storages, crossings: &Crossings) -> Option<Offsets> {
    let base = crossings.end?;
    let mut offsets = Offsets { of: vec![0; block.list.len()], end: base };
    let mut own = Vec::new();
    for (index, storage) in block.list.iter().enumerate() {
        match &storage.crossing {
            Some(name) => offsets.of[index] = *crossings.offsets.get(name)?,
            None => own.push((index, storage, aligned(storage.bytes?)?)),
        }
    }
    own.sort_by_key(|(index, _, bytes)| (std::cmp::Reverse(*bytes), *index));
    let mut placed: Vec<(u64, u64, &Storage)> = Vec::with_capacity(own.len());
    for (index, storage, bytes) in own {
        let offset = lowest_gap(&placed, storage, bytes, base)?;
        let end = offset.checked_add(bytes)?;
        offsets.of[index] = offset;
        offsets.end = offsets.end.max(end);
        placed.push((offset, end, storage));
        placed.sort_by_key(|(offset, ..)| *offset);
    }
    Some(offsets)
}

/// The lowest offset from `base` at which `bytes` meet nothing that lives at the same time.
fn lowest_gap(placed: &[(u64, u64, &Storage)], storage: &Storage, bytes: u64, base: u64) -> Option<u64> {
    let mut offset = base;
    for (start, end, other) in placed {
        let together = storage.first <= other.last && other.first <= storage.last;
        if together && *start < offset.checked_add(bytes)? {
            offset = offset.max(*end);
        }
    }
    Some(offset)
}

fn aligned(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}
