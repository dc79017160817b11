//! Attention in f32 for any dtype and head_dim: a warp takes a few queries, lanes share the columns, and a few tokens are
//! under way at once.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::decode::{WARP_TOKENS, WARPS, Work};
use super::merge::{Merge, Space};
use super::tile::{self, Tile};
use super::{LOWEST, Shape, fade, normalizer, weight};
use crate::attention::nvptx::cache::Cache;
use crate::nvptx::{Any, Emit, Float, Int, Kernel, Ptr, Written, geometry};

/// How lanes share the columns of a head.
#[derive(Debug, Clone, Copy)]
struct Columns {
    head_dim: u64,
    /// Columns of an access.
    vector: u32,
    /// Accesses of a lane.
    pieces: u64,
}

impl Columns {
    fn of(shape: &Shape) -> Self {
        let head_dim = shape.cache.head_dim;
        let most = shape.cache.vector.min(shape.vectors.0).min(4);
        let vector = most.min(1 << head_dim.trailing_zeros().min(2));
        Self { head_dim, vector, pieces: head_dim.div_ceil(32 * u64::from(vector)) }
    }

    /// Columns of a lane.
    fn own(&self) -> u64 {
        self.pieces * u64::from(self.vector)
    }

    /// The lane's first column of each access, and whether there is one where that is not certain.
    fn each<'c>(&self, e: &Emit<'c, '_>) -> Vec<(Int<'c>, Option<IntValue<'c>>)> {
        let piece = |piece: u64| {
            let column = e.times(e.plus(e.lane(), 32 * piece), self.vector.into());
            let inside = e.cmp(IntPredicate::ULT, column, e.word(self.head_dim as u32));
            (column, (32 * u64::from(self.vector) * (piece + 1) > self.head_dim).then_some(inside))
        };
        (0..self.pieces).map(piece).collect()
    }

    /// The lane's columns of a line; zeros where there are none.
    fn load<'c>(&self, e: &Emit<'c, '_>, line: Ptr<'c>, dtype: Dtype) -> Vec<Float<'c>> {
        let mut values = Vec::new();
        for (column, inside) in self.each(e) {
            let load =
                || e.load(e.at(line, dtype, column), dtype, (self.vector, self.vector), Written::Before);
            match inside {
                None => values.extend(load()),
                Some(inside) => {
                    let zeros = || vec![e.float(0.0).into(); self.vector as usize];
                    let loaded = e.choose(inside, || load().into_iter().map(Into::into).collect(), zeros);
                    values.extend(loaded.iter().map(|value| value.into_float_value()));
                }
            }
        }
        values
    }

    /// Hands the lane's columns to `store`, with the first of each access.
    fn store<'c>(&self, e: &Emit<'c, '_>, values: &[Float<'c>], store: impl Fn(Int<'c>, &[Float<'c>])) {
        for ((column, inside), values) in self.each(e).into_iter().zip(values.chunks(self.vector as usize)) {
            match inside {
                None => store(column, values),
                Some(inside) => e.when(inside, || store(column, values)),
            }
        }
    }
}

/// The most queries of a warp.
pub(super) fn queries(shape: &Shape) -> u64 {
    (16 / Columns::of(shape).own()).clamp(1, 8)
}

/// Tokens that are under way at once.
fn at_once(columns: Columns) -> u64 {
    1 << (16 / columns.own()).clamp(1, 4).ilog2()
}

/// For each query: largest score, sum of weights, and the lane's sums of values.
fn fresh<'c>(e: &Emit<'c, '_>, columns: Columns, queries: u64) -> Vec<Any<'c>> {
    let mut one: Vec<Any<'c>> = vec![e.float(LOWEST).into(), e.float(0.0).into()];
    one.extend(vec![Any::from(e.float(0.0)); columns.own() as usize]);
    (0..queries).flat_map(|_| one.clone()).collect()
}

