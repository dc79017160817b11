//! Depthwise causal convolution with SiLU: a thread takes a few channels, a CTA a tile of rows; the window slides in
//! registers.
//!
//! A sequence's slot is read and written by one thread for each channel, so it may be read and written in place: the one
//! whose tile has the sequence's first row. That thread also computes the rows that see the slot where they reach into the
//! next tile, and reads the last inputs of the sequence, wherever they are, once more.

use inkwell::IntPredicate;
use nemo_ir::plan::{Extent, Phase};
use nemo_ir::types::{Dim, Dtype, Symbol};

use super::heads::piece;
use super::sequences::{Sequence, Sequences};
use super::window::{Channels, Row, Taps, rows_of};
use crate::nvptx::{Any, Emit, Float, Int, Kernel, Link, Needs, Ptr, SharedBytes, Written, geometry};
use crate::spec::KernelSpec;

const F32: Dtype = Dtype::F32;
/// The most products of a row and a tap that a thread has: their taps are in registers.
const MOST_TAPS: u64 = 64;
/// Rows whose loads are under way together.
const UNROLLED: u64 = 4;

/// How the work is cut.
#[derive(Clone, Copy)]
struct Tiling {
    /// Channels of a thread.
    vector: u32,
    threads: u32,
    /// Rows of a CTA: no fewer than a sequence's rows that see its slot.
    rows: u64,
    channels: u64,
}

pub(super) fn kernel(spec: &KernelSpec, link: &Link) -> Result<Kernel, String> {
    let taps = Taps::of(spec, link)?;
    let (x, y) = (taps.x(spec), &spec.results[0]);
    let channels = x.ty.width().ok_or("the channels are not constant")?;
    let fits = 1 << (MOST_TAPS / taps.taps).ilog2();
    let vector = piece(channels, &[x, y, taps.state(spec)]).min(fits);
    let steps = spec.steps.ok_or("the steps are not known")?;
    // Few rows must fill the device through their channels.
    let (threads, rows) = match steps.phase {
        Phase::Decode => (32, 4),
        Phase::Prefill if steps.max_tokens <= 1024 => (64, 16),
        Phase::Prefill => (128, 32),
    };
    let tiling = Tiling { vector, threads, rows: rows.max(taps.past()), channels };
    let stripes = channels.div_ceil(u64::from(vector * threads));
    let grid = [Extent::Const(stripes), geometry::tiles(x.ty.shape[0], tiling.rows), Extent::Const(1)];
    let shared = SharedBytes::default().and(Table::bytes(&tiling, &taps), 16).0;
    let geometry = nemo_ir::plan::Geometry { shared, ..geometry::of(grid, threads) };
    let rows = x.ty.shape[0];
    let under_way = u64::from(threads) * tiling.rows * u64::from(vector) * x.dtype().bytes();
    let needs = Needs { registers: 168, ..Needs::of_residents(threads, 1, under_way) };
    Ok(Kernel::needing(geometry, needs, move |e| body(e, &taps, &tiling, rows)))
}

fn body<'c>(e: &Emit<'c, '_>, taps: &Taps, tiling: &Tiling, rows: Dim) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let sequences = &Sequences::of(e, link)?;
    let table = Table::fill(e, taps, tiling);
    let stripe = e.times(e.cta(0), u64::from(tiling.threads * tiling.vector));
    let channel = e.add(stripe, e.times(e.thread(), tiling.vector.into()));
    let first = e.times(e.cta(1), tiling.rows);
    let last = e.cmp(IntPredicate::EQ, e.plus(e.cta(1), 1), e.ctas(1));
    let end = e.min(e.plus(first, tiling.rows), e.dim(rows));
    let count = e.dim(Dim::symbol(Symbol::R));
    let begun = sequences.before(e, first, count);
    // Sequences without rows after the last one belong to the last tile.
    let until = e.select(last, count, sequences.before(e, end, count));
    let from = match e.steps().phase {
        Phase::Decode => begun,
        Phase::Prefill => e.max(e.sub(begun, e.word(1)), e.word(0)),
    };
    e.when(e.cmp(IntPredicate::SLT, channel, e.word(tiling.channels as u32)), || {
        let weights = table.read(e, taps, tiling);
        e.each(from, until, |index| {
            let sequence = sequences.get(e, index);
            let tile = Tile { taps, sequence, rows: (first, end), channels: (channel, tiling.vector) };
            tile.run(e, sequences, &weights);
        });
    });
    Ok(())
}

