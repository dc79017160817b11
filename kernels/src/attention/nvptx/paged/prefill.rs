//! Prefill on tensor cores: a CTA takes 64 rows of a sequence and one query head, a warp 16 of them, page after page.
//!
//! Keys and values of a page go through shared memory; how, and who multiplies, is a matter of [`Products`]: of warps, or of
//! the warpgroups of sm_90a. Scores never leave the registers, whose layout as a product is that of an operand of the next.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::Geometry;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::tile::{self, Tile};
use super::warpgroup::{self, Warpgroup};
use super::warps::Warps;
use super::{LOWEST, Shape, fade, normalizer, weight};
use crate::attention::nvptx::cache::Cache;
use crate::nvptx::{Any, Candidate, Emit, Float, Form, Int, Kernel, Needs, SharedBytes, geometry};
use crate::spec::KernelSpec;
use crate::target::Sm;

/// Rows of a CTA, and of a warp.
const ROWS: u64 = 64;
const WARP_ROWS: u64 = 16;
const THREADS: u32 = (ROWS / WARP_ROWS) as u32 * 32;
/// Warpgroups of an SM that are wanted: while one weighs scores, others keep the tensor cores busy.
const WARPGROUPS: u32 = 3;
/// Tokens whose scores one instruction gives, and columns of values that it sums.
pub(super) const COLUMNS: u64 = 8;
const BF16: Dtype = Dtype::Bf16;

/// A lane's place: rows g and g + 8 of its warp, columns 2t and 2t + 1 of each eight.
#[derive(Clone, Copy)]
pub(super) struct Lane<'c> {
    pub g: Int<'c>,
    pub t: Int<'c>,
}

