//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

use super::together::{low, wide};
use crate::nvptx::{Emit, Int};

/// Bits of a draw.
pub(super) const BITS: u64 = 24;

/// The number below 2^24 that decides: the upper bits of the first word of the block at `counter`, keyed by two words.
pub(super) fn draw<'c>(e: &Emit<'c, '_>, key: [Int<'c>; 2], counter: Int<'c>) -> Int<'c> {
    let mut key = key;
    let mut block = [counter, e.word(0), e.word(0), e.word(0)];
    for _ in 0..10 {
        let product = |multiplier: u32, value| {
            let product = e.mul(wide(e, e.word(multiplier)), wide(e, value));
            (low(e, e.shift_right(product, 32)), low(e, product))
        };
        let (first, second) = (product(0xD251_1F53, block[0]), product(0xCD9E_8D57, block[2]));
        block = [
            e.xor(e.xor(second.0, block[1]), key[0]),
            second.1,
            e.xor(e.xor(first.0, block[3]), key[1]),
            first.1,
        ];
        key = [e.add(key[0], e.word(0x9E37_79B9)), e.add(key[1], e.word(0xBB67_AE85))];
    }
    e.shift_right(block[0], 32 - BITS)
}
