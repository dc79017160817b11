//! Global memory of the device.

use crate::check::ByteSet;
use crate::count::{AllocationCounts, Counts, SECTOR};
use crate::decode::{AddressOf, Module};
use crate::error::MemoryError;
use crate::layout::GLOBAL_START;
use std::collections::HashMap;

/// Bytes of a page of owners.
const PAGE: usize = 4096;
/// Bytes between allocations, at least.
const GUARD: u64 = 4096;

/// The allocations of a device. Several modules and launches may share one.
#[derive(Debug, Default)]
pub struct Memory {
    /// In the order of their addresses.
    allocations: Vec<Allocation>,
    next: u64,
    /// Addresses of the variables of each module that was run.
    variables: HashMap<u64, HashMap<usize, u64>>,
}

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: u64,
    pub bytes: Vec<u8>,
    pub written: ByteSet,
    loaded: Vec<u64>,
    stored: Vec<u64>,
    /// Which CTA of the launch wrote each byte: its linear index plus one. Pages come with the first write.
    owners: Vec<Option<Box<[u32]>>>,
}

impl Memory {
    /// Memory without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates bytes that nobody has written, and returns their address, a multiple of 256. At least 4096
    /// bytes that belong to nobody follow.
    pub fn alloc(&mut self, bytes: u64) -> u64 {
        let base = self.next.max(GLOBAL_START);
        self.next = (base + bytes + GUARD).next_multiple_of(256);
        let size = bytes as usize;
        self.allocations.push(Allocation {
            base,
            bytes: vec![0; size],
            written: ByteSet::new(size),
            loaded: Vec::new(),
            stored: Vec::new(),
            owners: Vec::new(),
        });
        base
    }

    /// Frees an allocation. Its addresses are not handed out again; an address that starts none is ignored.
    pub fn free(&mut self, address: u64) {
        self.allocations.retain(|allocation| allocation.base != address);
    }

    /// Writes bytes from the host.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (index, at) = self.locate(address, bytes.len())?;
        let allocation = &mut self.allocations[index];
        allocation.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        allocation.written.insert(at, bytes.len());
        Ok(())
    }

    /// Reads bytes to the host, written or not.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let (index, at) = self.locate(address, bytes.len())?;
        bytes.copy_from_slice(&self.allocations[index].bytes[at..at + bytes.len()]);
        Ok(())
    }

    /// Forgets that bytes were written, so that a kernel which reads them before writing is found.
    pub fn mark_unwritten(&mut self, address: u64, len: u64) -> Result<(), MemoryError> {
        let (index, at) = self.locate(address, len as usize)?;
        self.allocations[index].written.remove(at, len as usize);
        Ok(())
    }

    fn locate(&self, address: u64, length: usize) -> Result<(usize, usize), MemoryError> {
        self.find(address)
            .and_then(|index| {
                let allocation = &self.allocations[index];
                let at = (address - allocation.base) as usize;
                (at.checked_add(length)? <= allocation.bytes.len()).then_some((index, at))
            })
            .ok_or(MemoryError::OutOfBounds { address, bytes: length as u64 })
    }

    /// The last allocation that starts at or before an address.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<usize> {
        self.allocations.partition_point(|allocation| allocation.base <= address).checked_sub(1)
    }

    #[inline]
    pub(crate) fn allocation(&mut self, index: usize) -> &mut Allocation {
        &mut self.allocations[index]
    }

    /// Addresses of the variables of a module, which are allocated the first time.
    pub(crate) fn variables(&mut self, module: &Module) -> HashMap<usize, u64> {
        if let Some(places) = self.variables.get(&module.id) {
            return places.clone();
        }
        let places: HashMap<usize, u64> =
            module.globals.iter().map(|variable| (variable.id, self.alloc(variable.size))).collect();
        for variable in &module.globals {
            let mut bytes = variable.init.clone();
            for &(offset, what, addend) in &variable.addresses {
                let address = match what {
                    AddressOf::Global(id) => places[&id],
                    AddressOf::Constant(address) => address,
                };
                bytes[offset..offset + 8].copy_from_slice(&address.wrapping_add_signed(addend).to_le_bytes());
            }
            let index = self.find(places[&variable.id]).expect("the variable was just allocated");
            let allocation = &mut self.allocations[index];
            allocation.written.insert(0, bytes.len());
            allocation.bytes = bytes;
        }
        self.variables.insert(module.id, places.clone());
        places
    }

    /// Adds what a launch touched to its counts, and forgets it.
    pub(crate) fn finish_launch(&mut self, counts: &mut Counts) {
        for allocation in &mut self.allocations {
            allocation.owners.clear();
            let [loads, stores] = [&mut allocation.loaded, &mut allocation.stored]
                .map(|map| std::mem::take(map).iter().map(|word| u64::from(word.count_ones())).sum::<u64>());
            if loads + stores > 0 {
                counts.unique_load_sectors += loads;
                counts.unique_store_sectors += stores;
                let bytes = allocation.bytes.len() as u64;
                let touched = AllocationCounts { bytes, load_sectors: loads, store_sectors: stores };
                counts.per_allocation.insert(allocation.base, touched);
            }
        }
    }
}

impl Allocation {
    /// Notes sectors that were read.
    pub(crate) fn note_loads(&mut self, sectors: &[u64]) {
        note(&mut self.loaded, self.bytes.len(), sectors);
    }

    /// Notes sectors that were written.
    pub(crate) fn note_stores(&mut self, sectors: &[u64]) {
        note(&mut self.stored, self.bytes.len(), sectors);
    }

    /// Makes a CTA the owner of bytes; another CTA that owns one of them is returned with its offset.
    #[inline]
    pub(crate) fn own(&mut self, at: usize, bytes: usize, cta: u32) -> Option<(usize, u32)> {
        if self.owners.is_empty() {
            self.owners.resize(self.bytes.len().div_ceil(PAGE), None);
        }
        let mine = cta + 1;
        let end = at + bytes;
        let mut start = at;
        while start < end {
            let stop = end.min((start / PAGE + 1) * PAGE);
            let page = self.owners[start / PAGE].get_or_insert_with(|| vec![0; PAGE].into_boxed_slice());
            let owners = &mut page[start % PAGE..start % PAGE + (stop - start)];
            for (step, owner) in owners.iter_mut().enumerate() {
                if *owner != mine {
                    if *owner != 0 {
                        return Some((start + step, *owner - 1));
                    }
                    *owner = mine;
                }
            }
            start = stop;
        }
        None
    }
}

fn note(map: &mut Vec<u64>, bytes: usize, sectors: &[u64]) {
    if map.is_empty() {
        map.resize(bytes.div_ceil(SECTOR * 64), 0);
    }
    for &sector in sectors {
        map[sector as usize / 64] |= 1 << (sector % 64);
    }
}
