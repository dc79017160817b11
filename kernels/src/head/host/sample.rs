//! Sampling without sorting: cut-offs are found by bisection over the bits of an f32, so that a row of
//! logits is only ever streamed. A thread takes whole sequences.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::step::NOT_A_NUMBER;
use nemo_ir::types::Dtype;

use super::philox;
use crate::host::{Any, Emit, Float, Int, Lanes, Ptr};

const F32: Dtype = Dtype::F32;
/// Above every vocabulary; exact in f32.
const NO_INDEX: f64 = 16_777_216.0;

/// A row of logits.
#[derive(Clone, Copy)]
struct Row<'c> {
    logits: Ptr<'c>,
    vocab: u64,
    /// Its largest logit.
    largest: Float<'c>,
    /// 1 / temperature.
    sharpness: Float<'c>,
}

pub(super) fn sample(e: &Emit<'_, '_>) -> Result<(), String> {
    let logits = e.operand("logits");
    let vocab = logits.1.ty.width().unwrap_or(0);
    if vocab as f64 >= NO_INDEX {
        return Err(format!("a vocabulary of {vocab} exceeds the {NO_INDEX} that indices in f32 reach"));
    }
    let (next, layout) = e.result();
    let (from, to) = e.share(e.dim(layout.ty.shape[0]));
    e.each(from, to, |seq| {
        let forced = e.load_int(e.operand("forced").0, seq);
        let row = last_row(e, seq);
        let is_forced = e.cmp(IntPredicate::SGE, forced, e.int(0));
        let token = e.choose(
            is_forced,
            || vec![forced.into()],
            || {
                e.choose(
                    e.cmp(IntPredicate::SGE, row, e.int(0)),
                    || vec![drawn(e, e.row(logits, row), vocab, seq, row).into()],
                    || vec![e.minus_one().into()],
                )
            },
        );
        e.store_int(next, seq, token[0].into_int_value());
    });
    Ok(())
}

/// The last row of logits that belongs to a sequence, or -1.
fn last_row<'c>(e: &Emit<'c, '_>, seq: Int<'c>) -> Int<'c> {
    let (rows, layout) = e.operand("rows");
    let sequence = e.sequence(seq);
    let count = e.dim(layout.ty.shape[0]);
    let last = e.fold((e.int(0), count, 1), &[e.minus_one().into()], |index, last| {
        let row = e.load_int(rows, index);
        let inside =
            e.and(e.cmp(IntPredicate::SGE, row, sequence.start), e.cmp(IntPredicate::SLT, row, sequence.end));
        vec![e.select(inside, index, last[0].into_int_value()).into()]
    });
    last[0].into_int_value()
}

fn drawn<'c>(e: &Emit<'c, '_>, logits: Ptr<'c>, vocab: u64, seq: Int<'c>, row: Int<'c>) -> Int<'c> {
    let setting = |name: &str| e.load_scalar(e.at(e.operand(name).0, F32, seq), F32);
    let tiled = Tiles::of(e, row);
    // The maxima of tiles say all that the logits would.
    let (scanned, count) = tiled.map_or((logits, vocab), |tiles| (tiles.maxima, tiles.count(vocab)));
    let initial: [Any<'c>; 2] = [e.lanes(f64::from(f32::MIN)).into(), e.lanes(0.0).into()];
    let scanned = e.fold_columns(count, &initial, |at, lanes, state| {
        let value = e.load_or(e.at(scanned, F32, at), lanes, e.lanes(f64::from(f32::MIN)));
        let is_nan = e.vcmp(FloatPredicate::UNO, value, value);
        let marks = e.select(is_nan, e.lanes(1.0), state[1].into_vector_value());
        vec![e.fmax(value, state[0].into_vector_value()).into(), marks.into()]
    });
    let largest = e.max_lane(scanned[0].into_vector_value());
    let marks = e.max_lane(scanned[1].into_vector_value());
    let temperature = setting("temperature");
    let token = e.choose(
        e.fcmp(FloatPredicate::OGT, marks, e.float(0.0)),
        || vec![e.int(NOT_A_NUMBER as u64).into()],
        || {
            let sharpness = || e.fdiv(e.float(1.0), temperature);
            e.choose(
                e.fcmp(FloatPredicate::OGT, temperature, e.float(0.0)),
                || {
                    let row_of = Row { logits, vocab, largest, sharpness: sharpness() };
                    vec![from_distribution(e, row_of, seq, row).into()]
                },
                || match tiled {
                    None => vec![first_equal(e, logits, vocab, largest).into()],
                    Some(tiles) => vec![tiles.first_equal(e, logits, vocab, largest).into()],
                },
            )
        },
    );
    token[0].into_int_value()
}

/// The maxima of the tiles of a row of logits.
#[derive(Clone, Copy)]
struct Tiles<'c> {
    maxima: Ptr<'c>,
    /// Logits of one.
    tile: u64,
}

