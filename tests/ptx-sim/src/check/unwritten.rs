//! A set of bytes, one bit each.

use std::ops::Range;

/// Which bytes of a memory have a property, and how many have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByteSet {
    words: Vec<u64>,
    size: usize,
    count: usize,
}

/// Bits `from..from + length` of a word.
fn mask(from: usize, length: usize) -> u64 {
    let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    ones << from
}

impl ByteSet {
    /// None of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { words: vec![0; size.div_ceil(64)], size, count: 0 }
    }

    /// Takes all bytes out.
    pub(crate) fn clear(&mut self) {
        if self.count > 0 {
            self.words.fill(0);
            self.count = 0;
        }
    }

    /// Whether no byte is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether all bytes are in it.
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.size
    }

    /// Puts bytes in.
    pub(crate) fn insert(&mut self, at: usize, length: usize) {
        if self.is_full() {
            return;
        }
        self.each_word(at, length, |word, mask| {
            let new = mask & !*word;
            *word |= mask;
            new.count_ones() as isize
        });
    }

    /// Takes bytes out.
    pub(crate) fn remove(&mut self, at: usize, length: usize) {
        self.each_word(at, length, |word, mask| {
            let gone = mask & *word;
            *word &= !mask;
            -(gone.count_ones() as isize)
        });
    }

    fn each_word(&mut self, at: usize, length: usize, mut f: impl FnMut(&mut u64, u64) -> isize) {
        let (mut at, mut left) = (at, length);
        while left > 0 {
            let part = left.min(64 - at % 64);
            let change = f(&mut self.words[at / 64], mask(at % 64, part));
            self.count = self.count.wrapping_add_signed(change);
            at += part;
            left -= part;
        }
    }

    /// Whether all these bytes are in it.
    pub(crate) fn contains(&self, at: usize, length: usize) -> bool {
        if self.is_full() {
            return true;
        }
        self.every_word(at, length, |word, mask| word & mask == mask)
    }

    /// Those of these bytes that are not in it, as offsets from the first.
    pub(crate) fn missing(&self, at: usize, length: usize) -> Vec<Range<usize>> {
        if self.contains(at, length) {
            return Vec::new();
        }
        let mut missing: Vec<Range<usize>> = Vec::new();
        for byte in (0..length).filter(|byte| !self.contains(at + byte, 1)) {
            match missing.last_mut() {
                Some(last) if last.end == byte => last.end += 1,
                _ => missing.push(byte..byte + 1),
            }
        }
        missing
    }

    /// Whether one of these bytes is in it.
    pub(crate) fn meets(&self, at: usize, length: usize) -> bool {
        !self.is_empty() && !self.every_word(at, length, |word, mask| word & mask == 0)
    }

    fn every_word(&self, at: usize, length: usize, f: impl Fn(u64, u64) -> bool) -> bool {
        let (mut at, mut left) = (at, length);
        while left > 0 {
            let part = left.min(64 - at % 64);
            if !f(self.words[at / 64], mask(at % 64, part)) {
                return false;
            }
            at += part;
            left -= part;
        }
        true
    }
}