/// The part of a sequence that a tile has.
struct Tile<'c, 't> {
    taps: &'t Taps,
    sequence: Sequence<'c>,
    /// The tile's rows.
    rows: (Int<'c>, Int<'c>),
    channels: Channels<'c>,
}

impl<'c> Tile<'c, '_> {
    fn run(&self, e: &Emit<'c, '_>, sequences: &Sequences<'c>, weights: &Weights<'c>) {
        let Sequence { start, end, .. } = self.sequence;
        let (first, past_tile) = self.rows;
        let past = self.taps.past();
        // Where rows that see the slot end.
        let sees = e.min(e.plus(start, past), end);
        let begins = e.cmp(IntPredicate::SGE, start, first);
        let from = e.select(begins, start, e.max(first, sees));
        let to = e.select(e.cmp(IntPredicate::SLE, end, past_tile), end, e.max(past_tile, sees));
        let count = self.channels.1;
        let window = e.choose(
            begins,
            || {
                let slot_in = sequences.slot_in(e, self.sequence);
                let before = self.taps.before(e, slot_in, self.channels);
                let slot_out = sequences.slot_out(e, self.sequence);
                self.taps.keep(e, self.sequence, slot_out, self.channels, &before);
                before.into_iter().flatten().map(Any::from).collect()
            },
            || {
                e.choose(
                    e.cmp(IntPredicate::SLT, from, to),
                    || {
                        let row = |age| {
                            let row = e.sub(e.plus(from, age), e.word(past as u32));
                            self.taps.input(e, row, self.channels)
                        };
                        (0..past).flat_map(row).map(Any::from).collect()
                    },
                    || vec![e.float(0.0).into(); (past * u64::from(count)) as usize],
                )
            },
        );
        let many = e.times(e.div(e.sub(to, from), e.word(UNROLLED as u32)), UNROLLED);
        let many = e.add(from, e.select(e.cmp(IntPredicate::SLT, from, to), many, e.word(0)));
        let window = e.fold((from, many, UNROLLED), &window, |row, window| {
            self.advance(e, row, UNROLLED, window, weights)
        });
        e.fold((many, to, 1), &window, |row, window| self.advance(e, row, 1, window, weights));
    }

    /// Some rows; gives the window after them.
    fn advance(
        &self,
        e: &Emit<'c, '_>,
        first: Int<'c>,
        rows: u64,
        window: &[Any<'c>],
        weights: &Weights<'c>,
    ) -> Vec<Any<'c>> {
        let (channel, count) = self.channels;
        let mut inputs = rows_of(window, count);
        inputs.extend((0..rows).map(|row| self.taps.input(e, e.plus(first, row), self.channels)));
        let y = e.result();
        let taps = self.taps.taps as usize;
        for row in 0..rows {
            let seen = &inputs[row as usize..][..taps];
            let output = |at: usize| {
                let window = seen.iter().map(|input| input[at]);
                Taps::output(e, window, weights.taps.iter().map(|tap| tap[at]), weights.bias[at])
            };
            let values: Row<'c> = (0..count as usize).map(output).collect();
            let place = e.at(e.row(y, e.plus(first, row)), y.1.dtype(), channel);
            e.store(place, y.1.dtype(), &values, count);
        }
        inputs[rows as usize..].iter().flatten().map(|value| Any::from(*value)).collect()
    }
}

