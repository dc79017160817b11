//! Grouped-query attention over pages with a running softmax (Milakov & Gimelshein, 2018).
//!
//! A row and a tile of query heads go through the sequence's pages in order, so the bits depend on that
//! sequence alone. The heads of a tile share a KV head: each key and value is widened once for all of them.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::cache::{Cache, position};
use crate::host::{Any, Emit, Float, Int, Lanes, Ptr};
use crate::target::Level;

const F32: Dtype = Dtype::F32;
/// Below every score.
const LOWEST: f64 = f32::MIN as f64;

/// Heads that are computed together.
#[derive(Clone, Copy)]
struct Tile {
    /// How many; they share a KV head.
    heads: u64,
    /// Keys whose scores are summed at once: with the heads, as many sums as registers hold.
    keys: u32,
    /// Registers of head_dim in which values are summed at once.
    registers: usize,
}

impl Tile {
    fn of(e: &Emit<'_, '_>, shared_by: u64) -> Self {
        let (most, registers) = match e.target().level() {
            Level::V3 => (2, 2),
            Level::V4 => (5, 4),
        };
        let heads = (1..=most).rev().find(|heads| shared_by.is_multiple_of(*heads)).unwrap_or(1);
        Self { heads, keys: if heads == 1 { e.width() } else { 4 }, registers }
    }
}

/// What one row and tile of query heads work on.
#[derive(Clone, Copy)]
struct Query<'c> {
    /// The queries `[heads, padded head_dim]`, in f32.
    q: Ptr<'c>,
    /// Weighted sums of values `[heads, padded head_dim]`.
    sums: Ptr<'c>,
    /// Scores of a page, then their weights `[heads, 64]`.
    scores: Ptr<'c>,
    /// First and one past the last position attended to.
    span: (Int<'c>, Int<'c>),
}

/// Elements of head_dim, filled up to whole registers.
fn padded(e: &Emit<'_, '_>, cache: Cache) -> u64 {
    cache.head_dim.next_multiple_of(u64::from(e.width()))
}

/// The registers of head_dim: first element and lanes in use.
fn pieces(e: &Emit<'_, '_>, cache: Cache) -> Vec<(u64, u32)> {
    let width = u64::from(e.width());
    let lanes = |at: u64| (cache.head_dim - at).min(width) as u32;
    (0..cache.head_dim).step_by(e.width() as usize).map(|at| (at, lanes(at))).collect()
}

pub(super) fn paged_attention(e: &Emit<'_, '_>) -> Result<(), String> {
    let cache = Cache::of(e)?;
    let (q, y) = (e.operand("q"), e.result());
    let shared_by = q.1.ty.width().unwrap_or(0) / cache.head_dim / cache.heads;
    if cache.head_dim > 1024 {
        return Err(format!("head_dim is {}; up to 1024 fit the work space", cache.head_dim));
    }
    let tile = Tile::of(e, shared_by);
    let space = tile.heads * padded(e, cache);
    let (queries, sums) = (e.scratch(space), e.scratch(space));
    let scores = e.scratch(tile.heads * PAGE_TOKENS);
    let window = e.spec().int("window");
    let rows = e.dim(q.1.ty.shape[0]);
    let tiles = cache.heads * shared_by / tile.heads;
    e.each_sequence_row((e.int(0), rows), |sequence, row| {
        let end = e.plus(position(e, sequence, row), 1);
        let start = if window == 0 { e.int(0) } else { e.max(e.sub(end, e.int(window)), e.int(0)) };
        e.each(e.int(0), e.int(tiles), |index| {
            // Later rows attend to more: neighbouring items go to different threads.
            let item = e.add(e.times(row, tiles), index);
            let mine = e.cmp(IntPredicate::EQ, e.rem(item, e.threads()), e.thread());
            e.when(mine, || {
                let first = e.times(index, tile.heads * cache.head_dim);
                let from = e.at(e.row(q, row), q.1.dtype(), first);
                gather(e, cache, tile, (from, q.1.dtype()), queries);
                let kv_head = e.div(e.times(index, tile.heads), e.int(shared_by));
                let query = Query { q: queries, sums, scores, span: (start, end) };
                let totals =
                    attend(e, cache, tile, query, |position| Cache::page(e, sequence, position), kv_head);
                let to = e.at(e.row(y, row), y.1.dtype(), first);
                scatter(e, cache, tile, query, &totals, (to, y.1.dtype()));
            });
        });
    });
    Ok(())
}

