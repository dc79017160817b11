//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

use crate::host::{Emit, Float, Int};

/// A number in [0, 1) from the first word of the block at `counter`, keyed by two words.
pub(super) fn uniform<'c>(e: &Emit<'c, '_>, key: [Int<'c>; 2], counter: Int<'c>) -> Float<'c> {
    let word = |value: Int<'c>| e.and(value, e.int(0xFFFF_FFFF));
    let mut key = key.map(word);
    let mut block = [word(counter), e.int(0), e.int(0), e.int(0)];
    for _ in 0..10 {
        let product = |multiplier: u64, value| e.times(value, multiplier);
        let (first, second) = (product(0xD251_1F53, block[0]), product(0xCD9E_8D57, block[2]));
        let high = |product| e.shift_right(product, 32);
        block = [
            e.xor(e.xor(high(second), block[1]), key[0]),
            word(second),
            e.xor(e.xor(high(first), block[3]), key[1]),
            word(first),
        ];
        key = [word(e.plus(key[0], 0x9E37_79B9)), word(e.plus(key[1], 0xBB67_AE85))];
    }
    e.fmul(e.to_float(e.shift_right(block[0], 8)), e.float(1.0 / f64::from(1 << 24)))
}