/// What a lane keeps of its two rows.
struct Running<'c> {
    largest: [Float<'c>; 2],
    /// Sums of the weights of the lane's own tokens.
    totals: [Float<'c>; 2],
    /// By eight columns of values.
    sums: Vec<[Float<'c>; 4]>,
}

impl<'c> Running<'c> {
    fn new(e: &Emit<'c, '_>, head_dim: u64) -> Self {
        let (lowest, zero) = (e.float(LOWEST), e.float(0.0));
        let sums = vec![[zero; 4]; (head_dim / COLUMNS) as usize];
        Self { largest: [lowest; 2], totals: [zero; 2], sums }
    }

    fn values(&self) -> Vec<Any<'c>> {
        let all = self.largest.iter().chain(&self.totals).chain(self.sums.iter().flatten());
        all.map(|value| (*value).into()).collect()
    }

    fn from_values(values: &[Any<'c>]) -> Self {
        let value = |index: usize| values[index].into_float_value();
        let sums = (1..values.len() / 4).map(|at| std::array::from_fn(|sum| value(4 * at + sum)));
        Self { largest: [value(0), value(1)], totals: [value(2), value(3)], sums: sums.collect() }
    }
}

/// The products of a tile of rows: with keys, and with values, page after page. What a page's [`Turn`] carries belongs to
/// the implementation.
pub(super) trait Products<'c> {
    /// Begins to copy the first page's keys; gives what the first turn carries.
    fn begin(&self, e: &Emit<'c, '_>, page: Page<'c>) -> Vec<Any<'c>>;

    /// Waits until the page's keys are there.
    fn await_keys(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>);

    /// Scores of the warp's rows, by eight tokens.
    fn scores(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) -> Vec<[Float<'c>; 4]>;

    /// Waits until the page's values are there.
    fn await_values(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>);

    /// Adds the page's weighted values, by eight columns.
    fn sum_values(
        &self,
        e: &Emit<'c, '_>,
        turn: &Turn<'c, '_>,
        weights: &[[Float<'c>; 4]],
        sums: &mut [[Float<'c>; 4]],
    );

    /// What the next turn carries.
    fn next(&self, e: &Emit<'c, '_>, turn: &Turn<'c, '_>) -> Vec<Any<'c>>;
}

/// A page of a sequence: which of its pages, and its number in the cache, negative where there is none.
#[derive(Clone, Copy)]
pub(super) struct Page<'c> {
    pub index: Int<'c>,
    pub number: Int<'c>,
}

/// What of a page, by its place in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Keys,
    Values,
}

/// A page is worked on.
pub(super) struct Turn<'c, 'a> {
    pub page: Page<'c>,
    /// The page after it, and whether there is one (i1).
    pub next: Page<'c>,
    pub more: IntValue<'c>,
    /// What [`Products`] handed on.
    pub carried: &'a [Any<'c>],
}

/// What a tile of rows sees of its sequence.
#[derive(Clone, Copy)]
pub(super) struct Span<'c> {
    sequence: Int<'c>,
    /// The KV head.
    pub head: Int<'c>,
    /// Index of the first page, and of the last.
    first: Int<'c>,
    last: Int<'c>,
    /// Position of the last row.
    last_position: Int<'c>,
}

/// The rows of a tile as a lane sees them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'c> {
    pub tile: Tile<'c>,
    pub lane: Lane<'c>,
    /// The last of the tile's rows.
    pub last: Int<'c>,
    /// The lane's rows; they may lie behind the last.
    pub own: [Int<'c>; 2],
}

/// The kernels that there are, by warpgroups and by warps.
pub(super) fn kernels(sm: Sm, spec: &KernelSpec, shape: Shape) -> Vec<Kernel> {
    let warpgroups = Warpgroup::takes(sm, &shape).then(|| kernel(spec, shape, Form::Warpgroup));
    warpgroups.into_iter().chain([kernel(spec, shape, Form::Tile)]).collect()
}

fn kernel(spec: &KernelSpec, shape: Shape, form: Form) -> Kernel {
    let heads = shape.cache.heads * shape.group;
    let warpgroup = form == Form::Warpgroup;
    let pieces = if warpgroup { Warpgroup::pieces(&shape).to_vec() } else { Warps::pieces(&shape).to_vec() };
    let shared = pieces.iter().fold(SharedBytes::default(), |sum, (bytes, align)| sum.and(*bytes, *align)).0;
    let maps = if warpgroup { warpgroup::maps(spec, &shape).to_vec() } else { Vec::new() };
    let geometry = Geometry { shared, maps, ..geometry::of(tile::grid(ROWS, heads), THREADS) };
    // A page of keys and one of values.
    let page = 2 * 2 * PAGE_TOKENS * shape.cache.head_dim;
    let resident = if warpgroup { WARPGROUPS } else { 2 };
    let needs = Needs { waits: 3, ..Needs::of_residents(THREADS, resident, page) };
    Kernel::of(Candidate { form, geometry, needs, cut: None }, move |e| {
        let space: Vec<_> = pieces.iter().map(|(bytes, align)| e.shared(*bytes, *align)).collect();
        let tile = Tile::of(e, ROWS, heads);
        e.when(tile.exists(e), || {
            let rows = Rows::of(e, tile);
            let span = Span::of(e, &shape, rows);
            if warpgroup {
                e.resident(WARPGROUPS);
                attend(e, &shape, rows, span, &Warpgroup::new(e, &shape, rows, span, &space));
            } else {
                attend(e, &shape, rows, span, &Warps::new(e, &shape, rows, span, &space));
            }
        });
        Ok(())
    })
}

impl<'c> Rows<'c> {
    fn of(e: &Emit<'c, '_>, tile: Tile<'c>) -> Self {
        let lane = Lane { g: e.shift_right(e.lane(), 2), t: e.and(e.lane(), e.word(3)) };
        let last = e.sub(e.min(e.sub(tile.rows.1, tile.rows.0), e.word(ROWS as u32)), e.word(1));
        let own = e.add(e.times(e.warp(), WARP_ROWS), lane.g);
        Self { tile, lane, last, own: [0, 8].map(|offset| e.plus(own, offset)) }
    }
}

impl<'c> Span<'c> {
    fn of(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>) -> Self {
        let Rows { tile, last, .. } = rows;
        let page_bits = u64::from(PAGE_TOKENS.ilog2());
        let last_position = e.add(tile.position, last);
        Self {
            sequence: tile.sequence,
            head: e.div(tile.head, e.word(shape.group as u32)),
            first: e.shift_right(shape.first_seen(e, tile.position), page_bits),
            last: e.shift_right(last_position, page_bits),
            last_position,
        }
    }

    /// The page so many after the one of an index, or the last.
    fn page_after(&self, e: &Emit<'c, '_>, index: Int<'c>, distance: u64) -> Page<'c> {
        let index = e.min(e.plus(index, distance), self.last);
        Page { index, number: Cache::page(e, self.sequence, index) }
    }

    /// Tokens of a page that are there, maybe past a page's end: none where there is no page.
    pub fn tokens(&self, e: &Emit<'c, '_>, page: Page<'c>) -> Int<'c> {
        let exists = e.cmp(IntPredicate::SGE, page.number, e.word(0));
        let there = e.plus(e.sub(self.last_position, e.times(page.index, PAGE_TOKENS)), 1);
        e.select(exists, there, e.word(0))
    }
}

fn attend<'c>(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, span: Span<'c>, products: &impl Products<'c>) {
    // The numbers of pages are there a turn before they are needed.
    let first = span.page_after(e, span.first, 0);
    let second = span.page_after(e, span.first, 1);
    let carried = products.begin(e, first);
    let count = carried.len();
    let mut initial = vec![first.number.into(), second.number.into()];
    initial.extend(carried);
    initial.extend(Running::new(e, shape.cache.head_dim).values());
    let state = e.fold((span.first, e.plus(span.last, 1), 1), &initial, |index, state| {
        let (numbers, state) = state.split_at(2);
        let (carried, running) = state.split_at(count);
        let page = Page { index, number: numbers[0].into_int_value() };
        let next = Page { index: e.min(e.plus(index, 1), span.last), number: numbers[1].into_int_value() };
        let later = span.page_after(e, index, 2);
        let more = e.cmp(IntPredicate::SLT, index, span.last);
        let turn = Turn { page, next, more, carried };
        products.await_keys(e, &turn);
        let scores = products.scores(e, &turn);
        let scores = masked(e, shape, &scores, (rows, span), page);
        let (mut running, weights) = weigh(e, shape, Running::from_values(running), &scores);
        products.await_values(e, &turn);
        products.sum_values(e, &turn, &weights, &mut running.sums);
        let mut after = vec![next.number.into(), later.number.into()];
        after.extend(products.next(e, &turn));
        after.extend(running.values());
        after
    });
    store(e, shape, rows, &Running::from_values(&state[2 + count..]));
}

/// Scores, -infinity where a row does not see a token. Most pages are seen whole by all rows.
fn masked<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    scores: &[[Float<'c>; 4]],
    (rows, span): (Rows<'c>, Span<'c>),
    page: Page<'c>,
) -> Vec<[Float<'c>; 4]> {
    let base = e.times(page.index, PAGE_TOKENS);
    let ahead = e.cmp(IntPredicate::SGT, e.plus(base, PAGE_TOKENS - 1), rows.tile.position);
    let missing = e.cmp(IntPredicate::SLT, page.number, e.word(0));
    let behind = e.cmp(IntPredicate::SLT, base, shape.first_seen(e, span.last_position));
    let partial = e.or(ahead, e.or(missing, behind));
    let flat = || scores.iter().flatten().map(|score| Any::from(*score)).collect();
    let chosen = e.choose(
        partial,
        || {
            // Tokens of the page that a row sees: from `low` to `high`, none where there is no page.
            let spans = rows.own.map(|row| {
                let position = e.add(rows.tile.position, row);
                let low = e.sub(shape.first_seen(e, position), base);
                (low, e.select(missing, e.word(u32::MAX), e.sub(position, base)))
            });
            let mut all = Vec::new();
            for (tokens, scores) in (0..).zip(scores) {
                for (at, score) in (0..).zip(scores) {
                    let (low, high) = spans[at / 2];
                    let token = e.plus(e.times(rows.lane.t, 2), COLUMNS * tokens + at as u64 % 2);
                    let mut seen = e.cmp(IntPredicate::SLE, token, high);
                    if shape.window > 0 {
                        seen = e.and(seen, e.cmp(IntPredicate::SGE, token, low));
                    }
                    all.push(e.select(seen, *score, e.float(f64::NEG_INFINITY)).into());
                }
            }
            all
        },
        flat,
    );
    let chunks = chosen.chunks(4);
    chunks.map(|chunk| std::array::from_fn(|at| chunk[at].into_float_value())).collect()
}

/// Turns scores into weights, relative to the largest score so far; sums so far fade accordingly.
fn weigh<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    mut running: Running<'c>,
    scores: &[[Float<'c>; 4]],
) -> (Running<'c>, Vec<[Float<'c>; 4]>) {
    let mut fades = [e.float(1.0); 2];
    for row in 0..2 {
        let before = running.largest[row];
        let own = scores.iter().flat_map(|scores| [scores[2 * row], scores[2 * row + 1]]);
        let found = own.reduce(|a, b| e.fmax(a, b)).unwrap_or(before);
        let found = [1, 2].iter().fold(found, |found, mask| e.fmax(found, e.shuffle_xor(found, *mask)));
        running.largest[row] = e.fmax(before, found);
        fades[row] = fade(e, shape, before, running.largest[row]);
        running.totals[row] = e.fmul(running.totals[row], fades[row]);
    }
    let weights: Vec<[Float<'c>; 4]> = scores
        .iter()
        .map(|scores| std::array::from_fn(|at| weight(e, shape, scores[at], running.largest[at / 2])))
        .collect();
    for weights in &weights {
        for (row, total) in running.totals.iter_mut().enumerate() {
            *total = e.fadd(*total, e.fadd(weights[2 * row], weights[2 * row + 1]));
        }
    }
    for sums in &mut running.sums {
        *sums = std::array::from_fn(|at| e.fmul(sums[at], fades[at / 2]));
    }
    (running, weights)
}

/// The results of the warp's rows.
fn store<'c>(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, running: &Running<'c>) {
    let Rows { tile, lane, last, own } = rows;
    let (y, layout) = e.result();
    let first_column = e.times(tile.head, shape.cache.head_dim);
    for (index, row) in own.into_iter().enumerate() {
        let sum = |total: Float<'c>, mask| e.fadd(total, e.shuffle_xor(total, mask));
        let scale = normalizer(e, [1, 2].into_iter().fold(running.totals[index], sum));
        let sums: Vec<[Float<'c>; 2]> = running
            .sums
            .iter()
            .map(|sums| [e.fmul(sums[2 * index], scale), e.fmul(sums[2 * index + 1], scale)])
            .collect();
        let there = e.cmp(IntPredicate::SLE, row, last);
        let line = e.row((y, layout), e.add(tile.rows.0, row));
        let place = |column| e.at(line, layout.dtype(), e.add(first_column, column));
        if layout.dtype() == BF16 && shape.vectors.1 == 8 {
            // The four lanes of a row exchange words until each has eight neighbouring columns of each 32.
            let mut words: Vec<Int<'c>> = sums.iter().map(|sums| e.pack(sums[0], sums[1])).collect();
            words.resize(words.len().next_multiple_of(4), e.word(0));
            let words: Vec<_> = words.chunks(4).flat_map(|words| transposed(e, lane, words)).collect();
            e.when(there, || {
                for (chunk, words) in (0..).zip(words.chunks(4)) {
                    let column = e.plus(e.times(lane.t, 8), 32 * chunk);
                    let store = || e.store_words(place(column), words, 16);
                    if 32 * (chunk + 1) > shape.cache.head_dim {
                        let inside = e.cmp(IntPredicate::ULT, column, e.word(shape.cache.head_dim as u32));
                        e.when(inside, store);
                    } else {
                        store();
                    }
                }
            });
        } else {
            e.when(there, || {
                for (at, sums) in (0..).zip(&sums) {
                    let column = e.plus(e.times(lane.t, 2), COLUMNS * at);
                    e.store(place(column), layout.dtype(), sums, shape.vectors.1);
                }
            });
        }
    }
}

/// Transposes four words of each of four lanes: lane t gets the t-th words, in the order of the lanes.
fn transposed<'c>(e: &Emit<'c, '_>, lane: Lane<'c>, words: &[Int<'c>]) -> Vec<Int<'c>> {
    let mut words = words.to_vec();
    for bit in [1, 2_usize] {
        let set = e.cmp(IntPredicate::NE, e.and(lane.t, e.word(bit as u32)), e.word(0));
        for low in (0..4).filter(|at| at & bit == 0) {
            let high = low | bit;
            let sent = e.select(set, words[low], words[high]);
            let got = e.shuffle_xor_int(sent, bit as u32);
            (words[low], words[high]) = (e.select(set, got, words[low]), e.select(set, words[high], got));
        }
    }
    words
}
