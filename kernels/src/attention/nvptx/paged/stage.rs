//! Keys and values of a page on their way through shared memory.
//!
//! A line of the stage is a token's key or value, filled up to whole 128 bytes. Its 16-byte pieces are permuted so that the
//! eight lanes that are served at once meet different banks: for keys, which lanes read as four neighbouring pieces of two
//! tokens, pieces of odd tokens change halves of 128 bytes; for values, which are read as one piece of eight tokens, the
//! piece's number is XORed with the token's.

use inkwell::IntPredicate;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::Shape;
use crate::nvptx::{Emit, Int, Ptr};

/// Bytes of a piece, and elements.
const PIECE: u64 = 16;
const ELEMENTS: u64 = 8;

/// Who reads a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Lanes, for scores.
    Keys,
    /// Lanes, for sums of values.
    Values,
}

/// The extents of a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    reader: Reader,
    head_dim: u64,
    /// Pieces of a line that are read, and those that it is filled up to.
    pieces: u64,
    pitch: u64,
}

impl Stage {
    pub fn new(shape: &Shape, reader: Reader) -> Self {
        let head_dim = shape.cache.head_dim;
        let pieces = match reader {
            // Scores are summed over 32 columns at a time.
            Reader::Keys => head_dim.div_ceil(32) * 4,
            Reader::Values => head_dim / ELEMENTS,
        };
        Self { reader, head_dim, pieces, pitch: head_dim.div_ceil(64) * 8 }
    }

    /// Bytes of a page.
    pub fn bytes(&self) -> u32 {
        (PAGE_TOKENS * self.pitch * PIECE) as u32
    }

    /// Copies the first `tokens` (an i32, maybe past 64 or below 1) of a block of a page, and zeros for the others; all
    /// threads of the CTA do.
    pub fn copy<'c>(&self, e: &Emit<'c, '_>, stage: Ptr<'c>, block: Ptr<'c>, tokens: Int<'c>) {
        let lanes = self.pieces.next_power_of_two();
        let at_once = u64::from(e.threads()) / lanes;
        let (piece, first) =
            (e.rem(e.thread(), e.word(lanes as u32)), e.div(e.thread(), e.word(lanes as u32)));
        let inside = e.cmp(IntPredicate::ULT, piece, e.word((self.head_dim / ELEMENTS) as u32));
        let column = e.times(piece, ELEMENTS);
        let copy = || {
            for pass in 0..PAGE_TOKENS / at_once {
                let token = e.plus(first, pass * at_once);
                let there = e.and(inside, e.cmp(IntPredicate::SLT, token, tokens));
                let to = self.piece(e, stage, token, piece);
                let from = e.add(e.times(token, self.head_dim), column);
                let from = e.at(block, Dtype::Bf16, e.select(there, from, e.word(0)));
                e.copy_async(to, from, e.select(there, e.word(PIECE as u32), e.word(0)));
            }
        };
        if lanes == self.pieces {
            copy();
        } else {
            e.when(e.cmp(IntPredicate::ULT, piece, e.word(self.pieces as u32)), copy);
        }
    }

    /// Where a piece of a token lies.
    pub fn piece<'c>(&self, e: &Emit<'c, '_>, stage: Ptr<'c>, token: Int<'c>, piece: Int<'c>) -> Ptr<'c> {
        let turn = match self.reader {
            Reader::Keys => e.times(e.and(token, e.word(1)), 4),
            Reader::Values => e.and(token, e.word(7)),
        };
        let piece = e.xor(piece, turn);
        e.offset(stage, e.times(e.add(e.times(token, self.pitch), piece), PIECE))
    }
}
