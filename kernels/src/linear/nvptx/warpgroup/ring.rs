//! The inner loop of a warpgroup's tile: one thread has boxes of x and W copied into stages, two warpgroups multiply them,
//! and barriers in shared memory tell when a stage is full and when it is empty again.

use inkwell::IntPredicate;

use crate::nvptx::ring::{Barriers, Place};
use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// Rows of a tile.
pub(super) const ROWS: u32 = 128;
/// Columns of x and W in a stage: as many as the 128-byte swizzle spans.
pub(super) const DEPTH: u32 = 64;
/// Bytes of a row of a stage.
pub(super) const ROW_BYTES: u32 = 2 * DEPTH;
/// Warpgroups that multiply, [`ROWS`] / 2 rows each; one more has boxes copied.
const CONSUMERS: u32 = ROWS / 64;
/// Threads of a CTA.
pub(super) const THREADS: u32 = 128 * (CONSUMERS + 1);
/// Warps that multiply.
pub(super) const MULTIPLYING: u32 = 4 * CONSUMERS;
/// Columns of one instruction along K.
const STEP: u32 = 16;

/// Stages in shared memory: rows of x, then rows of W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    /// Columns of the products: 128 or 256.
    pub columns: u32,
    pub stages: u32,
}

impl Ring {
    /// Bytes of all stages.
    pub const fn bytes(&self) -> u32 {
        self.stages * self.stage()
    }

    /// Bytes of the barriers.
    pub const fn barriers(&self) -> u32 {
        Barriers::bytes(self.stages)
    }

    const fn stage(&self) -> u32 {
        (ROWS + self.columns) * ROW_BYTES
    }

    /// Sums of a thread.
    const fn sums(&self) -> u32 {
        self.columns / 2
    }
}

/// Multiplies `count` stages, which `fill` has copied: given the index of a stage, where it lies and the barrier that is to
/// be told; it runs in one thread. Gives a thread's sums as [`Emit::wgmma`] holds them; those of the warps from
/// [`MULTIPLYING`] on are nothing. Afterwards the stages may be overwritten.
pub(super) fn multiply<'c>(
    e: &Emit<'c, '_>,
    ring: Ring,
    (stages, barriers): (Ptr<'c>, Ptr<'c>),
    count: Int<'c>,
    fill: &dyn Fn(Int<'c>, Ptr<'c>, Ptr<'c>),
) -> Vec<Float<'c>> {
    let barriers = Barriers::new(e, barriers, ring.stages, MULTIPLYING);
    let full = |stage: Int<'c>| barriers.full(e, stage);
    let empty = |stage: Int<'c>| barriers.empty(e, stage);
    let at = |stage: Int<'c>| e.offset(stages, e.times(stage, ring.stage().into()));
    let warpgroup = e.shift_right(e.thread(), 7);
    let producer = e.cmp(IntPredicate::EQ, warpgroup, e.word(CONSUMERS));
    let range = (e.word(0), count, 1);
    let sums = e.choose(
        producer,
        || {
            e.when(e.cmp(IntPredicate::EQ, e.thread(), e.word(128 * CONSUMERS)), || {
                // The phase before the first counts as over: every stage is empty at the start.
                e.fold(range, &[e.word(0).into(), e.word(1).into()], |index, carried| {
                    let place = Place::of(carried);
                    e.mbarrier_wait(empty(place.stage), place.phase);
                    e.mbarrier_expect(full(place.stage), e.word(ring.stage()));
                    fill(index, at(place.stage), full(place.stage));
                    place.next(e, ring.stages).values().to_vec()
                });
            });
            e.warp_barrier();
            vec![e.float(0.0).into(); ring.sums() as usize]
        },
        || {
            let zeros = vec![Any::from(e.float(0.0)); ring.sums() as usize];
            let start: Vec<_> = [e.word(0).into(); 2].into_iter().chain(zeros).collect();
            let done = e.fold(range, &start, |index, carried| {
                let place = Place::of(carried);
                let mut sums: Vec<_> = carried[2..].iter().map(|sum| sum.into_float_value()).collect();
                e.mbarrier_wait(full(place.stage), place.phase);
                let x = e.offset(at(place.stage), e.times(warpgroup, u64::from(64 * ROW_BYTES)));
                let w = e.offset(at(place.stage), e.word(ROWS * ROW_BYTES));
                let (x, w) = (e.descriptor(x), e.descriptor(w));
                e.wgmma_fence();
                for step in 0..DEPTH / STEP {
                    // A descriptor counts in 16 bytes.
                    let offset = u64::from(step * STEP * 2 / 16);
                    sums = e.wgmma(e.plus(x, offset), e.plus(w, offset), &sums);
                }
                e.wgmma_commit();
                // This stage is being multiplied while the next is waited for; the one before is done with.
                e.wgmma_wait(1);
                let first = e.cmp(IntPredicate::EQ, place.stage, e.word(0));
                let before = e.select(first, e.word(ring.stages - 1), e.sub(place.stage, e.word(1)));
                let one = e.cmp(IntPredicate::EQ, e.lane(), e.word(0));
                let there = e.and(one, e.cmp(IntPredicate::SGT, index, e.word(0)));
                e.when(there, || e.mbarrier_arrive(empty(before)));
                place
                    .next(e, ring.stages)
                    .values()
                    .into_iter()
                    .chain(sums.into_iter().map(Any::from))
                    .collect()
            });
            let sums: Vec<_> = done[2..].iter().map(|sum| sum.into_float_value()).collect();
            e.wgmma_end(&sums).into_iter().map(Any::from).collect()
        },
    );
    e.barrier();
    sums.into_iter().map(|sum| sum.into_float_value()).collect()
}