/// The taps of a thread's channels, a row for each tap.
struct Weights<'c> {
    taps: Vec<Row<'c>>,
    bias: Row<'c>,
}

/// The taps of a CTA's channels in shared memory, a line for each tap and one for the bias: rows of taps are read as they
/// lie, and each thread takes those of its channels, both without bank conflicts.
struct Table<'c> {
    base: Ptr<'c>,
}

impl<'c> Table<'c> {
    /// Words from line to line: lines are shifted so that the taps of neighbouring channels fall into different banks.
    fn line(tiling: &Tiling) -> u32 {
        let channels = tiling.threads * tiling.vector;
        if tiling.vector == 8 { channels + 36 } else { channels + 8 }
    }

    fn bytes(tiling: &Tiling, taps: &Taps) -> u32 {
        (taps.taps as u32 + u32::from(taps.has_bias())) * Self::line(tiling) * 4
    }

    /// The word of a channel in its line. Of eight channels of a thread, which are two accesses, the second four lie apart:
    /// a warp's access is to consecutive words.
    fn word(e: &Emit<'c, '_>, tiling: &Tiling, channel: Int<'c>) -> Int<'c> {
        if tiling.vector < 8 {
            return channel;
        }
        let half = e.and(e.shift_right(channel, 2), e.word(1));
        let pair = e.add(e.times(e.shift_right(channel, 3), 4), e.and(channel, e.word(3)));
        e.add(pair, e.times(half, u64::from(Self::half(tiling))))
    }

    /// Words from the first to the second four channels of a thread.
    fn half(tiling: &Tiling) -> u32 {
        tiling.threads * tiling.vector / 2 + 16
    }

    /// Copies them, by all threads.
    fn fill(e: &Emit<'c, '_>, taps: &Taps, tiling: &Tiling) -> Self {
        let base = e.shared(Self::bytes(tiling, taps), 16);
        let line = Self::line(tiling);
        let channels = tiling.threads * tiling.vector;
        let first = e.times(e.cta(0), channels.into());
        let count = e.min(e.word(channels), e.sub(e.word(tiling.channels as u32), first));
        let copy = |tap: Int<'c>, channel: Int<'c>, from: Ptr<'c>| {
            let value = e.load_scalar(from, F32, Written::Before);
            let word = e.add(e.times(tap, line.into()), Self::word(e, tiling, channel));
            e.store(e.at(base, F32, word), F32, &[value], 1);
        };
        let weights = e.at(taps.weights(e), F32, e.times(first, taps.taps));
        e.each_strided(e.times(count, taps.taps), |at| {
            let per_channel = e.word(taps.taps as u32);
            copy(e.rem(at, per_channel), e.div(at, per_channel), e.at(weights, F32, at));
        });
        if let Some(bias) = taps.bias(e) {
            let bias = e.at(bias, F32, first);
            e.each_strided(count, |at| copy(e.word(taps.taps as u32), at, e.at(bias, F32, at)));
        }
        e.barrier();
        Self { base }
    }

    /// Those of this thread's channels.
    fn read(&self, e: &Emit<'c, '_>, taps: &Taps, tiling: &Tiling) -> Weights<'c> {
        let access = tiling.vector.min(4);
        let line = |tap: u64| -> Vec<Float<'c>> {
            let words = |half: u32| {
                let word = e.plus(e.times(e.thread(), access.into()), tap * u64::from(Self::line(tiling)));
                let word = e.plus(word, (half * Self::half(tiling)).into());
                e.load(e.at(self.base, F32, word), F32, (access, access), Written::Now)
            };
            (0..tiling.vector.div_ceil(4)).flat_map(words).collect()
        };
        let bias = if taps.has_bias() { line(taps.taps) } else { vec![e.float(0.0); tiling.vector as usize] };
        Weights { taps: (0..taps.taps).map(line).collect(), bias }
    }
}
