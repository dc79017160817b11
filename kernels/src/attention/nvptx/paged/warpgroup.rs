//! The products of prefill by warpgroups, of sm_90a: 64 rows at a time. Queries and keys are read from shared memory, weights
//! from registers, and values from shared memory, where their rows are what is summed over.
//!
//! There is this form where
//!
//! * the target is sm_90,
//! * queries, cache and result are bf16, with queries and cache at multiples of 16 bytes, and
//! * a head is 64 or 128 wide, so that its columns fill whole boxes of the 128-byte swizzle.
//!
//! The tensor memory accelerator brings all of it. To it the cache is a matrix whose rows are the keys and values of a token
//! and head; the 64 of a page and head follow one another, so a page's keys or values are one box for each 64 columns. One
//! thread has them copied into a ring of three stages, keys and values by turns: while a page is worked on, the next page's
//! keys are on their way, and its values take the place of the keys that scores were made of.
//!
//! A box holds all tokens of a page, be they written or not. In a sequence's last page those from the tile's end on are
//! made zero once they are there: their weights are zero, but the product of zero and whatever lies there need not be.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::TensorMap;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::prefill::{Page, Part, Products, Rows, Span, Turn};
use super::warps::operand;
use super::{MAX_TENSOR_HEAD_DIM, Shape};
use crate::nvptx::ring::{Barriers, Place};
use crate::nvptx::{Any, Emit, Float, Int, Ptr, geometry};
use crate::spec::KernelSpec;
use crate::target::Sm;

/// Columns of a box.
const BLOCK: u64 = 64;
/// Rows of a box, of queries as of keys and values.
const LINES: u64 = PAGE_TOKENS;
/// Bytes of a row of a box.
const LINE_BYTES: u64 = 2 * BLOCK;
/// Bytes of a box.
const BOX_BYTES: u64 = LINES * LINE_BYTES;
/// What one instruction sums over.
const DEPTH: u64 = 16;
/// Stages of keys or values.
const STAGES: u32 = 3;
/// Warps that read a stage.
const READERS: u32 = 4;
/// A descriptor counts in so many bytes.
const UNIT: u64 = 16;

/// Where operands lie.
pub(super) struct Warpgroup<'c> {
    queries: Ptr<'c>,
    stages: Ptr<'c>,
    barriers: Barriers<'c>,
    rows: Rows<'c>,
    span: Span<'c>,
    head_dim: u64,
    /// KV heads.
    heads: u64,
}

/// The tensor maps: of the queries, and of the cache.
pub(super) fn maps(spec: &KernelSpec, shape: &Shape) -> [TensorMap; 2] {
    let ((q, queries), (kv, cache)) = (spec.operand("q"), spec.operand("kv"));
    let map = |arg, rows, columns, row_bytes| TensorMap {
        arg,
        dtype: Dtype::Bf16,
        rows,
        columns,
        row_bytes,
        box_rows: LINES as u32,
        box_columns: BLOCK as u32,
        swizzle: 128,
    };
    let head_dim = shape.cache.head_dim;
    let width = shape.cache.heads * shape.group * head_dim;
    // A row has 128 bytes or more, so that as many rows as coordinates count, 2^31, would be 256 GiB.
    let lines = geometry::rows(cache.ty.shape[0]).times(2 * shape.cache.heads * PAGE_TOKENS);
    [
        map(q, geometry::rows(queries.ty.shape[0]), width, 2 * queries.row_stride),
        map(kv, lines, head_dim, 2 * head_dim),
    ]
}

impl<'c> Warpgroup<'c> {
    /// Whether it is taken.
    pub fn takes(sm: Sm, shape: &Shape) -> bool {
        let head_dim = shape.cache.head_dim;
        sm == Sm::Sm90 && shape.tensor && head_dim.is_multiple_of(BLOCK) && head_dim <= MAX_TENSOR_HEAD_DIM
    }

    /// Bytes and alignments of shared memory: of queries, of the stages and of barriers.
    pub fn pieces(shape: &Shape) -> [(u32, u32); 3] {
        let stage = (shape.cache.head_dim / BLOCK * BOX_BYTES) as u32;
        [(stage, 1024), (STAGES * stage, 1024), (Barriers::bytes(STAGES), 8)]
    }

