//! Puts together what warps, and then splits, have found of a row: the largest score, the sum of weights and the weighted
//! sums of values of each head.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use super::decode::WARPS;
use super::{LOWEST, Shape, fade, normalizer};
use crate::nvptx::{Emit, Float, Int, Ptr, SharedBytes, Written};

const F32: Dtype = Dtype::F32;
/// Splits whose sums are on their way at once.
const AT_ONCE: u64 = 8;

/// What one set of results looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    /// Query heads of a CTA, and those that warps leave results for.
    pub heads: u64,
    rows: u64,
    head_dim: u64,
    /// Elements from one head's sums of values to the next in shared memory.
    pub pitch: u64,
    splits: u64,
    /// Columns that a thread takes.
    columns: u32,
}

impl Merge {
    pub fn new(shape: &Shape, heads: u64, splits: u64) -> Self {
        let head_dim = shape.cache.head_dim;
        // Lanes of tensor cores write to four rows, two apart, at once: so their pieces lie in different banks.
        let pitch =
            if shape.tensor { head_dim.next_multiple_of(16) + 8 } else { head_dim.next_multiple_of(4) };
        let rows = if shape.tensor { heads.next_multiple_of(8) } else { heads };
        let columns = 1 << head_dim.trailing_zeros().min(2);
        Self { heads, rows, head_dim, pitch, splits, columns }
    }

    /// Elements of one warp's or split's sums.
    fn sums(&self) -> u64 {
        self.rows * self.pitch
    }

    fn pieces(&self) -> [(u32, u32); 3] {
        let floats = |count: u64| (4 * count) as u32;
        let warps = u64::from(WARPS);
        // Sums of values; largest scores and sums of weights, of warps or, weighed, of splits; the flag.
        [(floats(warps * self.sums()), 16), (floats(2 * self.rows * warps.max(self.splits)), 16), (4, 4)]
    }

    /// What [`Space`] takes of shared memory.
    pub fn shared_bytes(&self) -> u32 {
        self.pieces().iter().fold(SharedBytes::default(), |sum, (bytes, align)| sum.and(*bytes, *align)).0
    }

    /// What one split writes.
    pub fn partial_bytes(&self) -> u64 {
        4 * self.partial_floats()
    }

    fn partial_floats(&self) -> u64 {
        (self.partial_scores() + 2 * self.heads).next_multiple_of(4)
    }

    /// Where scores and sums of weights lie behind the sums of values.
    fn partial_scores(&self) -> u64 {
        (self.heads * self.head_dim).next_multiple_of(2)
    }
}

/// Shared memory of a CTA.
#[derive(Clone, Copy)]
pub(super) struct Space<'c> {
    sums: Ptr<'c>,
    weights: Ptr<'c>,
    /// An i32 for the CTA.
    pub flag: Ptr<'c>,
}

impl<'c> Space<'c> {
    pub fn of(e: &Emit<'c, '_>, merge: &Merge) -> Self {
        let [sums, weights, flag] = merge.pieces().map(|(bytes, align)| e.shared(bytes, align));
        Self { sums, weights, flag }
    }

    /// This warp's weighted sum of values of a head, from a column on.
    pub fn sums(&self, e: &Emit<'c, '_>, merge: &Merge, head: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        self.sums_of(e, merge, e.warp(), (head, column))
    }

    fn sums_of(
        &self,
        e: &Emit<'c, '_>,
        merge: &Merge,
        warp: Int<'c>,
        (head, column): (Int<'c>, Int<'c>),
    ) -> Ptr<'c> {
        let line = e.add(e.times(warp, merge.rows), head);
        e.at(self.sums, F32, e.add(e.times(line, merge.pitch), column))
    }

    /// The largest score (and behind it the sum of weights) of a warp and head.
    fn scores(&self, e: &Emit<'c, '_>, merge: &Merge, warp: Int<'c>, head: Int<'c>) -> Ptr<'c> {
        e.at(self.weights, F32, e.times(e.add(e.times(warp, merge.rows), head), 2))
    }

    /// Leaves this warp's largest score and sum of weights of a head.
    pub fn leave(
        &self,
        e: &Emit<'c, '_>,
        merge: &Merge,
        head: Int<'c>,
        (largest, total): (Float<'c>, Float<'c>),
    ) {
        e.store(self.scores(e, merge, e.warp(), head), F32, &[largest, total], 2);
    }
}

/// Where the splits of one row and tile of heads leave what they found, in global memory.
pub(super) struct Partials<'c> {
    base: Ptr<'c>,
    floats: u64,
    scores: u64,
    head_dim: u64,
}

impl<'c> Partials<'c> {
    pub fn of(e: &Emit<'c, '_>, merge: &Merge, group: Int<'c>) -> Self {
        let floats = merge.partial_floats();
        let base = e.at(e.partials(), F32, e.times(e.long(group), floats * merge.splits));
        Self { base, floats, scores: merge.partial_scores(), head_dim: merge.head_dim }
    }

    fn sums(&self, e: &Emit<'c, '_>, split: Int<'c>, head: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        let at = e.add(e.times(split, self.floats), e.add(e.times(head, self.head_dim), column));
        e.at(self.base, F32, at)
    }

    fn scores(&self, e: &Emit<'c, '_>, split: Int<'c>, head: Int<'c>) -> Ptr<'c> {
        let at = e.add(e.times(split, self.floats), e.plus(e.times(head, 2), self.scores));
        e.at(self.base, F32, at)
    }
}

