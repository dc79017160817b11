//! Sectors of global memory that a request touches.

use super::GlobalCounts;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 32;

/// The distinct sectors of one request, with the bytes used of each.
#[derive(Debug)]
pub(crate) struct Sectors {
    indices: [u64; 32],
    used: [u32; 32],
    count: usize,
    rising: bool,
}

impl Sectors {
    /// Sectors of lanes that access `bytes` each at aligned offsets, so that each stays within one sector.
    pub(crate) fn of(offsets: &[usize; 32], mask: u32, bytes: usize) -> Self {
        let mut sectors = Self { indices: [0; 32], used: [0; 32], count: 0, rising: true };
        let ones = if bytes >= 32 { u32::MAX } else { (1 << bytes) - 1 };
        for (lane, &offset) in offsets.iter().enumerate() {
            if mask >> lane & 1 == 1 {
                sectors.add((offset / SECTOR) as u64, ones << (offset % SECTOR));
            }
        }
        sectors
    }

    fn add(&mut self, index: u64, used: u32) {
        // The lane before mostly asks for the same sector; rising indices cannot have come up earlier.
        let known = match self.count {
            0 => None,
            count if self.indices[count - 1] == index => Some(count - 1),
            count if self.rising && self.indices[count - 1] < index => None,
            count => {
                self.rising = false;
                self.indices[..count].iter().position(|&other| other == index)
            }
        };
        let at = known.unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.indices[at] = index;
        self.used[at] |= used;
    }

    /// Their indices.
    pub(crate) fn indices(&self) -> &[u64] {
        &self.indices[..self.count]
    }

    /// Adds the request to the counts.
    pub(crate) fn count(&self, counts: &mut GlobalCounts, requested: u64) {
        let used = &self.used[..self.count];
        let distinct: u32 = used.iter().map(|bits| bits.count_ones()).sum();
        counts.requests += 1;
        counts.bytes += requested;
        counts.sectors += self.count as u64;
        counts.ideal_sectors += u64::from(distinct.div_ceil(SECTOR as u32));
        counts.full_sectors += used.iter().filter(|&&bits| bits == u32::MAX).count() as u64;
    }
}
