//! Sampling: a CTA takes a sequence. A row of logits is only ever streamed, never sorted.

use inkwell::{FloatPredicate, IntPredicate};
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::step::{NO_TOKEN, NOT_A_NUMBER};
use nemo_ir::types::Dtype;

use super::distribution::{self, MOST_TOKENS, Row, logit_of_rank, mass, part, rank_of_logit, reaches};
use super::greedy::{Best, NONE, best};
use super::philox;
use super::select::{Measure, Space, cut_off};
use super::stream::Stretch;
use super::together::{cta_combine, space_of, wide};
use crate::emit::built;
use crate::nvptx::{Any, Emit, Float, Int, Kernel, Needs, Ptr, SharedBytes, Written, geometry};
use crate::spec::{KernelSpec, Layout};
use crate::target::Sm;

const F32: Dtype = Dtype::F32;
/// Threads of a CTA, powers of two: as many as have something to do, within these.
const THREADS: [u32; 2] = [256, 1024];
/// Elements that a thread has to have.
const WORTH: u64 = 16;
/// Values that are combined at once.
const COMBINED: u32 = 3;

pub(super) fn kernel(spec: &KernelSpec) -> Result<Kernel, String> {
    let vocab = spec.operand("logits").1.ty.width().ok_or("the vocabulary is not constant")?;
    if vocab >= MOST_TOKENS {
        return Err(format!(
            "a vocabulary of {vocab} is not below {MOST_TOKENS}, up to which sums of masses fit an i64"
        ));
    }
    let threads =
        vocab.div_ceil(WORTH).next_power_of_two().clamp(THREADS[0].into(), THREADS[1].into()) as u32;
    let shared = SharedBytes::default().and(space_of(COMBINED, threads), 8);
    let grid = [geometry::rows(spec.results[0].ty.shape[0]), Extent::Const(1), Extent::Const(1)];
    let geometry = Geometry { shared: Space::bytes(shared, threads).0, ..geometry::of(grid, threads) };
    // For the largest, for the cut-offs, and for the token.
    let needs = Needs { registers: 96.min(Sm::REGISTERS / threads), waits: 3, ..Needs::of_threads(threads) };
    Ok(Kernel::needing(geometry, needs, |e| {
        let combining = e.shared(space_of(COMBINED, e.threads()), 8);
        sample(e, &Spaces { combining, selecting: Space::of(e) });
        Ok(())
    }))
}

struct Spaces<'c> {
    combining: Ptr<'c>,
    selecting: Space<'c>,
}

fn sample<'c>(e: &Emit<'c, '_>, spaces: &Spaces<'c>) {
    let seq = e.cta(0);
    let forced = e.load_int(e.operand("forced").0, seq);
    let token = e.choose(
        e.cmp(IntPredicate::SGE, forced, e.word(0)),
        || vec![forced.into()],
        || {
            let row = last_row(e, seq, spaces);
            e.choose(
                e.cmp(IntPredicate::SGE, row, e.word(0)),
                || vec![chosen(e, seq, row, spaces).into()],
                || vec![e.word(NO_TOKEN as u32).into()],
            )
        },
    );
    e.when(e.cmp(IntPredicate::EQ, e.thread(), e.word(0)), || {
        e.store_int(e.result().0, seq, token[0].into_int_value());
    });
}

/// The last row of logits that belongs to a sequence, or -1.
fn last_row<'c>(e: &Emit<'c, '_>, seq: Int<'c>, spaces: &Spaces<'c>) -> Int<'c> {
    let (rows, layout) = e.operand("rows");
    let bound = |seq| e.load_int(e.operand("seq_start").0, seq);
    let (start, end) = (bound(seq), bound(e.plus(seq, 1)));
    let (from, to) = (e.thread(), e.dim(layout.ty.shape[0]));
    let own = e.fold((from, to, e.threads().into()), &[e.word(u32::MAX).into()], |index, last| {
        let row = e.load_int(rows, index);
        let inside = e.and(e.cmp(IntPredicate::SGE, row, start), e.cmp(IntPredicate::SLT, row, end));
        vec![e.select(inside, index, last[0].into_int_value()).into()]
    });
    let later =
        |a: &[Any<'c>], b: &[Any<'c>]| vec![Any::from(e.max(a[0].into_int_value(), b[0].into_int_value()))];
    cta_combine(e, &own, spaces.combining, later)[0].into_int_value()
}

