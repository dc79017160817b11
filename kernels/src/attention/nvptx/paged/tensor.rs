//! A warp's part of decode on tensor cores: 16 tokens at a time, keys and values straight from their pages into the
//! registers of the operands.
//!
//! Products are taken with tokens (then columns of values) as rows and query heads as columns. An order of the elements that
//! are summed over is free, as long as both operands keep to it: so that a lane's operands are the 16 bytes that it loads.
//! With g = lane / 4 and t = lane % 4:
//!
//! * Scores: the lane loads columns 8t to 8t + 7 of each 32, of tokens g and g + 8 and of query head g.
//! * Sums of values: the lane loads columns 8g to 8g + 7 of each 64, of tokens t, t + 8, t + 4 and t + 12; two tokens'
//!   elements are put into one word.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use super::decode::{WARP_TOKENS, Work};
use super::merge::{Merge, Space};
use super::{LOWEST, Shape, fade, weight, words_where};
use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// The most query heads of a warp.
pub(super) const MAX_HEADS: u64 = 16;
/// Columns of an operand: heads that one instruction takes.
const HEADS: u64 = 8;
const BF16: Dtype = Dtype::Bf16;

/// A lane's place.
#[derive(Clone, Copy)]
struct Lane<'c> {
    g: Int<'c>,
    t: Int<'c>,
}

