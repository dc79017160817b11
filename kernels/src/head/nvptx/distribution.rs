//! A row of logits as a distribution, in fixed point: its sums are exact, so they do not depend on who adds what, and a
//! draw finds the token whose share it falls into.

use inkwell::{FloatPredicate, IntPredicate};

use super::greedy::NONE;
use super::philox;
use super::select::Space;
use super::stream::{Stretch, stream};
use super::together::{across, scan_warp, wide};
use crate::emit::built;
use crate::nvptx::{Any, Emit, Float, Int, Ptr, Written};
use nemo_ir::types::Dtype;

/// Each half of a mass's bits after the point, as many as an f32 holds exactly and some to spare: 1 is 2^40, and what
/// does not reach 2^-40 of the largest has none.
const HALF: u32 = 20;
/// Steps of a rank by distance for each halving of the weight.
const STEPS: f64 = (1 << 26) as f64;
/// Halvings after which ranks no longer differ.
const FARTHEST: f64 = 63.0;
/// Above every vocabulary whose masses add up in an i64.
pub(super) const MOST_TOKENS: u64 = 1 << (63 - 2 * HALF);

/// A row of logits.
#[derive(Clone, Copy)]
pub(super) struct Row<'c> {
    pub logits: Ptr<'c>,
    pub vocab: u64,
    /// Elements of an access.
    pub vector: u32,
    /// Its largest logit.
    pub largest: Float<'c>,
    /// Halvings of the weight for each unit that a logit is smaller.
    pub sharpness: Float<'c>,
}

impl<'c> Row<'c> {
    /// How often the weight of a logit is halved from the largest one's.
    fn halvings(&self, e: &Emit<'c, '_>, logit: Float<'c>) -> Float<'c> {
        e.fmul(e.fsub(self.largest, logit), self.sharpness)
    }

    /// e^((logit - largest) / temperature): 1 for the likeliest token.
    pub fn weight(&self, e: &Emit<'c, '_>, logit: Float<'c>) -> Float<'c> {
        e.exp2(e.fneg(self.halvings(e, logit)))
    }

    /// The rank of a logit by its weight, an unsigned i32: 0 for the likeliest token.
    pub fn rank(&self, e: &Emit<'c, '_>, logit: Float<'c>) -> Int<'c> {
        let distance = e.fmin(self.halvings(e, logit), e.float(FARTHEST));
        let steps = e.fmul(distance, e.float(STEPS));
        built(e.builder.build_float_to_unsigned_int(steps, e.context.i32_type(), ""))
    }
}

/// The rank of a logit among all f32, an unsigned i32: the largest has the lowest. The same again makes the logit of a
/// rank, see [`logit_of_rank`].
pub(super) fn rank_of_logit<'c>(e: &Emit<'c, '_>, logit: Float<'c>) -> Int<'c> {
    flip(e, e.bits(logit))
}

/// The logit of that rank.
pub(super) fn logit_of_rank<'c>(e: &Emit<'c, '_>, rank: Int<'c>) -> Float<'c> {
    e.float_of(flip(e, rank))
}

/// Bits of negative numbers ascend as they get smaller; those of the others are inverted, to come before.
fn flip<'c>(e: &Emit<'c, '_>, bits: Int<'c>) -> Int<'c> {
    let is_negative = e.cmp(IntPredicate::SLT, bits, e.word(0));
    e.select(is_negative, bits, e.xor(bits, e.word(0x7FFF_FFFF)))
}

/// A weight, at most 1, in fixed point, i64.
pub(super) fn mass<'c>(e: &Emit<'c, '_>, weight: Float<'c>) -> Int<'c> {
    // In two halves: a conversion to 64 bits is slow.
    let unit = e.float(f64::from(1_u32 << HALF));
    let whole = |x| built(e.builder.build_float_to_unsigned_int(x, e.context.i32_type(), ""));
    let scaled = e.fmul(weight, unit);
    let upper = whole(scaled);
    let lower = whole(e.fmul(e.fsub(scaled, e.to_float(upper)), unit));
    e.add(e.shift_left(wide(e, upper), e.int(HALF.into())), wide(e, lower))
}

/// `total * share / 2^24`, rounded down, of an i64 and an i32 of 24 bits.
pub(super) fn part<'c>(e: &Emit<'c, '_>, total: Int<'c>, share: Int<'c>) -> Int<'c> {
    let share = wide(e, share);
    let lower = e.and(total, e.int((1 << philox::BITS) - 1));
    let upper = e.shift_right(total, philox::BITS);
    e.add(e.mul(upper, share), e.shift_right(e.mul(lower, share), philox::BITS))
}

