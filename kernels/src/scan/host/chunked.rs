//! The chunked (SSD) form: inside a chunk of tokens the scan is a masked product of matrices, and the
//! state is read and written once a chunk.
//!
//! With l_t the running sum of dt * A inside the chunk,
//!   y_t  = sum_{s <= t} (c_t . b_s) e^{l_t - l_s} dt_s x_s  +  e^{l_t} S c_t  +  d x_t
//!   S'   = e^{l_last} S  +  sum_s e^{l_last - l_s} dt_s x_s b_s^T.
//! The products c_t . b_s belong to a group of heads and are computed once for it. A sequence with a
//! single row in the step takes the recurrent form, so that a token decoded beside somebody's prefill
//! gets the bits that it would get alone; so does a last chunk of one row, which another step might have
//! brought by itself, and a sequence that keeps no state, which would have nowhere to put it between chunks.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::types::Dtype;

use super::gemm::accumulate;
use super::heads::{Head, Scan, pieces};
use super::recurrent::{rows_of_head, token};
use crate::host::{Any, Emit, Int, Lanes, Ptr, Rows, Sequence};
use crate::target::Level;

const F32: Dtype = Dtype::F32;

/// Work space of a thread.
#[derive(Clone, Copy)]
struct Scratch<'c> {
    /// c of the chunk `[chunk, state]`.
    c: Ptr<'c>,
    /// b of the chunk `[chunk, state]`.
    b: Ptr<'c>,
    /// b transposed `[state, chunk]`.
    b_columns: Ptr<'c>,
    /// c_t . b_s `[chunk, chunk]`.
    scores: Ptr<'c>,
    /// Masked, decayed scores of one head `[chunk, chunk]`.
    mask: Ptr<'c>,
    /// x of one head `[chunk, padded head_dim]`.
    x: Ptr<'c>,
    /// Running sums of dt * A `[chunk]`.
    decay: Ptr<'c>,
    /// dt of one head `[chunk]`.
    step: Ptr<'c>,
    /// A head's state where none is kept.
    state: Ptr<'c>,
}

/// One chunk of a sequence.
#[derive(Clone, Copy)]
struct Chunk<'c> {
    /// First row of the step.
    first: Int<'c>,
    /// Rows, at most `size`.
    rows: Int<'c>,
    /// The op's chunk.
    size: u64,
}

pub(super) fn ssd_chunked(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let scan = &Scan::of(e, &chain, link, None, Rows::of(e, e.result()))?;
    let size = link.int("chunk");
    if size > 128 || !size.is_multiple_of(16) {
        return Err(format!("chunk is {size}; multiples of 16 up to 128 fit the work space"));
    }
    let padded = scan.shape.head_dim.next_multiple_of(u64::from(e.width()));
    let scratch = Scratch {
        c: e.scratch(size * scan.shape.state),
        b: e.scratch(size * scan.shape.state),
        b_columns: e.scratch(size * scan.shape.state),
        scores: e.scratch(size * size),
        mask: e.scratch(size * size),
        x: e.scratch(size * padded),
        decay: e.scratch(size),
        step: e.scratch(size),
        state: e.scratch(scan.shape.head_state()),
    };
    let (from, to) = e.share(e.int(scan.shape.heads));
    e.each_sequence(|sequence| {
        let single = e.cmp(IntPredicate::EQ, e.sub(sequence.end, sequence.start), e.int(1));
        let keeps_none = e.cmp(IntPredicate::SLT, scan.slot_out(e, sequence), e.int(0));
        e.choose(
            e.or(single, keeps_none),
            || {
                e.each(from, to, |head| {
                    rows_of_head(e, scan, sequence, Head::load(e, scan, head), scratch.state);
                });
                Vec::new()
            },
            || {
                e.step_by(sequence.start, sequence.end, size, |first| {
                    let rows = e.min(e.sub(sequence.end, first), e.int(size));
                    e.choose(
                        e.cmp(IntPredicate::EQ, rows, e.int(1)),
                        || {
                            // Never a sequence's first chunk: its state is in place.
                            e.each(from, to, |index| {
                                let head = Head::load(e, scan, index);
                                token(e, scan, head, scan.written_state(e, head, sequence), first);
                            });
                            Vec::new()
                        },
                        || {
                            chunk(e, scan, &scratch, sequence, Chunk { first, rows, size }, (from, to));
                            Vec::new()
                        },
                    );
                });
                Vec::new()
            },
        );
    });
    Ok(())
}

