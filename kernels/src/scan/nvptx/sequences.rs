//! The sequences of a step: their rows and their slots.

use inkwell::IntPredicate;
use nemo_ir::plan::Phase;
use nemo_ir::types::Dtype;

use crate::nvptx::{Emit, Int, Link, Ptr};

/// Bytes of shared memory that [`Sequences::staged`] takes.
pub(super) const STAGED: u32 = 16;

/// Where the step says which rows and slots a sequence has.
#[derive(Clone, Copy)]
pub(super) struct Sequences<'c> {
    /// First rows; in decode, where they are known, nobody reads them.
    start: Option<Ptr<'c>>,
    slot_in: Ptr<'c>,
    slot_out: Ptr<'c>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'c> {
    pub index: Int<'c>,
    /// First row.
    pub start: Int<'c>,
    /// Past the last row.
    pub end: Int<'c>,
}

/// The slots of one.
#[derive(Clone, Copy)]
pub(super) struct Slots<'c> {
    /// That with the state before the first row; negative where it starts from zeros.
    pub before: Int<'c>,
    /// That for the state after the last row; negative where nothing is kept.
    pub after: Int<'c>,
}

impl<'c> Sequences<'c> {
    /// Those of a step whose op has a state.
    pub fn of(e: &Emit<'c, '_>, link: &Link) -> Result<Self, String> {
        Ok(Self {
            start: match e.steps().phase {
                Phase::Decode => None,
                Phase::Prefill => Some(e.taken(link, "seq_start")?.0),
            },
            slot_in: e.taken(link, "slot_in")?.0,
            slot_out: e.taken(link, "slot_out")?.0,
        })
    }

    pub fn get(&self, e: &Emit<'c, '_>, index: Int<'c>) -> Sequence<'c> {
        let next = e.plus(index, 1);
        match self.start {
            None => Sequence { index, start: index, end: next },
            Some(start) => Sequence { index, start: e.load_int(start, index), end: e.load_int(start, next) },
        }
    }

    /// A sequence and its slots, for all threads of a CTA. One of them reads the numbers, through `space` in shared memory:
    /// a number that each warp reads for itself costs a sector each time.
    pub fn staged(&self, e: &Emit<'c, '_>, index: Int<'c>, space: Ptr<'c>) -> (Sequence<'c>, Slots<'c>) {
        e.when(e.cmp(IntPredicate::EQ, e.thread(), e.word(0)), || {
            let sequence = self.get(e, index);
            let slots = [self.slot_in(e, sequence), self.slot_out(e, sequence)];
            let rows = self.start.map(|_| [sequence.start, sequence.end]);
            for (at, value) in (0..).zip(slots.into_iter().chain(rows.into_iter().flatten())) {
                e.store_int(space, e.word(at), value);
            }
        });
        e.barrier();
        let staged = |at| {
            let place = e.at(space, Dtype::I32, e.word(at));
            e.load_aligned(e.context.i32_type(), place, 4).into_int_value()
        };
        let sequence = match self.start {
            None => self.get(e, index),
            Some(_) => Sequence { index, start: staged(2), end: staged(3) },
        };
        (sequence, Slots { before: staged(0), after: staged(1) })
    }

    /// The slot with the state before a sequence's first row; negative where it starts from zeros.
    pub fn slot_in(&self, e: &Emit<'c, '_>, sequence: Sequence<'c>) -> Int<'c> {
        e.load_int(self.slot_in, sequence.index)
    }

    /// The slot for the state after its last row; negative where nothing is kept.
    pub fn slot_out(&self, e: &Emit<'c, '_>, sequence: Sequence<'c>) -> Int<'c> {
        e.load_int(self.slot_out, sequence.index)
    }

    /// How many of `count` sequences begin before a row. All lanes of a warp count together.
    pub fn before(&self, e: &Emit<'c, '_>, row: Int<'c>, count: Int<'c>) -> Int<'c> {
        let Some(start) = self.start else { return e.min(row, count) };
        let sum = e.fold((e.word(0), count, 32), &[e.word(0).into()], |first, sum| {
            let index = e.add(first, e.lane());
            let inside = e.cmp(IntPredicate::SLT, index, count);
            let loaded = e.choose(inside, || vec![e.load_int(start, index).into()], || vec![row.into()]);
            let earlier = e.cmp(IntPredicate::SLT, loaded[0].into_int_value(), row);
            let ones: Int<'c> = e.call("llvm.ctpop", &[e.ballot(earlier).into()]);
            vec![e.add(sum[0].into_int_value(), ones).into()]
        });
        sum[0].into_int_value()
    }
}