/// Tokens `from` to `to` of a page. `seen` says whether a query sees a token.
fn page<'c>(
    e: &Emit<'c, '_>,
    shape: &Shape,
    queries: &[Vec<Float<'c>>],
    [keys, values]: [Ptr<'c>; 2],
    (from, to): (Int<'c>, Int<'c>),
    seen: impl Fn(usize, Int<'c>) -> IntValue<'c>,
    state: &[Any<'c>],
) -> Vec<Any<'c>> {
    let columns = Columns::of(shape);
    let count = at_once(columns);
    // Blocks of tokens begin at the same places for all rows.
    let first = e.and(from, e.word(!(count as u32 - 1)));
    let last = e.sub(to, e.word(1));
    e.fold((first, to, count), state, |block, state| {
        let tokens: Vec<_> = (0..count).map(|index| e.plus(block, index)).collect();
        let lines = |base| -> Vec<Vec<Float<'c>>> {
            let line = |token: &Int<'c>| {
                // A token that is not there is read as its neighbour.
                let token = e.max(e.min(*token, last), from);
                let line = e.at(base, shape.cache.dtype, e.times(token, columns.head_dim));
                columns.load(e, line, shape.cache.dtype)
            };
            tokens.iter().map(line).collect()
        };
        let (keys, values) = (lines(keys), lines(values));
        let states = state.chunks(columns.own() as usize + 2);
        let mut next = Vec::with_capacity(state.len());
        for (index, (query, state)) in queries.iter().zip(states).enumerate() {
            let scores: Vec<_> = keys
                .iter()
                .zip(&tokens)
                .map(|(key, token)| {
                    let products = query.iter().zip(key);
                    let sum = products.fold(e.float(0.0), |sum, (a, b)| e.fma(*a, *b, sum));
                    e.select(seen(index, *token), e.warp_sum(sum), e.float(f64::NEG_INFINITY))
                })
                .collect();
            let before = state[0].into_float_value();
            let largest = scores.iter().fold(before, |largest, score| e.fmax(largest, *score));
            let fade = fade(e, shape, before, largest);
            let weights: Vec<_> = scores.iter().map(|score| weight(e, shape, *score, largest)).collect();
            let total = e.fmul(state[1].into_float_value(), fade);
            let total = weights.iter().fold(total, |total, weight| e.fadd(total, *weight));
            next.extend([Any::from(largest), total.into()]);
            for (column, sum) in state[2..].iter().enumerate() {
                let faded = e.fmul(sum.into_float_value(), fade);
                let pairs = weights.iter().zip(&values);
                next.push(
                    pairs.fold(faded, |sum, (weight, value)| e.fma(*weight, value[column], sum)).into(),
                );
            }
        }
        next
    })
}

/// A warp's part of decode: leaves its results in shared memory.
pub(super) fn attend<'c>(e: &Emit<'c, '_>, shape: &Shape, merge: &Merge, space: &Space<'c>, work: Work<'c>) {
    let columns = Columns::of(shape);
    let q = e.operand("q");
    let last = e.sub(work.heads.1, e.word(1));
    let queries: Vec<_> = (0..merge.heads)
        .map(|head| {
            // A head that is not there is computed as the last one, and stored by nobody.
            let head = e.add(work.heads.0, e.min(e.word(head as u32), last));
            let first = e.times(head, columns.head_dim);
            columns.load(e, e.at(e.row(q, work.sequence), q.1.dtype(), first), q.1.dtype())
        })
        .collect();
    let state = work.fold(e, &fresh(e, columns, merge.heads), |index, (low, high), state| {
        let first = e.times(e.warp(), WARP_TOKENS);
        let from = e.max(first, low);
        let to = e.min(e.plus(first, WARP_TOKENS), high);
        let blocks = [0, 1].map(|part| shape.cache.block(e, index, part, work.kv_head));
        let seen = |_, token| {
            let from = e.cmp(IntPredicate::SGE, token, from);
            e.and(from, e.cmp(IntPredicate::SLT, token, to))
        };
        page(e, shape, &queries, blocks, (from, to), seen, state)
    });
    for (head, state) in (0..).zip(state.chunks(columns.own() as usize + 2)) {
        let head = e.word(head);
        let sums: Vec<_> = state[2..].iter().map(|sum| sum.into_float_value()).collect();
        columns.store(e, &sums, |column, sums| {
            e.store(space.sums(e, merge, head, column), Dtype::F32, sums, columns.vector);
        });
        e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
            space.leave(e, merge, head, (state[0].into_float_value(), state[1].into_float_value()));
        });
    }
}

