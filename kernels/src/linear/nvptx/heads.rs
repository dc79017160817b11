//! Heads on their way to a result or to the KV cache: rotation, and the place of a token.

use inkwell::IntPredicate;
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;

use super::epilogue::{Piece, Tile};
use super::plan::{Group, Rows};
use super::sink::{Angles, Cache};
use super::strips::{STRIP, Span};
use crate::nvptx::{Emit, Float, Int, Ptr, Written};

impl Group {
    /// Rotates heads into a result.
    pub fn rotate<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>, (angles, to): (&Angles, &Rows)) {
        self.each_head_piece(e, tile, |piece, head, inside| {
            let [low, high] = self.rotated(e, tile, piece, (angles, inside));
            let first = e.add(e.times(head, angles.head_dim), inside);
            for (column, values) in [(first, low), (e.plus(first, angles.head_dim / 2), high)] {
                e.store(to.at(e, piece.x_row, column), to.dtype(), &values, self.vector());
            }
        });
    }

    /// Puts keys or values into the cache.
    pub fn append<'c>(
        &self,
        e: &Emit<'c, '_>,
        tile: Tile<'c>,
        angles: Option<&Angles>,
        (cache, part): (&Cache, u64),
    ) {
        self.each_head_piece(e, tile, |piece, head, inside| {
            cache.when_placed(e, piece.x_row, |page, token| {
                let line = cache.line(e, (page, token), part, head);
                let store = |column, values: &[Float<'c>]| {
                    e.store(e.at(line, cache.kv.dtype(), column), cache.kv.dtype(), values, self.vector());
                };
                match angles {
                    Some(angles) => {
                        let [low, high] = self.rotated(e, tile, piece, (angles, inside));
                        store(inside, &low);
                        store(e.plus(inside, cache.head_dim / 2), &high);
                    }
                    None => {
                        let place = (piece.row, piece.unit);
                        store(inside, &self.products(e, tile, place, (0, piece.column)));
                    }
                }
            });
        });
    }

    /// Runs `body` for each piece with its head and its first column in the head's piece.
    fn each_head_piece<'c>(
        &self,
        e: &Emit<'c, '_>,
        tile: Tile<'c>,
        body: impl FnOnce(Piece<'c>, Int<'c>, Int<'c>),
    ) {
        let Span { piece: columns, .. } = self.span().expect("heads have a span");
        let pieces = e.word(columns.div_ceil(STRIP) as u32);
        self.each_piece(e, tile, |piece| {
            let head = e.div(piece.of_all, pieces);
            let inside = e.add(e.times(e.rem(piece.of_all, pieces), STRIP), piece.column);
            let there = e.cmp(IntPredicate::SLT, inside, e.word(columns as u32));
            e.when(there, || body(piece, head, inside));
        });
    }

    /// Columns of both halves of a head, rotated and rounded.
    fn rotated<'c>(
        &self,
        e: &Emit<'c, '_>,
        tile: Tile<'c>,
        piece: Piece<'c>,
        (angles, inside): (&Angles, Int<'c>),
    ) -> [Vec<Float<'c>>; 2] {
        let vector = self.vector();
        let half = angles.head_dim / 2;
        // A padded row has no position; its result is never read, so any row of the table will do.
        let position = e.max(e.load_int(e.arg(angles.positions), piece.x_row), e.word(0));
        let angle = |offset| {
            let place = angles.table.at(e, position, e.plus(inside, offset));
            e.load(place, angles.table.dtype(), (vector, vector), Written::Before)
        };
        let product = |part| self.products(e, tile, (piece.row, piece.unit), (part, piece.column));
        let (low, high, cos, sin) = (product(0), product(1), angle(0), angle(half));
        let pairs = |value: &dyn Fn(usize) -> Float<'c>| {
            (0..vector as usize).map(|lane| e.round(angles.dtype, value(lane))).collect()
        };
        [
            pairs(&|i| e.fsub(e.fmul(low[i], cos[i]), e.fmul(high[i], sin[i]))),
            pairs(&|i| e.fadd(e.fmul(high[i], cos[i]), e.fmul(low[i], sin[i]))),
        ]
    }
}

impl Cache {
    /// Runs `body` with the page of a row and the place in it, where there is one.
    fn when_placed<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, body: impl FnOnce(Int<'c>, Int<'c>)) {
        let context = |sequence| e.load_int(e.arg(self.context), sequence);
        let place = |sequence, position: Int<'c>| {
            let per_sequence = e.dim(self.per_sequence);
            let pages = e.word(PAGE_TOKENS as u32);
            let index = e.add(e.mul(sequence, per_sequence), e.div(position, pages));
            let page = e.load_int(e.arg(self.pages), index);
            e.when(e.cmp(IntPredicate::SGE, page, e.word(0)), || body(page, e.rem(position, pages)));
        };
        if e.steps().phase == Phase::Decode {
            // Row i is the token of sequence i.
            place(row, context(row));
            return;
        }
        let starts = e.arg(self.seq_start);
        let count = e.dim(nemo_ir::types::Symbol::R.into());
        let inside = e.cmp(IntPredicate::SLT, row, e.load_int(starts, count));
        e.when(inside, || {
            let sequence = self.sequence(e, row, (starts, count));
            let start = e.load_int(starts, sequence);
            place(sequence, e.add(context(sequence), e.sub(row, start)));
        });
    }

    /// The last sequence that begins at a row or before, so that empty ones are passed over.
    fn sequence<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, (starts, count): (Ptr<'c>, Int<'c>)) -> Int<'c> {
        let mut found = e.word(0);
        let mut step = e.steps().max_seqs.next_power_of_two() / 2;
        while step > 0 {
            let next = e.plus(found, step);
            let start = e.load_int(starts, e.min(next, count));
            let before = e.and(e.cmp(IntPredicate::SLT, next, count), e.cmp(IntPredicate::SLE, start, row));
            found = e.select(before, next, found);
            step /= 2;
        }
        found
    }

    /// Where the keys (part 0) or values (part 1) of a head and token begin.
    fn line<'c>(
        &self,
        e: &Emit<'c, '_>,
        (page, token): (Int<'c>, Int<'c>),
        part: u64,
        head: Int<'c>,
    ) -> Ptr<'c> {
        let block = e.add(e.times(e.plus(e.times(e.long(page), 2), part), self.heads), e.long(head));
        let line = e.add(e.times(block, PAGE_TOKENS), e.long(token));
        e.at(e.arg(self.kv.arg), self.kv.dtype(), e.times(line, self.head_dim))
    }
}
