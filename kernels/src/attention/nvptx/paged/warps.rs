//! The products of prefill by warps: 16 rows each, operands from registers and, for keys and values, from shared memory.
//!
//! There is one copy of each in shared memory: values arrive while scores are computed, and the next page's keys while values
//! are summed.

use inkwell::IntPredicate;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::prefill::{COLUMNS, Page, Products, Rows, Span, Turn};
use super::stage::{Reader, Stage};
use super::{Shape, words_where};
use crate::attention::nvptx::cache::Cache;
use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// Where operands lie.
pub(super) struct Warps<'c> {
    keys: (Stage, Ptr<'c>),
    values: (Stage, Ptr<'c>),
    /// Queries of the lane's two rows, by 32 columns.
    queries: [Vec<[Int<'c>; 4]>; 2],
    rows: Rows<'c>,
    cache: Cache,
    span: Span<'c>,
}

/// What of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Keys,
    Values,
}

impl<'c> Warps<'c> {
    fn stages(shape: &Shape) -> [Stage; 2] {
        [Reader::Keys, Reader::Values].map(|reader| Stage::new(shape, reader))
    }

    /// Bytes and alignments of shared memory.
    pub fn pieces(shape: &Shape) -> [(u32, u32); 2] {
        Self::stages(shape).map(|stage| (stage.bytes(), 128))
    }

    /// With [`Warps::pieces`] of shared memory.
    pub fn new(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, span: Span<'c>, space: &[Ptr<'c>]) -> Self {
        let [keys, values] = Self::stages(shape);
        let queries = rows.own.map(|row| queries(e, shape, rows, e.min(row, rows.last)));
        let cache = shape.cache;
        Self { keys: (keys, space[0]), values: (values, space[1]), queries, rows, cache, span }
    }

    /// Begins to copy what is there of a page's keys or values.
    fn copy(&self, e: &Emit<'c, '_>, part: Part, page: Page<'c>) {
        let (stage, space) = match part {
            Part::Keys => self.keys,
            Part::Values => self.values,
        };
        let block = self.cache.block(e, e.max(page.number, e.word(0)), part as u64, self.span.head);
        stage.copy(e, space, block, self.span.tokens(e, page));
    }

    /// Waits for the copies, and for all warps to be here.
    fn arrive(e: &Emit<'c, '_>) {
        e.copies_wait(0);
        e.barrier();
    }
}

impl<'c> Products<'c> for Warps<'c> {
    fn begin(&self, e: &Emit<'c, '_>, page: Page<'c>) -> Vec<Any<'c>> {
        self.copy(e, Part::Keys, page);
        e.copies_commit();
        Vec::new()
    }

    fn await_keys(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) {
        // This page's keys are there, and nobody reads values any more.
        Self::arrive(e);
        self.copy(e, Part::Values, turn.page);
        e.copies_commit();
    }

    fn scores(&self, e: &Emit<'c, '_>, _: &Turn<'c, '_>) -> Vec<[Float<'c>; 4]> {
        let ((stage, space), lane) = (self.keys, self.rows.lane);
        // A token's pieces move with its lowest bit alone, so eight tokens on they lie at a constant distance.
        let pieces: Vec<_> = (0..self.queries[0].len() as u64)
            .map(|chunk| stage.piece(e, space, lane.g, e.plus(lane.t, 4 * chunk)))
            .collect();
        (0..PAGE_TOKENS / COLUMNS)
            .map(|tokens| {
                let distance =
                    e.word(u32::from(tokens as u16) * stage.bytes() / (PAGE_TOKENS / COLUMNS) as u32);
                let mut sums = [e.float(0.0); 4];
                for (chunk, piece) in pieces.iter().enumerate() {
                    let ty = e.context.i32_type().vec_type(4);
                    let loaded = e.load_aligned(ty, e.offset(*piece, distance), 16).into_vector_value();
                    let key: [Int<'c>; 4] =
                        std::array::from_fn(|word| e.extract(loaded, word as u32).into_int_value());
                    let [near, far] = [self.queries[0][chunk], self.queries[1][chunk]];
                    for half in [0, 2] {
                        let a = [near[half], far[half], near[half + 1], far[half + 1]];
                        sums = e.mma(a, [key[half], key[half + 1]], sums);
                    }
                }
                sums
            })
            .collect()
    }

    fn await_values(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) {
        // The values are there, and nobody reads keys any more.
        Self::arrive(e);
        e.when(turn.more, || self.copy(e, Part::Keys, turn.next));
        e.copies_commit();
    }

    fn sum_values(
        &self,
        e: &Emit<'c, '_>,
        _: &Turn<'c, '_>,
        weights: &[[Float<'c>; 4]],
        sums: &mut [[Float<'c>; 4]],
    ) {
        let (stage, space) = self.values;
        // Lanes 8 i to 8 i + 7 give the tokens of matrix i: tokens 0 to 7 or 8 to 15, of eight columns or the next eight.
        let lane = e.lane();
        let token = e.and(lane, e.word(15));
        let next = e.shift_right(lane, 4);
        let pairs = sums.len().div_ceil(2);
        let pieces: Vec<_> = (0..pairs)
            .map(|pair| {
                let first = e.word(2 * pair as u32);
                let alone = 2 * pair + 1 == sums.len();
                stage.piece(e, space, token, if alone { first } else { e.add(first, next) })
            })
            .collect();
        for (step, weights) in weights.chunks(2).enumerate() {
            let a = operand(e, weights);
            // Sixteen tokens on, pieces lie at a constant distance.
            let distance = e.word(step as u32 * stage.bytes() / (PAGE_TOKENS / 16) as u32);
            for (piece, sums) in pieces.iter().zip(sums.chunks_mut(2)) {
                let values = e.ldmatrix(e.offset(*piece, distance), true);
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum = e.mma(a, [values[2 * at], values[2 * at + 1]], *sum);
                }
            }
        }
    }

    fn next(&self, _: &Emit<'c, '_>, _: &Turn<'c, '_>) -> Vec<Any<'c>> {
        Vec::new()
    }
}

/// The weights of sixteen tokens as an operand.
pub(super) fn operand<'c>(e: &Emit<'c, '_>, weights: &[[Float<'c>; 4]]) -> [Int<'c>; 4] {
    let [near, far] = [weights[0], weights[1]];
    [e.pack(near[0], near[1]), e.pack(near[2], near[3]), e.pack(far[0], far[1]), e.pack(far[2], far[3])]
}

/// A row's part of the queries' operand: columns 8t to 8t + 7 of each 32. The order of the columns that are summed over is
/// free, as long as keys have the same.
fn queries<'c>(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, row: Int<'c>) -> Vec<[Int<'c>; 4]> {
    let head_dim = shape.cache.head_dim;
    let line = e.row(e.operand("q"), e.add(rows.tile.rows.0, row));
    let chunk = |chunk: u64| {
        let column = e.plus(e.times(rows.lane.t, 8), 32 * chunk);
        let inside = e.cmp(IntPredicate::ULT, column, e.word(head_dim as u32));
        words_where(e, (32 * (chunk + 1) > head_dim).then_some(inside), || {
            e.at(line, Dtype::Bf16, e.add(e.times(rows.tile.head, head_dim), column))
        })
    };
    (0..head_dim.div_ceil(32)).map(chunk).collect()
}