/// Prefill: each warp takes a few rows of a tile.
pub(super) fn prefill(shape: Shape) -> Kernel {
    let heads = shape.cache.heads * shape.group;
    let per_warp = queries(&shape);
    let per = per_warp * u64::from(WARPS);
    let geometry = geometry::of(tile::grid(per, heads), 32 * WARPS);
    Kernel::new(geometry, move |e| {
        let tile = Tile::of(e, per, heads);
        let offset = e.times(e.warp(), per_warp);
        let there = e.cmp(IntPredicate::SLT, e.add(tile.rows.0, offset), tile.rows.1);
        e.when(there, || rows(e, &shape, tile, offset, per_warp));
        Ok(())
    })
}

/// A warp's rows of the tile, from `offset` on.
fn rows<'c>(e: &Emit<'c, '_>, shape: &Shape, tile: Tile<'c>, offset: Int<'c>, count: u64) {
    let columns = Columns::of(shape);
    let (q, y) = (e.operand("q"), e.result());
    let first_column = e.times(tile.head, columns.head_dim);
    let first_row = e.add(tile.rows.0, offset);
    let last = e.sub(e.min(e.sub(tile.rows.1, first_row), e.word(count as u32)), e.word(1));
    // A row that is not there is computed as the last one.
    let offsets: Vec<_> = (0..count).map(|index| e.min(e.word(index as u32), last)).collect();
    let first_position = e.add(tile.position, offset);
    let positions: Vec<_> = offsets.iter().map(|offset| e.add(first_position, *offset)).collect();
    let starts: Vec<_> = positions.iter().map(|position| shape.first_seen(e, *position)).collect();
    let queries: Vec<_> = offsets
        .iter()
        .map(|offset| {
            let row = e.row(q, e.add(first_row, *offset));
            columns.load(e, e.at(row, q.1.dtype(), first_column), q.1.dtype())
        })
        .collect();
    let kv_head = e.div(tile.head, e.word(shape.group as u32));
    let (start, end) = (starts[0], e.plus(e.add(first_position, last), 1));
    let first_page = e.shift_right(start, PAGE_TOKENS.ilog2().into());
    let end_page = e.shift_right(e.plus(end, PAGE_TOKENS - 1), PAGE_TOKENS.ilog2().into());
    let initial = fresh(e, columns, count);
    let state = e.fold((first_page, end_page, 1), &initial, |index, state| {
        let number = Cache::page(e, tile.sequence, index);
        let base = e.times(index, PAGE_TOKENS);
        e.choose(
            e.cmp(IntPredicate::SGE, number, e.word(0)),
            || {
                let from = e.max(e.sub(start, base), e.word(0));
                let to = e.min(e.sub(end, base), e.word(PAGE_TOKENS as u32));
                let blocks = [0, 1].map(|part| shape.cache.block(e, number, part, kv_head));
                let seen = |query: usize, token| {
                    let token = e.add(token, base);
                    let from = e.cmp(IntPredicate::SGE, token, starts[query]);
                    e.and(from, e.cmp(IntPredicate::SLE, token, positions[query]))
                };
                page(e, shape, &queries, blocks, (from, to), seen, state)
            },
            || state.to_vec(),
        )
    });
    for (index, state) in (0..).zip(state.chunks(columns.own() as usize + 2)) {
        let there = e.cmp(IntPredicate::SLE, e.word(index), last);
        e.when(there, || {
            let scale = normalizer(e, state[1].into_float_value());
            let sums: Vec<_> = state[2..].iter().map(|sum| e.fmul(sum.into_float_value(), scale)).collect();
            let row = e.row(y, e.add(first_row, e.word(index)));
            columns.store(e, &sums, |column, sums| {
                let place = e.at(row, y.1.dtype(), e.add(first_column, column));
                e.store(place, y.1.dtype(), sums, shape.vectors.1.min(columns.vector));
            });
        });
    }
}
