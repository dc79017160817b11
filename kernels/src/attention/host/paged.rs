//! Grouped-query attention over pages with a running softmax (Milakov & Gimelshein, 2018).
//!
//! A row and a query head go through the sequence's pages in order, so the bits depend on that
//! sequence alone.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::cache::{Cache, position};
use crate::host::{Any, Emit, Float, Int, Lanes, Ptr};

const F32: Dtype = Dtype::F32;
/// Below every score.
const LOWEST: f64 = f32::MIN as f64;

/// What one row and query head attend to.
#[derive(Clone, Copy)]
struct Query<'c> {
    /// The query `[head_dim]`, in f32.
    q: Ptr<'c>,
    /// Scores of a page, then their weights `[64]`.
    scores: Ptr<'c>,
    /// First and one past the last position attended to.
    span: (Int<'c>, Int<'c>),
}

pub(super) fn paged_attention(e: &Emit<'_, '_>) -> Result<(), String> {
    let cache = Cache::of(e)?;
    let (q, y) = (e.operand("q"), e.result());
    let heads = q.1.ty.width().unwrap_or(0) / cache.head_dim;
    let shared_by = heads / cache.heads;
    if cache.head_dim > 256 {
        return Err(format!("head_dim is {}; up to 256 fit the registers", cache.head_dim));
    }
    let scratch = e.scratch(cache.head_dim.next_multiple_of(u64::from(e.width())));
    let scores = e.scratch(PAGE_TOKENS);
    let window = e.spec().int("window");
    let rows = e.dim(q.1.ty.shape[0]);
    e.each_sequence_row((e.int(0), rows), |sequence, row| {
        let end = e.plus(position(e, sequence, row), 1);
        let start = if window == 0 { e.int(0) } else { e.max(e.sub(end, e.int(window)), e.int(0)) };
        e.each(e.int(0), e.int(heads), |head| {
            // Later rows attend to more: neighbouring items go to different threads.
            let item = e.add(e.times(row, heads), head);
            let mine = e.cmp(IntPredicate::EQ, e.rem(item, e.threads()), e.thread());
            e.when(mine, || {
                let at = e.times(head, cache.head_dim);
                let from = e.at(e.row(q, row), q.1.dtype(), at);
                e.columns(cache.head_dim, |at, lanes| {
                    let value = e.load(e.at(from, q.1.dtype(), at), q.1.dtype(), lanes);
                    e.store(e.at(scratch, F32, at), F32, e.width(), value);
                });
                let kv_head = e.div(head, e.int(shared_by));
                let query = Query { q: scratch, scores, span: (start, end) };
                let to = e.at(e.row(y, row), y.1.dtype(), at);
                attend(e, cache, query, |position| Cache::page(e, sequence, position), kv_head, to);
            });
        });
    });
    Ok(())
}

/// One row and query head: carries the largest score, the sum of weights and the weighted values.
fn attend<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    query: Query<'c>,
    page_of: impl Fn(Int<'c>) -> Int<'c>,
    kv_head: Int<'c>,
    target: Ptr<'c>,
) {
    let (start, end) = query.span;
    let first_page = e.times(e.div(start, e.int(PAGE_TOKENS)), PAGE_TOKENS);
    let pieces: Vec<(u64, u32)> = (0..cache.head_dim)
        .step_by(e.width() as usize)
        .map(|at| (at, (cache.head_dim - at).min(u64::from(e.width())) as u32))
        .collect();
    let mut initial: Vec<Any<'c>> = vec![e.float(LOWEST).into(), e.float(0.0).into()];
    initial.extend(pieces.iter().map(|_| -> Any<'c> { e.lanes(0.0).into() }));
    let state = e.fold((first_page, end, PAGE_TOKENS), &initial, |base, state| {
        let page = page_of(base);
        e.choose(
            e.cmp(IntPredicate::SGE, page, e.int(0)),
            || {
                let keys = cache.block(e, page, 0, kv_head);
                let values = cache.block(e, page, 1, kv_head);
                // Tokens of this page: from `low` below `high`.
                let high = e.min(e.sub(end, base), e.int(PAGE_TOKENS));
                let low = e.sub(start, base);
                let largest = page_scores(e, cache, query, keys, (low, high), &pieces);
                let largest = e.fmax(state[0].into_float_value(), largest);
                let fade = e.exp(e.splat(e.fsub(state[0].into_float_value(), largest)));
                let sum = weights(e, query.scores, largest, (low, high));
                let fade_scalar = e.extract(fade, 0).into_float_value();
                let total = e.fma(state[1].into_float_value(), fade_scalar, sum);
                let faded: Vec<Any<'c>> =
                    state[2..].iter().map(|value| e.fmul(value.into_vector_value(), fade).into()).collect();
                let from = e.max(low, e.int(0));
                let summed = e.fold((from, high, 1), &faded, |token, sums| {
                    let weight = e.splat(e.load_scalar(e.at(query.scores, F32, token), F32));
                    let line = e.at(values, cache.dtype, e.times(token, cache.head_dim));
                    pieces
                        .iter()
                        .zip(sums)
                        .map(|((at, lanes), sum)| {
                            let value = e.load(e.at(line, cache.dtype, e.int(*at)), cache.dtype, *lanes);
                            e.fma(weight, value, sum.into_vector_value()).into()
                        })
                        .collect()
                });
                [vec![largest.into(), total.into()], summed].concat()
            },
            || state.to_vec(),
        )
    });
    // A row without any page attends to nothing.
    let total = e.fmax(state[1].into_float_value(), e.float(f64::from(f32::MIN_POSITIVE)));
    let scale = e.splat(e.fdiv(e.float(1.0), total));
    let dtype = e.result().1.dtype();
    for ((at, lanes), value) in pieces.iter().zip(&state[2..]) {
        let address = e.at(target, dtype, e.int(*at));
        e.store(address, dtype, *lanes, e.fmul(value.into_vector_value(), scale));
    }
}

/// Scaled scores of a page's tokens, the largest of those attended to.
fn page_scores<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    query: Query<'c>,
    keys: Ptr<'c>,
    (low, high): (Int<'c>, Int<'c>),
    pieces: &[(u64, u32)],
) -> Float<'c> {
    // As many tokens at once as a register has lanes: their sums come out as one register.
    let tokens = u64::from(e.width());
    let initial = [Any::from(e.lanes(LOWEST))];
    let largest = e.fold((e.int(0), high, tokens), &initial, |token, largest| {
        let mut sums = vec![e.lanes(0.0); tokens as usize];
        for (at, lanes) in pieces {
            let q = e.load(e.at(query.q, F32, e.int(*at)), F32, e.width());
            for (i, sum) in sums.iter_mut().enumerate() {
                // Tokens past the end are read too: the page is there, and they get no weight.
                let line = e.times(e.plus(token, i as u64), cache.head_dim);
                let key = e.load(e.at(keys, cache.dtype, e.plus(line, *at)), cache.dtype, *lanes);
                *sum = e.fma(q, key, *sum);
            }
        }
        let scores = e.fmul(e.sums(&sums), e.lanes(e.spec().float("scale")));
        let scores = attended(e, token, (low, high), scores, e.lanes(LOWEST));
        e.store(e.at(query.scores, F32, token), F32, e.width(), scores);
        vec![e.fmax(scores, largest[0].into_vector_value()).into()]
    });
    e.max_lane(largest[0].into_vector_value())
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
