//! What the threads of a warp and of a CTA do together: barriers, shuffles, sums.

use inkwell::IntPredicate;
use inkwell::values::{BasicValue, IntValue};
use nemo_ir::types::Dtype;

use super::emit::Emit;
use crate::emit::{Any, Float, Int, Ptr};

impl<'c> Emit<'c, '_> {
    /// Index of this thread in its warp, i32.
    pub fn lane(&self) -> Int<'c> {
        self.and(self.thread(), self.word(31))
    }

    /// Index of this warp in its CTA, i32.
    pub fn warp(&self) -> Int<'c> {
        self.shift_right(self.thread(), 5)
    }

    /// Waits for all threads of the CTA; what they wrote before is visible after.
    pub fn barrier(&self) {
        self.effect("llvm.nvvm.barrier.cta.sync.aligned.all", &[], &[self.word(0).into()]);
    }

    /// Waits for all threads of the warp.
    pub fn warp_barrier(&self) {
        self.effect("llvm.nvvm.bar.warp.sync", &[], &[self.all_lanes()]);
    }

    /// Runs `body` for `i` from this thread's index on, in steps of the CTA's threads, while below `count`.
    pub fn each_strided(&self, count: Int<'c>, body: impl FnOnce(Int<'c>)) {
        self.step_by(self.thread(), count, u64::from(self.threads()), body);
    }

    /// The value of the lane whose index differs in the bits of `mask`.
    pub fn shuffle_xor(&self, value: Float<'c>, mask: u32) -> Float<'c> {
        let operands = [self.all_lanes(), value.into(), self.word(mask).into(), self.word(31).into()];
        self.intrinsic("llvm.nvvm.shfl.sync.bfly.f32", &[], &operands)
    }

    /// As [`Emit::shuffle_xor`], of an i32.
    pub fn shuffle_xor_int(&self, value: Int<'c>, mask: u32) -> Int<'c> {
        let operands = [self.all_lanes(), value.into(), self.word(mask).into(), self.word(31).into()];
        self.intrinsic("llvm.nvvm.shfl.sync.bfly.i32", &[], &operands)
    }

    /// The value of the lane of that index.
    pub fn shuffle(&self, value: Float<'c>, lane: Int<'c>) -> Float<'c> {
        let operands = [self.all_lanes(), value.into(), lane.into(), self.word(31).into()];
        self.intrinsic("llvm.nvvm.shfl.sync.idx.f32", &[], &operands)
    }

    /// As [`Emit::shuffle`], of an i32.
    pub fn shuffle_int(&self, value: Int<'c>, lane: Int<'c>) -> Int<'c> {
        let operands = [self.all_lanes(), value.into(), lane.into(), self.word(31).into()];
        self.intrinsic("llvm.nvvm.shfl.sync.idx.i32", &[], &operands)
    }

    /// Combines the values of groups of `lanes` consecutive lanes, a power of two: all of them get the result, in the
    /// order of a tree.
    pub fn across(
        &self,
        value: Float<'c>,
        lanes: u32,
        combine: impl Fn(Float<'c>, Float<'c>) -> Float<'c>,
    ) -> Float<'c> {
        let mut value = value;
        let mut mask = lanes / 2;
        while mask > 0 {
            value = combine(value, self.shuffle_xor(value, mask));
            mask /= 2;
        }
        value
    }

    /// The sum over the warp, in all lanes.
    pub fn warp_sum(&self, value: Float<'c>) -> Float<'c> {
        self.across(value, 32, |a, b| self.fadd(a, b))
    }

    /// The largest value of the warp, in all lanes; NaN is passed over.
    pub fn warp_max(&self, value: Float<'c>) -> Float<'c> {
        self.across(value, 32, |a, b| self.fmax(a, b))
    }

    /// Combines the values of all threads of the CTA; every thread gets the result. `space` holds an f32 for each warp;
    /// it is free again after the next barrier.
    pub fn cta_combine(
        &self,
        value: Float<'c>,
        neutral: f64,
        space: Ptr<'c>,
        combine: impl Fn(Float<'c>, Float<'c>) -> Float<'c>,
    ) -> Float<'c> {
        let own = self.across(value, 32, &combine);
        let warps = self.warps();
        if warps == 1 {
            return own;
        }
        let first = self.cmp(IntPredicate::EQ, self.lane(), self.word(0));
        self.when(first, || self.store_aligned(self.at(space, Dtype::F32, self.warp()), own, 4));
        self.barrier();
        let there = self.cmp(IntPredicate::ULT, self.lane(), self.word(warps));
        let loaded = self.choose(
            there,
            || vec![self.load_aligned(self.context.f32_type(), self.at(space, Dtype::F32, self.lane()), 4)],
            || vec![self.float(neutral).into()],
        );
        let value = self.across(loaded[0].into_float_value(), 32, &combine);
        self.barrier();
        value
    }

    /// The sum over the CTA, in every thread; see [`Emit::cta_combine`].
    pub fn cta_sum(&self, value: Float<'c>, space: Ptr<'c>) -> Float<'c> {
        self.cta_combine(value, 0.0, space, |a, b| self.fadd(a, b))
    }

    /// Whether this CTA is the last of `total` (an i32) to come here with this counter, which then is zero again. What the
    /// others wrote to global memory before is visible then. All threads get the answer; `space` holds an i32.
    pub fn is_last_cta(&self, counter: Ptr<'c>, total: Int<'c>, space: Ptr<'c>) -> IntValue<'c> {
        // Every thread's writes come before the barrier, and the barrier before the fence of the thread that counts.
        self.barrier();
        self.when(self.cmp(IntPredicate::EQ, self.thread(), self.word(0)), || {
            self.fence();
            let before = self.atomic_wrap(counter, self.sub(total, self.word(1)));
            self.fence();
            self.store_aligned(space, before, 4);
        });
        self.barrier();
        let before = self.load_aligned(self.context.i32_type(), space, 4).into_int_value();
        self.cmp(IntPredicate::EQ, before, self.sub(total, self.word(1)))
    }

    /// A bit for each lane of the warp in which a condition (i1) holds, i32.
    pub fn ballot(&self, condition: IntValue<'c>) -> Int<'c> {
        self.intrinsic(
            "llvm.nvvm.vote.ballot.sync",
            &[],
            &[self.all_lanes(), condition.as_basic_value_enum()],
        )
    }

    fn all_lanes(&self) -> Any<'c> {
        self.word(u32::MAX).into()
    }
}