impl<'c> Tiles<'c> {
    /// Where the op is given them.
    fn of(e: &Emit<'c, '_>, row: Int<'c>) -> Option<Self> {
        let has = e.spec().op.operands.iter().any(|operand| operand.name == "maxima");
        has.then(|| Self { maxima: e.row(e.operand("maxima"), row), tile: e.spec().int("tile") })
    }

    fn count(self, vocab: u64) -> u64 {
        vocab.div_ceil(self.tile)
    }

    /// The lowest index at which the row has its largest value: in the first tile that has it.
    fn first_equal(self, e: &Emit<'c, '_>, logits: Ptr<'c>, vocab: u64, largest: Float<'c>) -> Int<'c> {
        let index = first_equal(e, self.maxima, self.count(vocab), largest);
        let start = e.times(index, self.tile);
        let inside = |width| {
            let place = first_equal(e, e.at(logits, F32, start), width, largest);
            vec![e.add(start, place).into()]
        };
        let (whole, rest) = (vocab / self.tile, vocab % self.tile);
        // A row without a finite logit has its largest value nowhere: there is no tile to look into.
        let is_there = e.cmp(IntPredicate::SLT, index, e.int(self.count(vocab)));
        let token = e.choose(
            is_there,
            || match (whole, rest) {
                (0, _) => inside(rest),
                (_, 0) => inside(self.tile),
                _ => e.choose(
                    e.cmp(IntPredicate::SLT, index, e.int(whole)),
                    || inside(self.tile),
                    || inside(rest),
                ),
            },
            || vec![e.int(NO_INDEX as u64).into()],
        );
        token[0].into_int_value()
    }
}

/// The lowest index at which the row has this value.
fn first_equal<'c>(e: &Emit<'c, '_>, logits: Ptr<'c>, vocab: u64, value: Float<'c>) -> Int<'c> {
    let wanted = e.splat(value);
    let none = e.lanes(NO_INDEX);
    let first = e.fold_columns(vocab, &[none.into()], |at, lanes, first| {
        let value = e.load_or(e.at(logits, F32, at), lanes, e.lanes(f64::NAN));
        let index = e.fadd(e.iota(), e.splat(e.to_float(at)));
        let found = e.select(e.vcmp(FloatPredicate::OEQ, value, wanted), index, none);
        vec![e.fmin(found, first[0].into_vector_value()).into()]
    });
    let first: Float<'c> = e.call("llvm.vector.reduce.fmin", &[first[0]]);
    e.to_int(first)
}

fn from_distribution<'c>(e: &Emit<'c, '_>, row: Row<'c>, seq: Int<'c>, logits_row: Int<'c>) -> Int<'c> {
    let setting = |name: &str| e.load_scalar(e.at(e.operand(name).0, F32, seq), F32);
    let top_k = e.load_int(e.operand("top_k").0, seq);
    let lowest = e.float(f64::from(f32::MIN));
    let limits_k =
        e.and(e.cmp(IntPredicate::SGT, top_k, e.int(0)), e.cmp(IntPredicate::SLT, top_k, e.int(row.vocab)));
    let by_rank = e.choose(
        limits_k,
        || {
            let wanted = e.to_float(top_k);
            vec![cut_off(e, row, wanted, lowest, |_| e.lanes(1.0)).into()]
        },
        || vec![lowest.into()],
    );
    let by_rank = by_rank[0].into_float_value();
    let top_p = setting("top_p");
    let by_mass = e.choose(
        e.fcmp(FloatPredicate::OLT, top_p, e.float(1.0)),
        || {
            let wanted = e.fmul(top_p, mass(e, row, by_rank, |logits| weight(e, row, logits)));
            vec![cut_off(e, row, wanted, by_rank, |logits| weight(e, row, logits)).into()]
        },
        || vec![by_rank.into()],
    );
    let cut = e.fmax(by_rank, by_mass[0].into_float_value());
    let min_p = e.splat(setting("min_p"));
    let kept = |logits: Lanes<'c>| {
        let weight = weight(e, row, logits);
        e.select(e.vcmp(FloatPredicate::OGE, weight, min_p), weight, e.lanes(0.0))
    };
    let word = |n: u64| e.load_int(e.operand("seed").0, e.plus(e.times(seq, 2), n));
    let step_row = e.load_int(e.operand("rows").0, logits_row);
    let position = e.load_int(e.operand("positions").0, step_row);
    let u = philox::uniform(e, [word(0), word(1)], position);
    let target = e.fmul(u, mass(e, row, cut, kept));
    first_past(e, row, cut, kept, target)
}

/// e^((logit - largest) / temperature): 1 for the likeliest token.
fn weight<'c>(e: &Emit<'c, '_>, row: Row<'c>, logits: Lanes<'c>) -> Lanes<'c> {
    e.exp(e.fmul(e.fsub(logits, e.splat(row.largest)), e.splat(row.sharpness)))
}