/// The heads `from .. to` of one chunk, group by group.
fn chunk<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    sequence: Sequence<'c>,
    chunk: Chunk<'c>,
    (from, to): (Int<'c>, Int<'c>),
) {
    let per_group = e.int(scan.shape.heads_per_group());
    let groups_end = e.div(e.add(to, e.sub(per_group, e.int(1))), per_group);
    e.each(e.div(from, per_group), groups_end, |group| {
        gather_group(e, scan, scratch, chunk, group);
        group_scores(e, scan, scratch, chunk);
        let first = e.max(from, e.mul(group, per_group));
        let end = e.min(to, e.mul(e.plus(group, 1), per_group));
        e.each(first, end, |index| {
            let head = Head::load(e, scan, index);
            // Later chunks find the state where the first one put it.
            let is_first = e.cmp(IntPredicate::EQ, chunk.first, sequence.start);
            e.when(is_first, || {
                scan.state(e, head, sequence, scratch.state);
            });
            let state = scan.written_state(e, head, sequence);
            gather_head(e, scan, scratch, chunk, head);
            decayed_scores(e, scratch, chunk);
            outputs(e, scan, scratch, chunk, head, state);
            next_state(e, scan, scratch, chunk, state);
        });
    });
}

/// b and c of a group, widened, and b transposed.
fn gather_group<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    chunk: Chunk<'c>,
    group: Int<'c>,
) {
    for (source, target) in [(scan.b, scratch.b), (scan.c, scratch.c)] {
        e.each(e.int(0), chunk.rows, |row| {
            let first = e.times(group, scan.shape.state);
            let to = e.at(target, F32, e.times(row, scan.shape.state));
            e.columns(scan.shape.state, |at, lanes| {
                let value = source.load(e, e.add(chunk.first, row), e.add(first, at), lanes);
                e.store(e.at(to, F32, at), F32, lanes, value);
            });
        });
    }
    e.each(e.int(0), chunk.rows, |row| {
        e.each(e.int(0), e.int(scan.shape.state), |n| {
            let value = e.load_scalar(e.at(scratch.b, F32, e.add(e.times(row, scan.shape.state), n)), F32);
            e.store_scalar(e.at(scratch.b_columns, F32, e.add(e.times(n, chunk.size), row)), F32, value);
        });
    });
}

/// Rows of a register tile.
fn tile_rows(e: &Emit<'_, '_>) -> u32 {
    match e.target().level() {
        Level::V3 => 2,
        Level::V4 => 4,
    }
}

/// c_t . b_s for every pair of the chunk.
fn group_scores<'c>(e: &Emit<'c, '_>, scan: &Scan<'c>, scratch: &Scratch<'c>, chunk: Chunk<'c>) {
    let rows = tile_rows(e);
    let width = u64::from(e.width());
    e.step_by(e.int(0), chunk.rows, u64::from(rows), |t| {
        let end = e.min(e.plus(t, u64::from(rows)), chunk.rows);
        e.step_by(e.int(0), end, width, |s| {
            let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); rows as usize];
            let sums = accumulate(
                e,
                e.int(scan.shape.state),
                rows,
                &zeros,
                |i, n| {
                    let row = e.plus(t, i.into());
                    e.load_scalar(e.at(scratch.c, F32, e.add(e.times(row, scan.shape.state), n)), F32)
                },
                |n| {
                    let at = e.add(e.times(n, chunk.size), s);
                    vec![e.load(e.at(scratch.b_columns, F32, at), F32, e.width())]
                },
            );
            for (i, sum) in sums.iter().enumerate() {
                let at = e.add(e.times(e.plus(t, i as u64), chunk.size), s);
                e.store(e.at(scratch.scores, F32, at), F32, e.width(), sum.into_vector_value());
            }
        });
    });
}