/// What the warp keeps for eight heads, of which a lane has 2t and 2t + 1.
struct Running<'c> {
    largest: [Float<'c>; 2],
    /// Sums of the weights of the lane's own tokens.
    totals: [Float<'c>; 2],
    /// By 64 columns: by pairs of the lane's eight columns: even and odd column of the one head, and of the other.
    sums: Vec<[[Float<'c>; 4]; 4]>,
}

impl<'c> Running<'c> {
    fn new(e: &Emit<'c, '_>, blocks: usize) -> Self {
        let (lowest, zero) = (e.float(LOWEST), e.float(0.0));
        Self { largest: [lowest; 2], totals: [zero; 2], sums: vec![[[zero; 4]; 4]; blocks] }
    }

    fn values(&self) -> Vec<Any<'c>> {
        let sums = self.sums.iter().flatten().flatten();
        self.largest.iter().chain(&self.totals).chain(sums).map(|value| (*value).into()).collect()
    }

    fn from_values(values: &[Any<'c>]) -> Self {
        let value = |index: usize| values[index].into_float_value();
        let sums = (0..(values.len() - 4) / 16).map(|block| {
            std::array::from_fn(|pair| std::array::from_fn(|sum| value(4 + 16 * block + 4 * pair + sum)))
        });
        Self { largest: [value(0), value(1)], totals: [value(2), value(3)], sums: sums.collect() }
    }
}

/// Leaves the warp's results in shared memory.
pub(super) fn attend<'c>(e: &Emit<'c, '_>, shape: &Shape, merge: &Merge, space: &Space<'c>, work: Work<'c>) {
    let lane = Lane { g: e.shift_right(e.lane(), 2), t: e.and(e.lane(), e.word(3)) };
    let tiles = merge.heads.div_ceil(HEADS);
    let queries: Vec<_> = (0..tiles).map(|tile| queries(e, shape, merge, work, lane, tile)).collect();
    let blocks = shape.cache.head_dim.div_ceil(64) as usize;
    let fresh: Vec<_> = (0..tiles).flat_map(|_| Running::new(e, blocks).values()).collect();
    let carried = fresh.len() / tiles as usize;
    let state = work.fold(e, &fresh, |page, span, state| {
        let first = e.times(e.warp(), WARP_TOKENS);
        let block = |part| shape.cache.block(e, page, part, work.kv_head);
        let keys = keys(e, shape, block(0), (first, span), lane);
        let values = values(e, shape, block(1), (first, span), lane);
        let seen = [0, 8].map(|offset| {
            let token = e.plus(e.add(first, lane.g), offset);
            let from = e.cmp(IntPredicate::SGE, token, span.0);
            e.and(from, e.cmp(IntPredicate::SLT, token, span.1))
        });
        let tiles = queries.iter().zip(state.chunks(carried));
        tiles
            .flat_map(|(queries, state)| {
                let scores = scores(e, queries, &keys);
                let lowest = e.float(f64::NEG_INFINITY);
                let scores: [Float<'c>; 4] =
                    std::array::from_fn(|index| e.select(seen[index / 2], scores[index], lowest));
                next(e, shape, &Running::from_values(state), scores, &values, lane).values()
            })
            .collect()
    });
    for (tile, state) in (0..).zip(state.chunks(carried)) {
        leave(e, shape, merge, space, &Running::from_values(state), lane, tile);
    }
}

/// The operands of eight query heads; zeros for those that are not there.
fn queries<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    work: Work<'c>,
    lane: Lane<'c>,
    tile: u64,
) -> Vec<[Int<'c>; 4]> {
    let q = e.operand("q");
    let head = e.plus(lane.g, tile * HEADS);
    let whole = merge.heads == shape.group && (tile + 1) * HEADS <= merge.heads;
    (0..shape.cache.head_dim.div_ceil(32))
        .map(|chunk| {
            let column = e.plus(e.times(lane.t, 8), 32 * chunk);
            let partial = 32 * (chunk + 1) > shape.cache.head_dim;
            let inside = e.cmp(IntPredicate::ULT, column, e.word(shape.cache.head_dim as u32));
            let there = e.cmp(IntPredicate::ULT, head, work.heads.1);
            let condition = match (whole, partial) {
                (true, false) => None,
                (true, true) => Some(inside),
                (false, false) => Some(there),
                (false, true) => Some(e.and(there, inside)),
            };
            words_where(e, condition, || {
                let at = e.add(e.times(e.add(work.heads.0, head), shape.cache.head_dim), column);
                e.at(e.row(q, work.sequence), BF16, at)
            })
        })
        .collect()
}

/// Sixteen bytes of a token's key or value. A token that is not seen is read as its nearest neighbour that is.
fn load<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    block: Ptr<'c>,
    (token, (low, high)): (Int<'c>, (Int<'c>, Int<'c>)),
    column: Int<'c>,
    partial: bool,
) -> [Int<'c>; 4] {
    let token = e.max(e.min(token, e.sub(high, e.word(1))), low);
    let inside = e.cmp(IntPredicate::ULT, column, e.word(shape.cache.head_dim as u32));
    words_where(e, partial.then_some(inside), || {
        e.at(block, BF16, e.add(e.times(token, shape.cache.head_dim), column))
    })
}

/// By 32 columns: tokens g and g + 8.
fn keys<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    block: Ptr<'c>,
    (first, span): (Int<'c>, (Int<'c>, Int<'c>)),
    lane: Lane<'c>,
) -> Vec<[[Int<'c>; 4]; 2]> {
    let chunk = |chunk: u64| {
        let column = e.plus(e.times(lane.t, 8), 32 * chunk);
        let partial = 32 * (chunk + 1) > shape.cache.head_dim;
        [0, 8].map(|offset| {
            let token = e.plus(e.add(first, lane.g), offset);
            load(e, shape, block, (token, span), column, partial)
        })
    };
    (0..shape.cache.head_dim.div_ceil(32)).map(chunk).collect()
}

/// By 64 columns: tokens t, t + 8, t + 4 and t + 12.
fn values<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    block: Ptr<'c>,
    (first, span): (Int<'c>, (Int<'c>, Int<'c>)),
    lane: Lane<'c>,
) -> Vec<[[Int<'c>; 4]; 4]> {
    let chunk = |chunk: u64| {
        let column = e.plus(e.times(lane.g, 8), 64 * chunk);
        let partial = 64 * (chunk + 1) > shape.cache.head_dim;
        [0, 8, 4, 12].map(|offset| {
            let token = e.plus(e.add(first, lane.t), offset);
            load(e, shape, block, (token, span), column, partial)
        })
    };
    (0..shape.cache.head_dim.div_ceil(64)).map(chunk).collect()
}

/// Scores of tokens g and g + 8, each with heads 2t and 2t + 1.
fn scores<'c>(e: &Emit<'c, '_>, queries: &[[Int<'c>; 4]], keys: &[[[Int<'c>; 4]; 2]]) -> [Float<'c>; 4] {
    let mut sums = [e.float(0.0); 4];
    for (query, [near, far]) in queries.iter().zip(keys) {
        for half in [0, 2] {
            let a = [near[half], far[half], near[half + 1], far[half + 1]];
            sums = e.mma(a, [query[half], query[half + 1]], sums);
        }
    }
    sums
}

/// With sixteen more tokens.
fn next<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    before: &Running<'c>,
    scores: [Float<'c>; 4],
    values: &[[[Int<'c>; 4]; 4]],
    lane: Lane<'c>,
) -> Running<'c> {
    let mut largest = before.largest;
    for (head, largest) in largest.iter_mut().enumerate() {
        let mut found = e.fmax(scores[head], scores[head + 2]);
        for mask in [16, 8, 4] {
            found = e.fmax(found, e.shuffle_xor(found, mask));
        }
        *largest = e.fmax(*largest, found);
    }
    let fades: [Float<'c>; 2] =
        std::array::from_fn(|head| fade(e, shape, before.largest[head], largest[head]));
    let weights: [Float<'c>; 4] =
        std::array::from_fn(|index| weight(e, shape, scores[index], largest[index % 2]));
    let totals = std::array::from_fn(|head| {
        e.fma(before.totals[head], fades[head], e.fadd(weights[head], weights[head + 2]))
    });
    // Head g's weights are with the lanes t' = g / 2 of its tokens' rows.
    let (even, odd) = (e.pack(weights[0], weights[2]), e.pack(weights[1], weights[3]));
    let is_even = e.cmp(IntPredicate::EQ, e.and(lane.g, e.word(1)), e.word(0));
    let b = [0, 16].map(|offset| {
        let from = e.plus(e.add(e.times(lane.t, 4), e.shift_right(lane.g, 1)), offset);
        e.select(is_even, e.shuffle_int(even, from), e.shuffle_int(odd, from))
    });
    let sums = before.sums.iter().zip(values).map(|(sums, tokens)| {
        std::array::from_fn(|pair| {
            let [near, far] = [[tokens[0][pair], tokens[1][pair]], [tokens[2][pair], tokens[3][pair]]];
            let a = [lower(e, near), upper(e, near), lower(e, far), upper(e, far)];
            let faded = std::array::from_fn(|sum| e.fmul(sums[pair][sum], fades[sum % 2]));
            e.mma(a, b, faded)
        })
    });
    Running { largest, totals, sums: sums.collect() }
}

/// The lower halves of two words.
fn lower<'c>(e: &Emit<'c, '_>, [a, b]: [Int<'c>; 2]) -> Int<'c> {
    e.intrinsic("llvm.nvvm.prmt", &[], &[a.into(), b.into(), e.word(0x5410).into()])
}

/// Their upper halves.
fn upper<'c>(e: &Emit<'c, '_>, [a, b]: [Int<'c>; 2]) -> Int<'c> {
    e.intrinsic("llvm.nvvm.prmt", &[], &[a.into(), b.into(), e.word(0x7632).into()])
}

/// Eight heads' results.
fn leave<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    merge: &Merge,
    space: &Space<'c>,
    state: &Running<'c>,
    lane: Lane<'c>,
    tile: u64,
) {
    let first = e.plus(e.times(lane.t, 2), tile * HEADS);
    let later = e.cmp(IntPredicate::UGE, lane.t, e.word(2));
    for head in 0..2_usize {
        let index = e.plus(first, head as u64);
        let mut total = state.totals[head];
        for mask in [16, 8, 4] {
            total = e.fadd(total, e.shuffle_xor(total, mask));
        }
        e.when(e.cmp(IntPredicate::EQ, lane.g, e.word(0)), || {
            space.leave(e, merge, index, (state.largest[head], total));
        });
        for (block, sums) in (0..).zip(&state.sums) {
            let column = e.plus(e.times(lane.g, 8), 64 * block);
            let store = || {
                // Half of the lanes begin with their last four columns, and all write to different banks.
                let columns: Vec<_> = sums.iter().flat_map(|pair| [pair[head], pair[head + 2]]).collect();
                let (low, high) = columns.split_at(4);
                let mix = |first: &[Float<'c>], second: &[Float<'c>]| -> Vec<Float<'c>> {
                    first.iter().zip(second).map(|(a, b)| e.select(later, *b, *a)).collect()
                };
                for (values, offsets) in [(mix(low, high), [0, 4]), (mix(high, low), [4, 0])] {
                    let offset = e.select(later, e.word(offsets[1]), e.word(offsets[0]));
                    let place = space.sums(e, merge, index, e.add(column, offset));
                    e.store(place, Dtype::F32, &values, 4);
                }
            };
            if 64 * (block + 1) > shape.cache.head_dim {
                let inside = e.cmp(IntPredicate::ULT, column, e.word(shape.cache.head_dim as u32));
                e.when(inside, store);
            } else {
                store();
            }
        }
    }
}