    /// With [`Warpgroup::pieces`] of shared memory.
    pub fn new(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, span: Span<'c>, space: &[Ptr<'c>]) -> Self {
        let barriers = Barriers::new(e, space[2], STAGES, READERS);
        let (head_dim, heads) = (shape.cache.head_dim, shape.cache.heads);
        Self { queries: space[0], stages: space[1], barriers, rows, span, head_dim, heads }
    }

    /// Boxes of a head.
    fn boxes(&self) -> u64 {
        self.head_dim / BLOCK
    }

    /// Bytes of a stage.
    fn stage_bytes(&self) -> u64 {
        self.boxes() * BOX_BYTES
    }

    fn stage(&self, e: &Emit<'c, '_>, place: Place<'c>) -> Ptr<'c> {
        e.offset(self.stages, e.times(place.stage, self.stage_bytes()))
    }

    /// The stages of a turn: of the page's keys, of its values, and of the next page's keys. The next page's values go where
    /// the page's keys are, a phase later.
    fn places(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) -> [Place<'c>; 3] {
        let keys = Place::of(turn.carried);
        let values = keys.next(e, STAGES);
        [keys, values, values.next(e, STAGES)]
    }

    /// In one thread, has a page's keys or values copied, and `more` bytes announced with them. A page that does not exist has
    /// nothing to copy.
    fn fill(&self, e: &Emit<'c, '_>, part: Part, page: Page<'c>, place: Place<'c>, more: u64) {
        let full = self.barriers.full(e, place.stage);
        let exists = e.cmp(IntPredicate::SGE, page.number, e.word(0));
        let bytes = e.select(exists, e.word(self.stage_bytes() as u32), e.word(0));
        e.mbarrier_expect(full, e.plus(bytes, more));
        e.when(exists, || {
            let block =
                e.add(e.times(e.plus(e.times(page.number, 2), part as u64), self.heads), self.span.head);
            let line = e.times(block, PAGE_TOKENS);
            for index in 0..self.boxes() {
                let to = e.offset(self.stage(e, place), e.word((index * BOX_BYTES) as u32));
                e.copy_box(to, e.map(1), (e.word((index * BLOCK) as u32), line), full);
            }
        });
    }

    /// Does something in the thread that has pages copied, where a condition holds.
    fn elected(e: &Emit<'c, '_>, condition: Option<IntValue<'c>>, body: impl FnOnce()) {
        let first = e.cmp(IntPredicate::EQ, e.thread(), e.word(0));
        e.when(condition.map_or(first, |condition| e.and(first, condition)), body);
        // What follows is for whole warps.
        e.warp_barrier();
    }

    /// Has the next page's keys or values copied to a place when all warps are done with what was there.
    fn refill(&self, e: &Emit<'c, '_>, part: Part, turn: &Turn<'c, '_>, place: Place<'c>) {
        Self::elected(e, Some(turn.more), || {
            e.mbarrier_wait(self.barriers.empty(e, place.stage), e.xor(place.phase, e.word(1)));
            self.fill(e, part, turn.next, place, 0);
        });
    }

    /// Waits for a page's keys or values.
    fn await_stage(&self, e: &Emit<'c, '_>, page: Page<'c>, place: Place<'c>) {
        e.mbarrier_wait(self.barriers.full(e, place.stage), place.phase);
        let tokens = self.span.tokens(e, page);
        e.when(e.cmp(IntPredicate::SLT, tokens, e.word(LINES as u32)), || {
            // Eight threads a line: whole lines are made zero, so that the swizzle does not matter.
            let (first, piece) = (e.shift_right(e.thread(), 3), e.and(e.thread(), e.word(7)));
            let at_once = u64::from(e.threads()) / 8;
            let stage = self.stage(e, place);
            for pass in 0..LINES / at_once {
                let line = e.plus(first, pass * at_once);
                e.when(e.cmp(IntPredicate::SGE, line, tokens), || {
                    let at = e.add(e.times(line, LINE_BYTES), e.times(piece, 16));
                    for index in 0..self.boxes() {
                        let place = e.offset(stage, e.plus(at, index * BOX_BYTES));
                        e.store_words(place, &[e.word(0); 4], 16);
                    }
                });
            }
            e.proxy_fence();
            e.barrier();
        });
    }

    /// The warp is done with a stage.
    fn release(&self, e: &Emit<'c, '_>, place: Place<'c>) {
        e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
            e.mbarrier_arrive(self.barriers.empty(e, place.stage));
        });
        e.warp_barrier();
    }
}