/// Sum over the logits that reach `cut`; registers without any are passed over.
fn mass<'c>(
    e: &Emit<'c, '_>,
    row: Row<'c>,
    cut: Float<'c>,
    of: impl Fn(Lanes<'c>) -> Lanes<'c>,
) -> Float<'c> {
    let total = e.fold_columns(row.vocab, &[e.float(0.0).into()], |at, lanes, total| {
        vec![e.fadd(total[0].into_float_value(), piece(e, row, cut, (at, lanes), &of)).into()]
    });
    total[0].into_float_value()
}

/// The part of [`mass`] that one register gives.
fn piece<'c>(
    e: &Emit<'c, '_>,
    row: Row<'c>,
    cut: Float<'c>,
    (at, lanes): (Int<'c>, u32),
    of: &impl Fn(Lanes<'c>) -> Lanes<'c>,
) -> Float<'c> {
    let logits = e.load_or(e.at(row.logits, F32, at), lanes, e.lanes(f64::NAN));
    let reach = e.vcmp(FloatPredicate::OGE, logits, e.splat(cut));
    let sum = e.choose(
        e.any(reach),
        || vec![e.sum(e.select(reach, of(logits), e.lanes(0.0))).into()],
        || vec![e.float(0.0).into()],
    );
    sum[0].into_float_value()
}

/// The largest cut-off, not below `floor`, at which [`mass`] still reaches `wanted`.
fn cut_off<'c>(
    e: &Emit<'c, '_>,
    row: Row<'c>,
    wanted: Float<'c>,
    floor: Float<'c>,
    of: impl Fn(Lanes<'c>) -> Lanes<'c>,
) -> Float<'c> {
    // Keys order like the floats they stand for; the answer's bits are settled from the top.
    // Keys past the largest logit, those of NaN included, stand for it: it is always kept.
    let cut_of = |key| e.fmax(e.fmin(e.float_of_key(key), row.largest), floor);
    let key = e.fold((e.int(0), e.int(32), 1), &[e.int(0).into()], |step, key| {
        let bit = e.shift_left(e.int(1), e.sub(e.int(31), step));
        let candidate = e.or(key[0].into_int_value(), bit);
        let enough = e.fcmp(FloatPredicate::OGE, mass(e, row, cut_of(candidate), &of), wanted);
        vec![e.select(enough, candidate, key[0].into_int_value()).into()]
    });
    cut_of(key[0].into_int_value())
}

/// The first index in order at which the running sum exceeds `target`.
fn first_past<'c>(
    e: &Emit<'c, '_>,
    row: Row<'c>,
    cut: Float<'c>,
    of: impl Fn(Lanes<'c>) -> Lanes<'c>,
    target: Float<'c>,
) -> Int<'c> {
    // First the register, by the same sums as in `mass`; then the lane. Where rounding hides the
    // crossing, the last index with any weight stands.
    let width = u64::from(e.width());
    let initial: [Any<'c>; 3] = [e.float(0.0).into(), e.minus_one().into(), e.float(0.0).into()];
    let found = e.fold_columns(row.vocab, &initial, |at, lanes, state| {
        let (before, chosen) = (state[0].into_float_value(), state[1].into_int_value());
        let part = piece(e, row, cut, (at, lanes), &of);
        let after = e.fadd(before, part);
        // Until the sum has passed the target, each register with weight takes the place of the last.
        let open = e.fcmp(FloatPredicate::OLE, before, target);
        let takes = e.and(open, e.fcmp(FloatPredicate::OGT, part, e.float(0.0)));
        let start = e.select(takes, before, state[2].into_float_value());
        vec![after.into(), e.select(takes, at, chosen).into(), start.into()]
    });
    let first = e.max(found[1].into_int_value(), e.int(0));
    let scratch = e.scratch(width);
    let whole = row.vocab / width * width;
    let fill = |lanes: u32| {
        let logits = e.load_or(e.at(row.logits, F32, first), lanes, e.lanes(f64::NAN));
        let reach = e.vcmp(FloatPredicate::OGE, logits, e.splat(cut));
        e.store(scratch, F32, e.width(), e.select(reach, of(logits), e.lanes(0.0)));
        Vec::new()
    };
    let in_tail = e.cmp(IntPredicate::SGE, first, e.int(whole));
    let rest = (row.vocab - whole) as u32;
    if rest == 0 {
        fill(e.width());
    } else {
        e.choose(in_tail, || fill(rest), || if whole == 0 { Vec::new() } else { fill(e.width()) });
    }
    let initial: [Any<'c>; 2] = [found[2], first.into()];
    let lane = e.fold((e.int(0), e.int(width), 1), &initial, |lane, state| {
        let (before, chosen) = (state[0].into_float_value(), state[1].into_int_value());
        let weight = e.load_scalar(e.at(scratch, F32, lane), F32);
        let open = e.fcmp(FloatPredicate::OLE, before, target);
        let takes = e.and(open, e.fcmp(FloatPredicate::OGT, weight, e.float(0.0)));
        vec![e.fadd(before, weight).into(), e.select(takes, e.add(first, lane), chosen).into()]
    });
    lane[1].into_int_value()
}
