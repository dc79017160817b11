//! Stages in shared memory that are filled and emptied in turn, by bulk copies and by those who read them.

use inkwell::IntPredicate;

use super::emit::Emit;
use crate::emit::{Any, Int, Ptr};

/// Bytes of a barrier.
const BARRIER: u32 = 8;

/// The barriers of a ring's stages: one that tells when a stage is full, and one when it is empty again.
#[derive(Clone, Copy)]
pub(crate) struct Barriers<'c> {
    base: Ptr<'c>,
    stages: u32,
}

impl<'c> Barriers<'c> {
    /// Bytes of shared memory, at a multiple of 8.
    pub const fn bytes(stages: u32) -> u32 {
        2 * BARRIER * stages
    }

    /// Makes them, for all threads of the CTA: a stage is full when one thread has arrived and its copies have landed, and
    /// empty when as many `readers` have arrived.
    pub fn new(e: &Emit<'c, '_>, base: Ptr<'c>, stages: u32, readers: u32) -> Self {
        let barriers = Self { base, stages };
        e.when(e.cmp(IntPredicate::EQ, e.thread(), e.word(0)), || {
            for stage in 0..stages {
                e.mbarrier_init(barriers.full(e, e.word(stage)), 1);
                e.mbarrier_init(barriers.empty(e, e.word(stage)), readers);
            }
            e.mbarriers_ready();
        });
        e.barrier();
        barriers
    }

    /// The barrier that tells when a stage is full.
    pub fn full(&self, e: &Emit<'c, '_>, stage: Int<'c>) -> Ptr<'c> {
        e.offset(self.base, e.times(stage, BARRIER.into()))
    }

    /// The barrier that tells when a stage is empty. Its first phase is over when the stage was used once: a stage is empty
    /// at the start, as the phase before the first counts as over.
    pub fn empty(&self, e: &Emit<'c, '_>, stage: Int<'c>) -> Ptr<'c> {
        self.full(e, e.plus(stage, self.stages.into()))
    }
}

/// A stage, and the parity of the phase in which it becomes full.
#[derive(Clone, Copy)]
pub(crate) struct Place<'c> {
    pub stage: Int<'c>,
    pub phase: Int<'c>,
}

impl<'c> Place<'c> {
    /// From [`Place::values`].
    pub fn of(values: &[Any<'c>]) -> Self {
        Self { stage: values[0].into_int_value(), phase: values[1].into_int_value() }
    }

    /// As values that a loop carries.
    pub fn values(self) -> [Any<'c>; 2] {
        [self.stage.into(), self.phase.into()]
    }

    /// The one after, in a ring of so many.
    pub fn next(self, e: &Emit<'c, '_>, stages: u32) -> Self {
        let stage = e.plus(self.stage, 1);
        let last = e.cmp(IntPredicate::EQ, stage, e.word(stages));
        let phase = e.select(last, e.xor(self.phase, e.word(1)), self.phase);
        Self { stage: e.select(last, e.word(0), stage), phase }
    }
}