impl<'c> Products<'c> for Warpgroup<'c> {
    fn begin(&self, e: &Emit<'c, '_>, page: Page<'c>) -> Vec<Any<'c>> {
        let keys = Place { stage: e.word(0), phase: e.word(0) };
        Self::elected(e, None, || {
            // Queries come with the first keys. Rows of other sequences may be among them; nobody uses their sums.
            let full = self.barriers.full(e, keys.stage);
            self.fill(e, Part::Keys, page, keys, self.stage_bytes());
            for index in 0..self.boxes() {
                let column = e.plus(e.times(self.rows.tile.head, self.head_dim), index * BLOCK);
                let to = e.offset(self.queries, e.word((index * BOX_BYTES) as u32));
                e.copy_box(to, e.map(0), (column, self.rows.tile.rows.0), full);
            }
            self.fill(e, Part::Values, page, keys.next(e, STAGES), 0);
        });
        keys.values().to_vec()
    }

    fn await_keys(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) {
        let [keys, _, next_keys] = self.places(e, turn);
        self.refill(e, Part::Keys, turn, next_keys);
        self.await_stage(e, turn.page, keys);
    }

    fn scores(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) -> Vec<[Float<'c>; 4]> {
        let [place, ..] = self.places(e, turn);
        let [queries, keys] = [self.queries, self.stage(e, place)].map(|base| e.descriptor(base));
        let zeros = vec![e.float(0.0).into(); PAGE_TOKENS as usize / 2];
        let mut sums: Vec<_> = e.wgmma_begin(&zeros).into_iter().map(Any::into_float_value).collect();
        for column in (0..self.head_dim).step_by(DEPTH as usize) {
            let offset = (column / BLOCK * BOX_BYTES + column % BLOCK * 2) / UNIT;
            sums = e.wgmma(e.plus(queries, offset), e.plus(keys, offset), &sums);
        }
        e.wgmma_commit();
        let sums = e.wgmma_end(&sums);
        self.release(e, place);
        by_eight(&sums)
    }

    fn await_values(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) {
        let [keys, values, _] = self.places(e, turn);
        let next_values = Place { phase: e.xor(keys.phase, e.word(1)), ..keys };
        self.refill(e, Part::Values, turn, next_values);
        self.await_stage(e, turn.page, values);
    }

    fn sum_values(
        &self,
        e: &Emit<'c, '_>,
        turn: &Turn<'c, '_>,
        weights: &[[Float<'c>; 4]],
        sums: &mut [[Float<'c>; 4]],
    ) {
        let [_, place, _] = self.places(e, turn);
        let values: Int<'c> = e.descriptor_by_rows(self.stage(e, place), BOX_BYTES as u32);
        let operands = weights.chunks(2).flat_map(|weights| operand(e, weights));
        let words: Vec<Any<'c>> = operands.map(Any::from).collect();
        let written = [words.clone(), sums.iter().flatten().map(|sum| Any::from(*sum)).collect()].concat();
        let ready = e.wgmma_begin(&written);
        let (words, flat) = ready.split_at(words.len());
        let mut flat: Vec<_> = flat.iter().map(|sum| sum.into_float_value()).collect();
        let operands = words.chunks(4).map(|four| std::array::from_fn(|index| four[index].into_int_value()));
        for (token, weights) in (0..).step_by(DEPTH as usize).zip(operands) {
            let values = e.plus(values, token * LINE_BYTES / UNIT);
            flat = e.wgmma_registers(weights, values, &flat);
        }
        e.wgmma_commit();
        sums.copy_from_slice(&by_eight(&e.wgmma_end(&flat)));
        self.release(e, place);
    }

    fn next(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) -> Vec<Any<'c>> {
        let [_, _, next_keys] = self.places(e, turn);
        next_keys.values().to_vec()
    }
}

/// Sums by eight columns.
fn by_eight<'c>(sums: &[Float<'c>]) -> Vec<[Float<'c>; 4]> {
    sums.as_chunks().0.to_vec()
}