fn setting<'c>(e: &Emit<'c, '_>, name: &str, seq: Int<'c>) -> Float<'c> {
    e.load_scalar(e.at(e.operand(name).0, F32, seq), F32, Written::Before)
}

/// What the whole CTA reads of `count` elements; an access takes `vector` of them.
fn together<'c>(e: &Emit<'c, '_>, base: Ptr<'c>, count: Int<'c>, vector: u32) -> Stretch<'c> {
    let from = e.times(e.thread(), vector.into());
    Stretch { base, from, to: count, vector, stride: e.threads() * vector }
}

/// Elements of an access that leaves nothing of a row over.
fn vector_of(layout: &Layout) -> u32 {
    let width = layout.ty.width().unwrap_or(1);
    layout.vector().min(1 << width.trailing_zeros().min(2))
}

fn chosen<'c>(e: &Emit<'c, '_>, seq: Int<'c>, row: Int<'c>, spaces: &Spaces<'c>) -> Int<'c> {
    let logits = e.operand("logits");
    let (base, vocab, vector) = (e.row(logits, row), logits.1.ty.width().unwrap_or(0), vector_of(logits.1));
    let tiles = Tiles::of(e, row);
    // The maxima of tiles say all that the logits would.
    let scanned = match &tiles {
        None => together(e, base, e.word(vocab as u32), vector),
        Some(tiles) => together(e, tiles.maxima, e.word(tiles.count as u32), tiles.vector),
    };
    let found = best(e, &scanned, spaces.combining);
    // A row without a finite logit has no token to give, as little as one that is damaged.
    let has_none = e.or(
        e.cmp(IntPredicate::NE, found.is_nan, e.word(0)),
        e.cmp(IntPredicate::EQ, found.index, e.word(NONE)),
    );
    let temperature = setting(e, "temperature", seq);
    // Beside an infinite logit nothing has a share.
    let is_drawn = e.and(
        e.fcmp(FloatPredicate::OGT, temperature, e.float(0.0)),
        e.fcmp(FloatPredicate::OLT, found.value, e.float(f64::INFINITY)),
    );
    let token = e.choose(
        has_none,
        || vec![e.word(NOT_A_NUMBER as u32).into()],
        || {
            e.choose(
                is_drawn,
                || {
                    let sharpness = e.fdiv(e.float(std::f64::consts::LOG2_E), temperature);
                    let sharpness = e.fmin(sharpness, e.float(f64::from(f32::MAX)));
                    let row_of = Row { logits: base, vocab, vector, largest: found.value, sharpness };
                    vec![drawn(e, &row_of, seq, row, spaces).into()]
                },
                || match &tiles {
                    None => vec![found.index.into()],
                    Some(tiles) => vec![tiles.first_largest(e, (base, vocab, vector), &found, spaces).into()],
                },
            )
        },
    );
    token[0].into_int_value()
}

/// The maxima of the tiles of a row of logits.
struct Tiles<'c> {
    maxima: Ptr<'c>,
    count: u64,
    /// Maxima of an access.
    vector: u32,
    /// Logits of a tile.
    tile: u64,
}

impl<'c> Tiles<'c> {
    /// Where the op is given them.
    fn of(e: &Emit<'c, '_>, row: Int<'c>) -> Option<Self> {
        e.spec().op.operands.iter().find(|operand| operand.name == "maxima")?;
        let (maxima, layout) = e.operand("maxima");
        Some(Self {
            maxima: e.row((maxima, layout), row),
            count: layout.ty.width().unwrap_or(0),
            vector: vector_of(layout),
            tile: e.spec().int("tile"),
        })
    }