/// The first token in order at which the running sum of masses exceeds that share (24 bits) of their total.
pub(super) fn draw<'c>(
    e: &Emit<'c, '_>,
    row: &Row<'c>,
    space: &Space<'c>,
    share: Int<'c>,
    mass_of: impl Fn(Float<'c>) -> Int<'c>,
) -> Int<'c> {
    let (warps, piece) = (u64::from(e.warps()), u64::from(32 * row.vector));
    let place = |warp: Int<'c>| e.offset(space.warps, e.times(warp, 8));
    let sum_at = |warp| e.load_aligned(e.context.i64_type(), place(warp), 8).into_int_value();
    let sums = |initial: &[Any<'c>], body: &dyn Fn(Int<'c>, &[Any<'c>]) -> Vec<Any<'c>>| {
        e.fold((e.word(0), e.word(e.warps()), 1), initial, body)
    };
    let end_of = |start: Int<'c>, size: u64| e.min(e.plus(start, size), e.word(row.vocab as u32));
    // The row is cut into a stretch for each warp, the one that the target falls into is cut again, until a warp holds
    // what is left in one access of each lane.
    let (mut start, mut size, mut before) = (e.word(0), row.vocab, e.int(0));
    let mut target = None;
    loop {
        let of_warp = size.div_ceil(warps).next_multiple_of(row.vector.into());
        let first = |warp: Int<'c>| e.add(start, e.times(warp, of_warp));
        let end = end_of(start, size);
        let stretch = Stretch {
            base: row.logits,
            from: e.add(first(e.warp()), e.times(e.lane(), row.vector.into())),
            to: e.min(e.plus(first(e.warp()), of_warp), end),
            vector: row.vector,
            stride: piece as u32,
        };
        let add = |a: &[Any<'c>], b: &[Any<'c>]| {
            vec![Any::from(e.add(a[0].into_int_value(), b[0].into_int_value()))]
        };
        let own = stream::<4>(e, &stretch, &[e.int(0).into()], |_, x, sum| add(sum, &[mass_of(x).into()]));
        let sum = across(e, &own, 32, add);
        e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
            e.store_aligned(place(e.warp()), sum[0].into_int_value(), 8);
        });
        e.barrier();
        let target = *target.get_or_insert_with(|| {
            let total = sums(&[e.int(0).into()], &|warp, sum| add(sum, &[sum_at(warp).into()]));
            part(e, total[0].into_int_value(), share)
        });
        // Each stretch with a mass takes the place of the last, until the sum has passed the target.
        let found = sums(&[before.into(), e.word(0).into(), before.into()], &|warp, state| {
            let (running, sum) = (state[0].into_int_value(), sum_at(warp));
            let open = e.cmp(IntPredicate::ULE, running, target);
            let takes = e.and(open, e.cmp(IntPredicate::NE, sum, e.int(0)));
            vec![
                e.add(running, sum).into(),
                e.select(takes, warp, state[1].into_int_value()).into(),
                e.select(takes, running, state[2].into_int_value()).into(),
            ]
        });
        e.barrier();
        let end_before = end;
        start = first(found[1].into_int_value());
        before = found[2].into_int_value();
        size = of_warp;
        if size <= piece {
            let end = e.min(e.plus(start, size), end_before);
            return last(e, row, (start, end), (before, target), &mass_of);
        }
    }
}

/// As [`draw`], in a stretch of one access of each lane; every warp does the same.
fn last<'c>(
    e: &Emit<'c, '_>,
    row: &Row<'c>,
    (start, end): (Int<'c>, Int<'c>),
    (before, target): (Int<'c>, Int<'c>),
    mass_of: &impl Fn(Float<'c>) -> Int<'c>,
) -> Int<'c> {
    let first = e.add(start, e.times(e.lane(), row.vector.into()));
    let masses = e.choose(
        e.cmp(IntPredicate::SLT, first, end),
        || {
            let place = e.at(row.logits, Dtype::F32, first);
            let logits = e.load(place, Dtype::F32, (row.vector, row.vector), Written::Before);
            logits.into_iter().map(|logit| mass_of(logit).into()).collect()
        },
        || vec![e.int(0).into(); row.vector as usize],
    );
    let masses: Vec<_> = masses.into_iter().map(Any::into_int_value).collect();
    let own = masses.iter().fold(e.int(0), |sum, mass| e.add(sum, *mass));
    let mut running = e.sub(e.add(before, scan_warp(e, own)), own);
    let mut afters = Vec::new();
    for mass in masses {
        running = e.add(running, mass);
        afters.push(running);
    }
    let mut token = e.word(NONE);
    for (lane, after) in afters.into_iter().enumerate().rev() {
        let passes = e.cmp(IntPredicate::UGT, after, target);
        token = e.select(passes, e.plus(first, lane as u64), token);
    }
    let first_of =
        |a: &[Any<'c>], b: &[Any<'c>]| vec![Any::from(e.min(a[0].into_int_value(), b[0].into_int_value()))];
    across(e, &[token.into()], 32, first_of)[0].into_int_value()
}

/// Whether a logit reaches another.
pub(super) fn reaches<'c>(
    e: &Emit<'c, '_>,
    logit: Float<'c>,
    cut: Float<'c>,
) -> inkwell::values::IntValue<'c> {
    e.fcmp(FloatPredicate::OGE, logit, cut)
}