/// The tile's queries, widened.
fn gather<'c>(e: &Emit<'c, '_>, cache: Cache, tile: Tile, (from, dtype): (Ptr<'c>, Dtype), to: Ptr<'c>) {
    for head in 0..tile.heads {
        for (at, lanes) in pieces(e, cache) {
            let value = e.load(e.at(from, dtype, e.int(head * cache.head_dim + at)), dtype, lanes);
            e.store(e.at(to, F32, e.int(head * padded(e, cache) + at)), F32, e.width(), value);
        }
    }
}

/// The weighted sums over the sums of weights.
fn scatter<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    tile: Tile,
    query: Query<'c>,
    totals: &[Float<'c>],
    (to, dtype): (Ptr<'c>, Dtype),
) {
    for (head, total) in (0..tile.heads).zip(totals) {
        // A row without any page attends to nothing.
        let total = e.fmax(*total, e.float(f64::from(f32::MIN_POSITIVE)));
        let scale = e.splat(e.fdiv(e.float(1.0), total));
        for (at, lanes) in pieces(e, cache) {
            let sum = e.load(e.at(query.sums, F32, e.int(head * padded(e, cache) + at)), F32, e.width());
            let place = e.at(to, dtype, e.int(head * cache.head_dim + at));
            e.store(place, dtype, lanes, e.fmul(sum, scale));
        }
    }
}

/// Goes through the pages; gives the sum of weights of each head, and leaves the sums of values in place.
fn attend<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    tile: Tile,
    query: Query<'c>,
    page_of: impl Fn(Int<'c>) -> Int<'c>,
    kv_head: Int<'c>,
) -> Vec<Float<'c>> {
    let (start, end) = query.span;
    for at in (0..tile.heads * padded(e, cache)).step_by(e.width() as usize) {
        e.store(e.at(query.sums, F32, e.int(at)), F32, e.width(), e.lanes(0.0));
    }
    let first_page = e.times(e.div(start, e.int(PAGE_TOKENS)), PAGE_TOKENS);
    // The largest score and the sum of weights of each head.
    let initial: Vec<Any<'c>> =
        (0..tile.heads).flat_map(|_| [e.float(LOWEST).into(), e.float(0.0).into()]).collect();
    let state = e.fold((first_page, end, PAGE_TOKENS), &initial, |base, state| {
        let page = page_of(base);
        e.choose(
            e.cmp(IntPredicate::SGE, page, e.int(0)),
            || {
                // Tokens of this page: from `low` below `high`.
                let high = e.min(e.sub(end, base), e.int(PAGE_TOKENS));
                let low = e.sub(start, base);
                page_scores(e, cache, tile, query, cache.block(e, page, 0, kv_head), high);
                let mut fades = Vec::new();
                let mut next: Vec<Any<'c>> = Vec::new();
                for (head, state) in (0..tile.heads).zip(state.chunks(2)) {
                    let (old, total) = (state[0].into_float_value(), state[1].into_float_value());
                    let scores = e.at(query.scores, F32, e.int(head * PAGE_TOKENS));
                    let largest = e.fmax(old, largest(e, scores, (low, high)));
                    let fade = e.exp(e.splat(e.fsub(old, largest)));
                    let sum = weights(e, scores, largest, (low, high));
                    let total = e.fma(total, e.extract(fade, 0).into_float_value(), sum);
                    fades.push(fade);
                    next.extend([Any::from(largest), total.into()]);
                }
                let values = cache.block(e, page, 1, kv_head);
                page_values(e, cache, tile, query, values, &fades, (e.max(low, e.int(0)), high));
                next
            },
            || state.to_vec(),
        )
    });
    state.chunks(2).map(|state| state[1].into_float_value()).collect()
}

