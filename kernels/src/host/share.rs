//! How threads divide the work, and how kernels walk the sequences of a step.

use inkwell::IntPredicate;

use super::emit::Emit;
use crate::emit::Int;

/// A sequence of the step.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'c> {
    /// Its index.
    pub index: Int<'c>,
    /// Its first row.
    pub start: Int<'c>,
    /// One past its last row.
    pub end: Int<'c>,
}

impl<'c> Emit<'c, '_> {
    /// As [`Emit::columns`], for this thread's part of the columns.
    pub fn share_columns(&self, width: u64, body: impl Fn(Int<'c>, u32)) {
        let lanes = u64::from(self.width());
        let whole = width / lanes;
        if whole > 0 {
            let (from, to) = self.share(self.int(whole));
            self.each(from, to, |unit| body(self.times(unit, lanes), self.width()));
        }
        let rest = (width % lanes) as u32;
        if rest > 0 {
            self.when(self.is_last_thread(), || body(self.int(whole * lanes), rest));
        }
    }

    /// Whether this is the last thread, which takes what does not divide.
    pub fn is_last_thread(&self) -> inkwell::values::IntValue<'c> {
        self.cmp(IntPredicate::EQ, self.plus(self.thread(), 1), self.threads())
    }

    /// The sequence of that index.
    pub fn sequence(&self, index: Int<'c>) -> Sequence<'c> {
        let (starts, _) = self.operand("seq_start");
        let start = self.load_int(starts, index);
        Sequence { index, start, end: self.load_int(starts, self.plus(index, 1)) }
    }

    /// Every sequence of the step, in order.
    pub fn each_sequence(&self, body: impl FnOnce(Sequence<'c>)) {
        let (_, layout) = self.operand("seq_start");
        let seqs = self.dim(layout.ty.shape[0]);
        self.each(self.int(0), seqs, |index| body(self.sequence(index)));
    }

    /// Every row of every sequence within `from .. to`.
    pub fn each_sequence_row(
        &self,
        (from, to): (Int<'c>, Int<'c>),
        body: impl FnOnce(Sequence<'c>, Int<'c>),
    ) {
        self.each_sequence(|sequence| {
            let (first, end) = (self.max(sequence.start, from), self.min(sequence.end, to));
            self.each(first, end, |row| body(sequence, row));
        });
    }
}
