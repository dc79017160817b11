//! Cut-offs without sorting: eleven bits of a rank at a time, by how much each of their values holds.
//!
//! What is summed are integers, counts or masses in fixed point, so the order in which threads come does not show.

use inkwell::IntPredicate;
use inkwell::values::IntValue;

use super::stream::{Stretch, stream};
use super::together::{join, low, scan_warp};
use crate::emit::built;
use crate::nvptx::{Any, Emit, Float, Int, Ptr, SharedBytes};

/// Values of a digit.
const BINS: u32 = 2048;
/// Where the digits of a rank begin, from the highest on, and the bits above each. The last two overlap in a bit, which
/// then is the same in all that is looked at.
const DIGITS: [(u32, u32); 3] = [(21, 0), (10, 0xFFE0_0000), (0, 0xFFFF_FC00)];

/// Shared memory of a selection.
#[derive(Clone, Copy)]
pub(super) struct Space<'c> {
    /// Lower and upper words of what each bin holds.
    bins: [Ptr<'c>; 2],
    /// An i64 for each warp.
    pub warps: Ptr<'c>,
    /// The bin that was found, and what comes before it.
    found: Ptr<'c>,
}

impl<'c> Space<'c> {
    pub fn of(e: &Emit<'c, '_>) -> Self {
        let bins = [e.shared(BINS * 4, 8), e.shared(BINS * 4, 8)];
        Self { bins, warps: e.shared(8 * e.warps(), 8), found: e.shared(16, 8) }
    }

    /// What [`Space::of`] takes.
    pub fn bytes(sum: SharedBytes, threads: u32) -> SharedBytes {
        sum.and(BINS * 4, 8).and(BINS * 4, 8).and(threads / 32 * 8, 8).and(16, 8)
    }

    /// Adds one to a bin.
    pub fn count(&self, e: &Emit<'c, '_>, bin: Int<'c>) {
        e.shared_add(e.offset(self.bins[0], e.times(bin, 4)), e.word(1));
    }

    /// Adds an i64 to a bin.
    pub fn add(&self, e: &Emit<'c, '_>, bin: Int<'c>, mass: Int<'c>) {
        let place = |bins: Ptr<'c>| e.offset(bins, e.times(bin, 4));
        let part = low(e, mass);
        let before = e.shared_add(place(self.bins[0]), part);
        // Whose addition wraps the lower word carries.
        let wraps = e.cmp(IntPredicate::ULT, e.add(before, part), part);
        let carry = e.select(wraps, e.word(1), e.word(0));
        let upper = e.add(low(e, e.shift_right(mass, 32)), carry);
        e.when(e.cmp(IntPredicate::NE, upper, e.word(0)), || {
            e.shared_add(place(self.bins[1]), upper);
        });
    }

    /// This thread's bins in order, an even number, and what they hold.
    fn own(&self, e: &Emit<'c, '_>) -> Vec<(Int<'c>, Int<'c>)> {
        let count = BINS / e.threads();
        let mut own = Vec::new();
        for pair in (0..count).step_by(2) {
            let bin = e.plus(e.times(e.thread(), count.into()), pair.into());
            let [lower, upper] = self.bins.map(|bins| {
                let place = e.offset(bins, e.times(bin, 4));
                e.load_aligned(e.context.i32_type().vec_type(2), place, 8).into_vector_value()
            });
            for lane in 0..2 {
                let word = |words| e.extract(words, lane).into_int_value();
                own.push((e.plus(bin, lane.into()), join(e, word(lower), word(upper))));
            }
        }
        own
    }
}

/// How the elements of a row are measured.
pub(super) struct Measure<R, I, P> {
    /// The rank of an element, an unsigned i32: the first of all has the lowest.
    pub rank: R,
    /// Whether it counts.
    pub counts: I,
    /// Adds it to a bin.
    pub put: P,
}