/// x, dt and the running sums of dt * A of a head.
fn gather_head<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    chunk: Chunk<'c>,
    head: Head<'c>,
) {
    let padded = scan.shape.head_dim.next_multiple_of(u64::from(e.width()));
    e.fold((e.int(0), chunk.rows, 1), &[e.float(0.0).into()], |t, sum| {
        let row = e.add(chunk.first, t);
        let step = scan.step_size(e, head, row);
        let sum = e.fadd(sum[0].into_float_value(), e.fmul(step, head.decay));
        e.store_scalar(e.at(scratch.step, F32, t), F32, step);
        e.store_scalar(e.at(scratch.decay, F32, t), F32, sum);
        for (at, lanes) in pieces(e, scan.shape.head_dim) {
            let value = scan.x(e, head, row, (at, lanes));
            let place = e.plus(e.times(t, padded), at);
            e.store(e.at(scratch.x, F32, place), F32, e.width(), value);
        }
        vec![sum.into()]
    });
}

/// Scores times decay and step size, zero above the diagonal.
fn decayed_scores<'c>(e: &Emit<'c, '_>, scratch: &Scratch<'c>, chunk: Chunk<'c>) {
    let rows = u64::from(tile_rows(e));
    e.each(e.int(0), chunk.rows, |t| {
        let decay = e.splat(e.load_scalar(e.at(scratch.decay, F32, t), F32));
        // A tile of rows reads up to its last row's diagonal.
        let end = e.times(e.plus(e.div(t, e.int(rows)), 1), rows);
        let diagonal = e.splat(e.to_float(t));
        e.step_by(e.int(0), end, u64::from(e.width()), |s| {
            let vector = |base: Ptr<'c>, at: Int<'c>| e.load(e.at(base, F32, at), F32, e.width());
            let at = e.add(e.times(t, chunk.size), s);
            let distance = e.fsub(decay, vector(scratch.decay, s));
            let weight = e.fmul(e.exp(distance), vector(scratch.step, s));
            let score = e.fmul(weight, vector(scratch.scores, at));
            let column = e.fadd(e.iota(), e.splat(e.to_float(s)));
            let causal = e.vcmp(FloatPredicate::OLE, column, diagonal);
            e.store(e.at(scratch.mask, F32, at), F32, e.width(), e.select(causal, score, e.lanes(0.0)));
        });
    });
}

/// The registers of head_dim, in passes that leave room for operands.
fn passes(e: &Emit<'_, '_>, head_dim: u64) -> Vec<Vec<(u64, u32)>> {
    let most = match e.target().level() {
        Level::V3 => 4,
        Level::V4 => 6,
    };
    let all = pieces(e, head_dim);
    let count = all.len().div_ceil(most);
    all.chunks(all.len().div_ceil(count)).map(<[_]>::to_vec).collect()
}

fn outputs<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    chunk: Chunk<'c>,
    head: Head<'c>,
    state: Ptr<'c>,
) {
    let rows = tile_rows(e);
    for pass in passes(e, scan.shape.head_dim) {
        e.step_by(e.int(0), chunk.rows, u64::from(rows), |t| {
            let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); rows as usize * pass.len()];
            let from_state = accumulate(
                e,
                e.int(scan.shape.state),
                rows,
                &zeros,
                |i, n| {
                    let at = e.add(e.times(e.plus(t, i.into()), scan.shape.state), n);
                    e.load_scalar(e.at(scratch.c, F32, at), F32)
                },
                |n| state_line(e, scan, state, n, &pass),
            );
            let decayed: Vec<Any<'c>> = from_state
                .chunks(pass.len())
                .enumerate()
                .flat_map(|(i, sums)| {
                    let decay = e.load_scalar(e.at(scratch.decay, F32, e.plus(t, i as u64)), F32);
                    let factor = e.exp(e.splat(decay));
                    sums.iter().map(move |sum| -> Any<'c> { e.fmul(sum.into_vector_value(), factor).into() })
                })
                .collect();
            let end = e.min(e.plus(t, u64::from(rows)), chunk.rows);
            let sums = accumulate(
                e,
                end,
                rows,
                &decayed,
                |i, s| {
                    let at = e.add(e.times(e.plus(t, i.into()), chunk.size), s);
                    e.load_scalar(e.at(scratch.mask, F32, at), F32)
                },
                |s| x_line(e, scan, scratch, s, &pass),
            );
            for (i, sums) in sums.chunks(pass.len()).enumerate() {
                let row = e.plus(t, i as u64);
                e.when(e.cmp(IntPredicate::SLT, row, chunk.rows), || {
                    let x = x_line(e, scan, scratch, row, &pass);
                    for ((sum, x), (at, lanes)) in sums.iter().zip(x).zip(&pass) {
                        let y = e.fma(x, e.splat(head.skip), sum.into_vector_value());
                        scan.store_y(e, head, e.add(chunk.first, row), (*at, *lanes), y);
                    }
                });
            }
        });
    }
}

