//! Who owns which state slot and which KV pages.

use nemo_ir::step::PAGE_TOKENS;

use crate::step::Bounds;

/// Free slots and pages of an engine; the last given back is the first given out, while it is warm.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<i32>,
    pages: Vec<i32>,
    pages_per_seq: usize,
    paged: bool,
}

/// A sequence's share of the cache.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its state slot.
    pub slot: i32,
    /// Its row of the block table; -1 is no page yet.
    pub pages: Vec<i32>,
}

impl Cache {
    /// Everything free.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            slots: (0..bounds.slots as i32).rev().collect(),
            pages: (0..bounds.pages as i32).rev().collect(),
            pages_per_seq: bounds.pages_per_seq as usize,
            paged: bounds.pages > 0,
        }
    }

    /// A slot and an empty block table; `None` while every slot is taken.
    pub fn lease(&mut self) -> Option<Lease> {
        let slot = self.slots.pop()?;
        Some(Lease { slot, pages: vec![-1; self.pages_per_seq] })
    }

    /// Gives a lease the pages for `tokens` tokens; whether there were enough.
    pub fn grow(&mut self, lease: &mut Lease, tokens: usize) -> bool {
        let needed = if self.paged { tokens.div_ceil(PAGE_TOKENS as usize) } else { 0 };
        for page in lease.pages.iter_mut().take(needed).filter(|page| **page == -1) {
            let Some(free) = self.pages.pop() else { return false };
            *page = free;
        }
        needed <= self.pages_per_seq
    }

    /// Takes a lease back.
    pub fn give_back(&mut self, lease: Lease) {
        self.slots.push(lease.slot);
        self.pages.extend(lease.pages.into_iter().rev().filter(|page| *page >= 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_pages_come_back() {
        let bounds = Bounds {
            vocab: 10,
            max_context: 128,
            tokens: 8,
            seqs: 2,
            decode_seqs: 2,
            slots: 2,
            pages: 4,
            pages_per_seq: 2,
        };
        let mut cache = Cache::new(&bounds);
        let (mut a, mut b) = (cache.lease().unwrap(), cache.lease().unwrap());
        assert_eq!(cache.lease(), None);
        assert!(cache.grow(&mut a, 65) && cache.grow(&mut b, 64));
        assert_eq!((a.slot, &a.pages[..]), (0, &[0, 1][..]));
        assert_eq!((b.slot, &b.pages[..]), (1, &[2, -1][..]));
        assert!(!cache.grow(&mut b, 129));
        cache.give_back(a);
        cache.give_back(b);
        let mut again = cache.lease().unwrap();
        assert!(cache.grow(&mut again, 128));
        assert_eq!(cache.pages.len(), 2);
    }
}