/// The lowest rank up to which the elements that count hold what `wanted` says, given what all of them hold: at least 1,
/// and no more than all.
pub(super) fn cut_off<'c>(
    e: &Emit<'c, '_>,
    stretch: &Stretch<'c>,
    space: &Space<'c>,
    measure: &Measure<
        impl Fn(Float<'c>) -> Int<'c>,
        impl Fn(Float<'c>) -> IntValue<'c>,
        impl Fn(Int<'c>, Float<'c>),
    >,
    wanted: impl Fn(Int<'c>) -> Int<'c>,
) -> Int<'c> {
    let initial: [Any<'c>; 2] = [e.word(0).into(), e.int(0).into()];
    let state = e.fold((e.word(0), e.word(DIGITS.len() as u32), 1), &initial, |digit, state| {
        let (prefix, remaining) = (state[0].into_int_value(), state[1].into_int_value());
        let is = |n: u32| e.cmp(IntPredicate::EQ, digit, e.word(n));
        let of = |pick: fn((u32, u32)) -> u32| {
            let value = |n: usize| e.word(pick(DIGITS[n]));
            e.select(is(0), value(0), e.select(is(1), value(1), value(2)))
        };
        let (shift, known) = (of(|digit| digit.0), of(|digit| digit.1));
        for first in (0..BINS).step_by(e.threads() as usize) {
            let bin = e.plus(e.thread(), first.into());
            for bins in space.bins {
                e.store_aligned(e.offset(bins, e.times(bin, 4)), e.word(0), 4);
            }
        }
        e.barrier();
        stream::<2>(e, stretch, &[], |_, x, _| {
            let rank = (measure.rank)(x);
            let agrees = e.and(e.xor(rank, prefix), known);
            let agrees = e.cmp(IntPredicate::EQ, agrees, e.word(0));
            e.when(e.and(agrees, (measure.counts)(x)), || {
                let bin = built(e.builder.build_right_shift(rank, shift, false, ""));
                (measure.put)(e.and(bin, e.word(BINS - 1)), x);
            });
            Vec::new()
        });
        e.barrier();
        let (bin, remaining) = crossing(e, space, |total| e.select(is(0), wanted(total), remaining));
        let digit = e.shift_left(bin, shift);
        vec![e.or(prefix, digit).into(), remaining.into()]
    });
    state[0].into_int_value()
}

/// The bin in which the sum over the bins in order reaches what is wanted, and how much of it that takes.
fn crossing<'c>(
    e: &Emit<'c, '_>,
    space: &Space<'c>,
    wanted: impl Fn(Int<'c>) -> Int<'c>,
) -> (Int<'c>, Int<'c>) {
    let bins = space.own(e);
    let own = bins.iter().fold(e.int(0), |sum, (_, held)| e.add(sum, *held));
    let up_to_here = scan_warp(e, own);
    let place = |warp: Int<'c>| e.offset(space.warps, e.times(warp, 8));
    e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(31)), || {
        e.store_aligned(place(e.warp()), up_to_here, 8);
    });
    e.barrier();
    let initial: [Any<'c>; 2] = [e.int(0).into(), e.int(0).into()];
    let sums = e.fold((e.word(0), e.word(e.warps()), 1), &initial, |warp, sums| {
        let (all, below) = (sums[0].into_int_value(), sums[1].into_int_value());
        let part = e.load_aligned(e.context.i64_type(), place(warp), 8).into_int_value();
        let is_below = e.cmp(IntPredicate::ULT, warp, e.warp());
        let below = e.add(below, e.select(is_below, part, e.int(0)));
        vec![e.add(all, part).into(), below.into()]
    });
    let wanted = wanted(sums[0].into_int_value());
    let mut before = e.sub(e.add(sums[1].into_int_value(), up_to_here), own);
    for (bin, held) in bins {
        let after = e.add(before, held);
        let crosses =
            e.and(e.cmp(IntPredicate::ULT, before, wanted), e.cmp(IntPredicate::UGE, after, wanted));
        e.when(crosses, || {
            e.store_aligned(space.found, e.sub(wanted, before), 8);
            e.store_aligned(e.offset(space.found, e.word(8)), bin, 4);
        });
        before = after;
    }
    e.barrier();
    let remaining = e.load_aligned(e.context.i64_type(), space.found, 8).into_int_value();
    let bin = e.load_aligned(e.context.i32_type(), e.offset(space.found, e.word(8)), 4);
    (bin.into_int_value(), remaining)
}