fn next_state<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    chunk: Chunk<'c>,
    state: Ptr<'c>,
) {
    let padded = scan.shape.head_dim.next_multiple_of(u64::from(e.width()));
    let last = e.load_scalar(e.at(scratch.decay, F32, e.sub(chunk.rows, e.int(1))), F32);
    e.each(e.int(0), chunk.rows, |s| {
        let decay = e.load_scalar(e.at(scratch.decay, F32, s), F32);
        let step = e.load_scalar(e.at(scratch.step, F32, s), F32);
        let weight = e.fmul(e.exp(e.splat(e.fsub(last, decay))), e.splat(step));
        e.columns(padded, |at, lanes| {
            let place = e.at(scratch.x, F32, e.add(e.times(s, padded), at));
            e.store(place, F32, lanes, e.fmul(e.load(place, F32, lanes), weight));
        });
    });
    let keep = e.exp(e.splat(last));
    // The state's extent need not divide into tiles: the rest goes line by line.
    let rows = tile_rows(e);
    let whole = scan.shape.state / u64::from(rows) * u64::from(rows);
    for pass in passes(e, scan.shape.head_dim) {
        let lines = |n: Int<'c>, rows: u32| {
            let old: Vec<Any<'c>> = (0..rows)
                .flat_map(|i| state_line(e, scan, state, e.plus(n, i.into()), &pass))
                .map(|line| e.fmul(line, keep).into())
                .collect();
            let sums = accumulate(
                e,
                chunk.rows,
                rows,
                &old,
                |i, s| {
                    let at = e.add(e.times(s, scan.shape.state), e.plus(n, i.into()));
                    e.load_scalar(e.at(scratch.b, F32, at), F32)
                },
                |s| x_line(e, scan, scratch, s, &pass),
            );
            for (i, sums) in sums.chunks(pass.len()).enumerate() {
                let line = e.times(e.plus(n, i as u64), scan.shape.head_dim);
                for (sum, (at, lanes)) in sums.iter().zip(&pass) {
                    e.store(e.at(state, F32, e.plus(line, *at)), F32, *lanes, sum.into_vector_value());
                }
            }
        };
        e.step_by(e.int(0), e.int(whole), u64::from(rows), |n| lines(n, rows));
        e.each(e.int(whole), e.int(scan.shape.state), |n| lines(n, 1));
    }
}

fn state_line<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    state: Ptr<'c>,
    n: Int<'c>,
    pass: &[(u64, u32)],
) -> Vec<Lanes<'c>> {
    let line = e.times(n, scan.shape.head_dim);
    pass.iter().map(|(at, lanes)| e.load(e.at(state, F32, e.plus(line, *at)), F32, *lanes)).collect()
}

fn x_line<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    scratch: &Scratch<'c>,
    s: Int<'c>,
    pass: &[(u64, u32)],
) -> Vec<Lanes<'c>> {
    let padded = scan.shape.head_dim.next_multiple_of(u64::from(e.width()));
    let line = e.times(s, padded);
    pass.iter().map(|(at, _)| e.load(e.at(scratch.x, F32, e.plus(line, *at)), F32, e.width())).collect()
}