/// Products of the tile's queries with a page's keys.
fn page_scores<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    tile: Tile,
    query: Query<'c>,
    keys: Ptr<'c>,
    high: Int<'c>,
) {
    e.step_by(e.int(0), high, u64::from(tile.keys), |token| {
        let mut sums = vec![vec![e.lanes(0.0); tile.keys as usize]; tile.heads as usize];
        for (at, lanes) in pieces(e, cache) {
            let queries: Vec<_> = (0..tile.heads)
                .map(|head| e.load(e.at(query.q, F32, e.int(head * padded(e, cache) + at)), F32, e.width()))
                .collect();
            for key in 0..tile.keys as usize {
                // Tokens past the end are read too: the page is there, and they get no weight.
                let line = e.times(e.plus(token, key as u64), cache.head_dim);
                let value = e.load(e.at(keys, cache.dtype, e.plus(line, at)), cache.dtype, lanes);
                for (sums, query) in sums.iter_mut().zip(&queries) {
                    sums[key] = e.fma(*query, value, sums[key]);
                }
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            let place = e.plus(token, head as u64 * PAGE_TOKENS);
            e.store(e.at(query.scores, F32, place), F32, tile.keys, e.sums(sums));
        }
    });
}

/// Scales a page's scores of one head, masks them, and gives the largest.
fn largest<'c>(e: &Emit<'c, '_>, scores: Ptr<'c>, (low, high): (Int<'c>, Int<'c>)) -> Float<'c> {
    let initial = [Any::from(e.lanes(LOWEST))];
    let largest = e.fold((e.int(0), high, u64::from(e.width())), &initial, |token, largest| {
        let place = e.at(scores, F32, token);
        let scaled = e.fmul(e.load(place, F32, e.width()), e.lanes(e.spec().float("scale")));
        let scaled = attended(e, token, (low, high), scaled, e.lanes(LOWEST));
        e.store(place, F32, e.width(), scaled);
        vec![e.fmax(scaled, largest[0].into_vector_value()).into()]
    });
    e.max_lane(largest[0].into_vector_value())
}

/// Adds a page's weighted values to the faded sums of the tile.
fn page_values<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    tile: Tile,
    query: Query<'c>,
    values: Ptr<'c>,
    fades: &[Lanes<'c>],
    (from, to): (Int<'c>, Int<'c>),
) {
    for group in pieces(e, cache).chunks(tile.registers) {
        let place = |head: u64, at: u64| e.at(query.sums, F32, e.int(head * padded(e, cache) + at));
        let faded: Vec<Any<'c>> = (0..tile.heads)
            .zip(fades)
            .flat_map(|(head, fade)| group.iter().map(move |(at, _)| (head, *at, *fade)))
            .map(|(head, at, fade)| e.fmul(e.load(place(head, at), F32, e.width()), fade).into())
            .collect();
        let sums = e.fold((from, to, 1), &faded, |token, sums| {
            let line = e.at(values, cache.dtype, e.times(token, cache.head_dim));
            let values: Vec<_> = group
                .iter()
                .map(|(at, lanes)| e.load(e.at(line, cache.dtype, e.int(*at)), cache.dtype, *lanes))
                .collect();
            let mut next = Vec::with_capacity(sums.len());
            for (head, sums) in (0..tile.heads).zip(sums.chunks(group.len())) {
                let at = e.plus(token, head * PAGE_TOKENS);
                let weight = e.splat(e.load_scalar(e.at(query.scores, F32, at), F32));
                next.extend(values.iter().zip(sums).map(|(value, sum)| -> Any<'c> {
                    e.fma(weight, *value, sum.into_vector_value()).into()
                }));
            }
            next
        });
        for (head, sums) in (0..tile.heads).zip(sums.chunks(group.len())) {
            for ((at, _), sum) in group.iter().zip(sums) {
                e.store(place(head, *at), F32, e.width(), sum.into_vector_value());
            }
        }
    }
}

/// Turns a page's scores into weights relative to the largest score so far, and gives their sum.
fn weights<'c>(
    e: &Emit<'c, '_>,
    scores: Ptr<'c>,
    largest: Float<'c>,
    (low, high): (Int<'c>, Int<'c>),
) -> Float<'c> {
    let largest = e.splat(largest);
    let initial = [Any::from(e.lanes(0.0))];
    let sum = e.fold((e.int(0), high, u64::from(e.width())), &initial, |token, sum| {
        let place = e.at(scores, F32, token);
        let weight = e.exp(e.fsub(e.load(place, F32, e.width()), largest));
        let weight = attended(e, token, (low, high), weight, e.lanes(0.0));
        e.store(place, F32, e.width(), weight);
        vec![e.fadd(sum[0].into_vector_value(), weight).into()]
    });
    e.sum(sum[0].into_vector_value())
}

/// `value` where the token is attended to, `otherwise` elsewhere.
fn attended<'c>(
    e: &Emit<'c, '_>,
    token: Int<'c>,
    (low, high): (Int<'c>, Int<'c>),
    value: Lanes<'c>,
    otherwise: Lanes<'c>,
) -> Lanes<'c> {
    let index = e.fadd(e.iota(), e.splat(e.to_float(token)));
    let below = e.vcmp(FloatPredicate::OLT, index, e.splat(e.to_float(high)));
    let above = e.vcmp(FloatPredicate::OGE, index, e.splat(e.to_float(low)));
    e.select(above, e.select(below, value, otherwise), otherwise)
}