/// Runs `body` for each head that is there and each stretch of its columns, shared out to the threads.
fn each_stretch<'c>(e: &Emit<'c, '_>, merge: &Merge, count: Int<'c>, body: impl FnOnce(Int<'c>, Int<'c>)) {
    let stretches = merge.head_dim / u64::from(merge.columns);
    e.each_strided(e.times(count, stretches), |item| {
        let stretches = e.word(stretches as u32);
        let (head, stretch) = (e.div(item, stretches), e.rem(item, stretches));
        body(head, e.times(stretch, merge.columns.into()));
    });
}

/// What the warps have found of a head's stretch, in their order: sums, largest score, sum of weights.
fn warps<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    space: &Space<'c>,
    (head, column): (Int<'c>, Int<'c>),
) -> (Vec<Float<'c>>, Float<'c>, Float<'c>) {
    let warps: Vec<_> = (0..WARPS)
        .map(|warp| {
            let warp = e.word(warp);
            let scores = e.load(space.scores(e, merge, warp, head), F32, (2, 2), Written::Now);
            let sums = space.sums_of(e, merge, warp, (head, column));
            (scores[0], scores[1], e.load(sums, F32, (merge.columns, merge.columns), Written::Now))
        })
        .collect();
    let largest = warps.iter().fold(e.float(LOWEST), |largest, warp| e.fmax(largest, warp.0));
    let mut total = e.float(0.0);
    let mut sums = vec![e.float(0.0); merge.columns as usize];
    for (score, part, parts) in &warps {
        let weight = fade(e, shape, *score, largest);
        total = e.fma(weight, *part, total);
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum = e.fma(weight, *part, *sum);
        }
    }
    (sums, largest, total)
}

/// The results of the row, where one CTA has seen all of its tokens. `store` takes head, column and elements.
pub(super) fn warps_to_result<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    space: &Space<'c>,
    count: Int<'c>,
    store: impl FnOnce(Int<'c>, Int<'c>, &[Float<'c>]),
) {
    each_stretch(e, merge, count, |head, column| {
        let (sums, _, total) = warps(e, shape, merge, space, (head, column));
        let scale = normalizer(e, total);
        let sums: Vec<_> = sums.into_iter().map(|sum| e.fmul(sum, scale)).collect();
        store(head, column, &sums);
    });
}

/// What this CTA has found, for the last one.
pub(super) fn warps_to_partial<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    space: &Space<'c>,
    count: Int<'c>,
    (partials, split): (&Partials<'c>, Int<'c>),
) {
    each_stretch(e, merge, count, |head, column| {
        let (sums, largest, total) = warps(e, shape, merge, space, (head, column));
        e.store(partials.sums(e, split, head, column), F32, &sums, merge.columns);
        e.when(e.cmp(IntPredicate::EQ, column, e.word(0)), || {
            e.store(partials.scores(e, split, head), F32, &[largest, total], 2);
        });
    });
}

/// The results of the row from those of its `active` splits.
pub(super) fn splits_to_result<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    space: &Space<'c>,
    (count, active): (Int<'c>, Int<'c>),
    partials: &Partials<'c>,
    store: impl FnOnce(Int<'c>, Int<'c>, &[Float<'c>]),
) {
    // A warp weighs the splits of a head, one a lane.
    e.step_by(e.warp(), count, WARPS.into(), |head| {
        let there = e.cmp(IntPredicate::SLT, e.lane(), active);
        let loaded = e.choose(
            there,
            || {
                let scores = partials.scores(e, e.lane(), head);
                e.load(scores, F32, (2, 2), Written::Now).into_iter().map(Into::into).collect()
            },
            || vec![e.float(LOWEST).into(), e.float(0.0).into()],
        );
        let (score, total) = (loaded[0].into_float_value(), loaded[1].into_float_value());
        let weight = fade(e, shape, score, e.warp_max(score));
        let total = e.warp_sum(e.fmul(weight, total));
        let weight = e.fmul(weight, normalizer(e, total));
        e.when(there, || {
            let at = e.add(e.times(head, merge.splits), e.lane());
            e.store(e.at(space.weights, F32, at), F32, &[weight], 1);
        });
    });
    e.barrier();
    each_stretch(e, merge, count, |head, column| {
        let initial = vec![e.float(0.0).into(); merge.columns as usize];
        let at_once = AT_ONCE.min(merge.splits);
        let sums = e.fold((e.word(0), active, at_once), &initial, |first, sums| {
            let last = e.sub(active, e.word(1));
            let parts: Vec<_> = (0..at_once)
                .map(|index| {
                    // The last one stands in for those that are not there, without weight.
                    let split = e.plus(first, index);
                    let there = e.cmp(IntPredicate::SLE, split, last);
                    let split = e.min(split, last);
                    let at = e.add(e.times(head, merge.splits), split);
                    let weight = e.load_scalar(e.at(space.weights, F32, at), F32, Written::Now);
                    let weight = e.select(there, weight, e.float(0.0));
                    let sums = partials.sums(e, split, head, column);
                    (weight, e.load(sums, F32, (merge.columns, merge.columns), Written::Now))
                })
                .collect();
            let mut sums: Vec<_> = sums.iter().map(|sum| sum.into_float_value()).collect();
            for (weight, parts) in &parts {
                for (sum, part) in sums.iter_mut().zip(parts) {
                    *sum = e.fma(*weight, *part, *sum);
                }
            }
            sums.into_iter().map(Into::into).collect()
        });
        let sums: Vec<_> = sums.iter().map(|sum| sum.into_float_value()).collect();
        store(head, column, &sums);
    });
}
