//! Values that the threads of a CTA combine: several at once, of 32 or 64 bits.

use inkwell::IntPredicate;

use crate::emit::built;
use crate::nvptx::{Any, Emit, Int, Ptr};

const WARP: u32 = 32;

/// Bytes of shared memory for [`cta_combine`] of so many values: 8 of each for each warp.
pub(super) fn space_of(values: u32, threads: u32) -> u32 {
    values * 8 * threads.div_ceil(WARP)
}

/// Combines values over all threads of the CTA, in the order of a tree; every thread gets the result. `space` is free
/// again after it.
pub(super) fn cta_combine<'c>(
    e: &Emit<'c, '_>,
    values: &[Any<'c>],
    space: Ptr<'c>,
    combine: impl Fn(&[Any<'c>], &[Any<'c>]) -> Vec<Any<'c>>,
) -> Vec<Any<'c>> {
    let warps = e.warps();
    assert!(warps.is_power_of_two(), "the second tree takes whole halves");
    let own = across(e, values, WARP, &combine);
    let slot = |index: usize, warp: Int<'c>, bytes: u32| {
        let first = index as u32 * warps * 8;
        e.offset(space, e.add(e.times(warp, bytes.into()), e.word(first)))
    };
    e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
        for (index, value) in own.iter().enumerate() {
            let bytes = bytes_of(*value);
            e.store_aligned(slot(index, e.warp(), bytes), *value, bytes);
        }
    });
    e.barrier();
    // As many lanes as there are warps; the others repeat them.
    let warp = e.and(e.lane(), e.word(warps - 1));
    let load = |(index, value): (usize, &Any<'c>)| {
        let bytes = bytes_of(*value);
        e.load_aligned(value.get_type(), slot(index, warp, bytes), bytes)
    };
    let all: Vec<_> = own.iter().enumerate().map(load).collect();
    let all = across(e, &all, warps, &combine);
    e.barrier();
    all
}

/// As [`cta_combine`], over groups of lanes.
pub(super) fn across<'c>(
    e: &Emit<'c, '_>,
    values: &[Any<'c>],
    lanes: u32,
    combine: impl Fn(&[Any<'c>], &[Any<'c>]) -> Vec<Any<'c>>,
) -> Vec<Any<'c>> {
    let mut values = values.to_vec();
    let mut mask = lanes / 2;
    while mask > 0 {
        let others: Vec<_> = values.iter().map(|value| exchange(e, *value, mask)).collect();
        values = combine(&values, &others);
        mask /= 2;
    }
    values
}

fn exchange<'c>(e: &Emit<'c, '_>, value: Any<'c>, mask: u32) -> Any<'c> {
    match value {
        Any::FloatValue(value) => e.shuffle_xor(value, mask).into(),
        Any::IntValue(value) if bytes_of(value.into()) == 8 => {
            by_halves(e, value, |half| e.shuffle_xor_int(half, mask)).into()
        }
        Any::IntValue(value) => e.shuffle_xor_int(value, mask).into(),
        other => unreachable!("{other:?} is no number"),
    }
}

/// Inclusive sums of an i64 over the lanes up to each.
pub(super) fn scan_warp<'c>(e: &Emit<'c, '_>, value: Int<'c>) -> Int<'c> {
    let mut sum = value;
    let mut distance = 1;
    while distance < WARP {
        let from = e.sub(e.lane(), e.word(distance));
        let below = by_halves(e, sum, |half| e.shuffle_int(half, from));
        let there = e.cmp(IntPredicate::SGE, from, e.word(0));
        sum = e.add(sum, e.select(there, below, e.int(0)));
        distance *= 2;
    }
    sum
}

/// What moves 32 bits, done to the halves of an i64.
fn by_halves<'c>(e: &Emit<'c, '_>, value: Int<'c>, moved: impl Fn(Int<'c>) -> Int<'c>) -> Int<'c> {
    let (low, high) = (moved(low(e, value)), moved(low(e, e.shift_right(value, 32))));
    join(e, low, high)
}

/// The lower 32 bits of an i64.
pub(super) fn low<'c>(e: &Emit<'c, '_>, value: Int<'c>) -> Int<'c> {
    built(e.builder.build_int_truncate(value, e.context.i32_type(), ""))
}

/// An i32 as an i64, without a sign.
pub(super) fn wide<'c>(e: &Emit<'c, '_>, value: Int<'c>) -> Int<'c> {
    built(e.builder.build_int_z_extend(value, e.context.i64_type(), ""))
}

/// The i64 of two halves.
pub(super) fn join<'c>(e: &Emit<'c, '_>, low: Int<'c>, high: Int<'c>) -> Int<'c> {
    e.or(wide(e, low), e.shift_left(wide(e, high), e.int(32)))
}

fn bytes_of(value: Any<'_>) -> u32 {
    match value {
        Any::IntValue(value) => value.get_type().get_bit_width() / 8,
        _ => 4,
    }
}