    /// The lowest index of the largest logit in the tile that was found.
    fn first_largest(
        &self,
        e: &Emit<'c, '_>,
        (logits, vocab, vector): (Ptr<'c>, u64, u32),
        found: &Best<'c>,
        spaces: &Spaces<'c>,
    ) -> Int<'c> {
        let start = e.times(found.index, self.tile);
        let count = e.min(e.sub(e.word(vocab as u32), start), e.word(self.tile as u32));
        let vector = vector.min(1 << self.tile.trailing_zeros().min(2));
        let tile = together(e, e.at(logits, F32, start), count, vector);
        e.add(start, best(e, &tile, spaces.combining).index)
    }
}

fn drawn<'c>(
    e: &Emit<'c, '_>,
    row: &Row<'c>,
    seq: Int<'c>,
    logits_row: Int<'c>,
    spaces: &Spaces<'c>,
) -> Int<'c> {
    let space = &spaces.selecting;
    let all = together(e, row.logits, e.word(row.vocab as u32), row.vector);
    let always = e.context.bool_type().const_all_ones();

    let top_k = e.load_int(e.operand("top_k").0, seq);
    let cuts = e.and(
        e.cmp(IntPredicate::SGT, top_k, e.word(0)),
        e.cmp(IntPredicate::SLT, top_k, e.word(row.vocab as u32)),
    );
    let by_rank = || {
        let measure = Measure {
            rank: |logit| rank_of_logit(e, logit),
            counts: |_| always,
            put: |bin, _| space.count(e, bin),
        };
        let rank = cut_off(e, &all, space, &measure, |_| wide(e, top_k));
        vec![logit_of_rank(e, rank).into()]
    };
    let lowest = e.choose(cuts, by_rank, || vec![e.float(f64::NEG_INFINITY).into()]);
    let lowest = lowest[0].into_float_value();

    let top_p = setting(e, "top_p", seq);
    let by_mass = || {
        let measure = Measure {
            rank: |logit| row.rank(e, logit),
            counts: |logit| reaches(e, logit, lowest),
            put: |bin, logit| {
                let mass = mass(e, row.weight(e, logit));
                e.when(e.cmp(IntPredicate::NE, mass, e.int(0)), || space.add(e, bin, mass));
            },
        };
        let share = e.fmul(e.fmax(top_p, e.float(0.0)), e.float(f64::from(1 << philox::BITS)));
        let share = built(e.builder.build_float_to_unsigned_int(share, e.context.i32_type(), ""));
        let wanted = |total| e.max(part(e, total, share), e.int(1));
        vec![cut_off(e, &all, space, &measure, wanted).into()]
    };
    let limits = e.fcmp(FloatPredicate::OLT, top_p, e.float(1.0));
    let last_rank = e.choose(limits, by_mass, || vec![e.word(u32::MAX).into()]);
    let last_rank = last_rank[0].into_int_value();

    let min_p = setting(e, "min_p", seq);
    let mass_of = |logit| {
        let weight = row.weight(e, logit);
        let above = e.and(reaches(e, logit, lowest), e.cmp(IntPredicate::ULE, row.rank(e, logit), last_rank));
        let stays = e.and(above, e.fcmp(FloatPredicate::UGE, weight, min_p));
        e.select(stays, mass(e, weight), e.int(0))
    };
    let word = |n: u64| e.load_int(e.operand("seed").0, e.plus(e.times(seq, 2), n));
    let step_row = e.load_int(e.operand("rows").0, logits_row);
    let position = e.load_int(e.operand("positions").0, step_row);
    let share = philox::draw(e, [word(0), word(1)], position);
    distribution::draw(e, row, space, share, mass_of)
}
