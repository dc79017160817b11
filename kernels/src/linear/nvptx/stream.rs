//! Products of few rows: weights stream from memory into the registers of tensor cores, each byte once.
//!
//! A strip of weights is the first operand of `mma` (16 columns of the product), eight rows of x are the second. A dot product
//! does not care about the order of K as long as both operands agree: lane (g, t) = (lane / 4, lane % 4) takes eight elements
//! of row g, 16 bytes, from k + 8 t on, so that a warp takes 64 bytes of each row at once, and they are the operands of two
//! instructions. Warps share the strips of a block, and the steps along K of each, one step after the other; their sums meet
//! in shared memory, in the order of the warps. Where blocks are too few for the card, CTAs share the steps, too.

use inkwell::IntPredicate;
use nemo_ir::plan::Geometry;
use nemo_ir::types::Dtype;

use super::cut::{self, Rows16, Splits};
use super::epilogue::{Done, Staged, finish};
use super::plan::Plan;
use super::source::{Line, Source, Staging};
use super::strips::{Blocks, STRIP};
use crate::nvptx::{
    self, Any, COMBINING, Candidate, Emit, Float, Form, Int, Kernel, Needs, Ptr, SharedBytes, geometry,
};
use crate::spec::KernelSpec;
use crate::target::Sm;

const F32: Dtype = Dtype::F32;
/// Warps of a CTA.
const WARPS: u64 = 8;
/// 16-byte pieces of weights that a lane has under way.
const AHEAD: u64 = 8;
/// Elements of K that a warp takes from each row by one access a lane.
const CHUNK: u64 = 32;

/// How the work is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Rows of x in a tile, and blocks of eight of them.
    rows: u64,
    /// Strips of a warp.
    strips: u64,
    /// Warps along the columns of a block; the others share K.
    across: u64,
    /// CTAs that share K.
    splits: u64,
    staging: Staging,
}

/// Whether the kernel can take the operands: what else there is needs [`super::simt`].
pub(super) fn takes(plan: &Plan) -> bool {
    let classes = plan.classes();
    let weights = matches!(classes[..], [((Dtype::Bf16, _, 8), _)]);
    let whole = plan.k.is_multiple_of(8);
    let wide = plan.x.norm.is_some() || plan.x.x.layout.vector() == 8;
    // Where rows do not fit shared memory, eight elements share a scale.
    let scaled = plan.x.norm.as_ref().is_none_or(|norm| norm.group.is_multiple_of(8));
    weights && plan.x.dtype() == Dtype::Bf16 && whole && wide && scaled && plan.parts() <= MOST_PARTS
}

/// The most strips of a unit that the warps of a CTA can hold.
const MOST_PARTS: u64 = 4 * WARPS;

impl Cut {
    fn of(sm: Sm, spec: &KernelSpec, plan: &Plan) -> Self {
        let most = cut::most_rows(spec, plan.rows);
        // Sums of sixteen rows, with some room.
        let staged = if plan.parts() > 2 * WARPS { 40 << 10 } else { 20 << 10 };
        let budget = u64::from(sm.shared_bytes()) - staged;
        let staging = |rows| Staging::of(plan, rows, budget, false);
        let rows = most.min(16);
        // Eight rows a tile read the weights twice, the second time mostly from cache; that is less work than to norm
        // rows wherever they are read.
        let rows = if rows > 8 && staging(rows).repeats() && !staging(8).repeats() { 8 } else { rows };
        let (strips, across) = Self::shape(sm, plan, (rows, most.div_ceil(rows)));
        let blocks = Blocks::of(plan, strips * across).count();
        let steps = (plan.k / (CHUNK * AHEAD / 2 / strips)).max(1);
        let splits = cut::splits(sm, blocks, steps.div_ceil(WARPS / across));
        Self { rows, strips, across, splits, staging: staging(rows) }
    }

    /// Strips of a warp, and warps across: as many as leave blocks enough to keep the card busy, since each block reads x
    /// and the norm's weights again.
    fn shape(sm: Sm, plan: &Plan, (rows, tiles): (u64, u64)) -> (u64, u64) {
        let parts = plan.parts();
        let enough = 2 * sm.multiprocessors();
        let count = |strips: u64, across: u64| Blocks::of(plan, strips * across).count() * tiles;
        let holds = |(strips, across): &(u64, u64)| strips * across >= parts;
        let shapes = [(2, 8), (2, 4), (2, 2), (2, 1)];
        let mut fitting = shapes.into_iter().filter(holds);
        let busy = fitting.clone().find(|(strips, across)| count(*strips, *across) >= enough);
        let (strips, across) = busy.or_else(|| fitting.next_back()).unwrap_or((4, 8));
        // Of more rows than a few, a strip's weights are hardly more bytes than x.
        let narrow = across == 1 && parts == 1 && rows <= 4;
        if narrow && count(strips, across) < sm.multiprocessors() { (1, 1) } else { (strips, across) }
    }

    /// Warps that share K.
    fn along(&self) -> u64 {
        WARPS / self.across
    }

    /// Chunks of K in a step of a warp.
    fn chunks(&self) -> u64 {
        AHEAD / 2 / self.strips
    }

    /// Elements of K in a step of a warp.
    fn step(&self) -> u64 {
        self.chunks() * CHUNK
    }

    fn columns(&self) -> u64 {
        self.strips * self.across * STRIP
    }

    /// Elements from row to row of the staged tile.
    fn stride(&self) -> u64 {
        self.columns() + 4
    }

    /// Whether a multiprocessor is to hold two CTAs: while one waits for its last weights, the other's stream.
    fn pairs(&self) -> bool {
        self.eights() == 1
    }

    fn needs(&self) -> Needs {
        let registers = if self.pairs() { 128 } else { 168 };
        Needs {
            registers,
            under_way: 32 * WARPS * AHEAD * 16,
            again: 0,
            waits: if self.splits > 1 { 1 + COMBINING } else { 1 },
        }
    }

    fn staged_bytes(&self) -> u32 {
        (self.along() * self.rows * self.stride() * 4) as u32
    }

    /// Blocks of eight rows.
    fn eights(&self) -> u64 {
        self.rows.div_ceil(8)
    }
}

/// The kernel.
pub(super) fn kernel(sm: Sm, spec: &KernelSpec, plan: Plan) -> Result<Kernel, String> {
    let cut = Cut::of(sm, spec, &plan);
    let blocks = Blocks::of(&plan, cut.columns() / STRIP);
    let tiles = Rows16 { dim: plan.rows, rows: cut.rows, most: cut::most_rows(spec, plan.rows) };
    let splits = Splits { count: cut.splits, rows: cut.rows, columns: cut.columns() };
    let shared = SharedBytes::default().and(cut.staged_bytes(), 16);
    let shared = splits.space(cut.staging.space(&plan).after(shared));
    let grid = cut::grid(tiles, blocks.count(), cut.splits)?;
    let geometry = Geometry {
        shared: shared.0,
        counters: splits.counters(tiles.count(), blocks.count()),
        partials: splits.partials(tiles.count(), blocks.count()),
        ..geometry::of(grid, 32 * WARPS as u32)
    };
    let candidate = Candidate {
        form: Form::Stream,
        geometry,
        needs: cut.needs(),
        cut: Some(nvptx::Cut { rows: 8 * cut.eights(), columns: cut.columns(), splits: cut.splits }),
    };
    Ok(Kernel::of(candidate, move |e| {
        if cut.pairs() {
            e.resident(2);
        }
        let staged = e.shared(cut.staged_bytes(), 16);
        let tile = e.cta(0);
        let rows = tiles.of_tile(e, tile);
        let stream = Stream { e, plan: &plan, cut, blocks: &blocks };
        let own = stream.own();
        let first = stream.first(&own);
        let source = cut.staging.prepare(e, &plan, rows);
        let sums = stream.sums(&own, &source, first);
        stream.stage(&own, staged, &sums);
        e.barrier();
        let (stride, parts) = (cut.stride(), cut.along());
        let staged = Staged { base: staged, stride, parts, part: cut.rows * stride };
        let groups: Vec<usize> = (0..plan.groups.len()).collect();
        let done = Done { block: e.cta(1), rows, staged };
        splits.when_complete(e, (tile, blocks.count()), done, |done| {
            finish(e, &plan, (&blocks, &groups), done);
        });
        Ok(())
    }))
}

/// One thread's view of the loop over K.
struct Stream<'e, 'c, 'm, 'p> {
    e: &'e Emit<'c, 'm>,
    plan: &'p Plan,
    cut: Cut,
    blocks: &'p Blocks,
}

/// What belongs to this thread.
struct Own<'c> {
    /// Lane / 4 and lane % 4.
    g: Int<'c>,
    t: Int<'c>,
    /// Index of the warp along K, and across.
    along: Int<'c>,
    across: Int<'c>,
    /// Weights' rows g and g + 8 of each strip, at element 8 t.
    weights: Vec<[Ptr<'c>; 2]>,
    /// Index of this warp among all that share K, and how many there are.
    share: Int<'c>,
    shares: u64,
    /// Whether there is a whole step for it, i1.
    any: inkwell::values::IntValue<'c>,
}

impl<'c> Stream<'_, 'c, '_, '_> {
    fn own(&self) -> Own<'c> {
        let (e, cut) = (self.e, &self.cut);
        let (g, t) = (e.shift_right(e.lane(), 2), e.and(e.lane(), e.word(3)));
        // The same for all lanes of a warp, which the compiler cannot know otherwise.
        let warp = e.shuffle_int(e.warp(), e.word(0));
        let across = e.rem(warp, e.word(cut.across as u32));
        let along = e.div(warp, e.word(cut.across as u32));
        let groups: Vec<usize> = (0..self.plan.groups.len()).collect();
        let stride = self.plan.groups[0].products[0].weight.layout.row_stride;
        let weights = (0..cut.strips).map(|strip| {
            let index = e.plus(e.times(across, cut.strips), strip);
            let strip = self.blocks.strip(e, self.plan, &groups, (e.cta(1), index));
            let last = e.sub(strip.present, e.word(1));
            let row = |row| {
                // A column that is not there reads one that is, and its sum goes nowhere.
                let offset = e.times(e.long(e.min(row, last)), stride);
                e.at(e.at(strip.base, Dtype::Bf16, offset), Dtype::Bf16, e.times(t, 8))
            };
            [row(g), row(e.plus(g, 8))]
        });
        let weights = weights.collect();
        let share = if cut.splits > 1 { e.add(e.times(e.cta(2), cut.along()), along) } else { along };
        let any = e.cmp(IntPredicate::SLT, share, e.word(self.steps() as u32));
        Own { g, t, along, across, weights, share, shares: cut.along() * cut.splits, any }
    }

    /// Whole steps along K.
    fn steps(&self) -> u64 {
        self.plan.k / self.cut.step()
    }

    /// The weights of a step from `k` on: of each chunk and strip, rows g and g + 8.
    fn weights(&self, own: &Own<'c>, k: Int<'c>) -> Vec<Any<'c>> {
        let e = self.e;
        let four = e.context.i32_type().vec_type(4);
        let mut loaded = Vec::new();
        for chunk in 0..self.cut.chunks() {
            for row in own.weights.iter().flatten() {
                let place = e.at(*row, Dtype::Bf16, e.plus(k, chunk * CHUNK));
                loaded.push(e.load_read_only(four, place, 16));
            }
        }
        loaded
    }

    /// The weights of this warp's first step, or zeros where it has none: they are under way while x is prepared.
    fn first(&self, own: &Own<'c>) -> Vec<Any<'c>> {
        let e = self.e;
        let k = e.times(own.share, self.cut.step());
        let count = 2 * self.cut.strips * self.cut.chunks();
        let zeros = || vec![e.context.i32_type().vec_type(4).const_zero().into(); count as usize];
        e.choose(own.any, || self.weights(own, k), zeros)
    }

    /// The words of x that belong to a step: of each chunk and eight rows.
    fn x(&self, own: &Own<'c>, source: &Source<'c>, lines: &[Line<'c>], k: Int<'c>) -> Vec<Any<'c>> {
        let e = self.e;
        let first = e.add(k, e.times(own.t, 8));
        let places: Vec<_> = (0..self.cut.chunks()).map(|chunk| e.plus(first, chunk * CHUNK)).collect();
        let of_lines: Vec<_> = lines.iter().map(|line| source.words(e, self.plan, line, &places)).collect();
        let of_chunk = |chunk: usize| of_lines.iter().flat_map(move |words| words[chunk].map(Any::from));
        (0..places.len()).flat_map(of_chunk).collect()
    }

    /// The sums with a step added.
    fn multiply(&self, sums: &[Any<'c>], weights: &[Any<'c>], x: &[Any<'c>]) -> Vec<Any<'c>> {
        let (e, cut) = (self.e, &self.cut);
        let (strips, eights) = (cut.strips as usize, cut.eights() as usize);
        let mut sums: Vec<Float<'c>> = sums.iter().map(|sum| sum.into_float_value()).collect();
        let words = |vector: Any<'c>| -> [Int<'c>; 4] {
            std::array::from_fn(|lane| e.extract(vector.into_vector_value(), lane as u32).into_int_value())
        };
        for (weights, x) in weights.chunks(2 * strips).zip(x.chunks(4 * eights)) {
            for (strip, rows) in weights.chunks(2).enumerate() {
                let (low, high) = (words(rows[0]), words(rows[1]));
                for (eight, x) in x.chunks(4).enumerate() {
                    let place = (strip * eights + eight) * 4;
                    let mut own: [Float<'c>; 4] = std::array::from_fn(|index| sums[place + index]);
                    for half in [0, 2] {
                        let a = [low[half], high[half], low[half + 1], high[half + 1]];
                        let b = [x[half].into_int_value(), x[half + 1].into_int_value()];
                        own = e.mma(a, b, own);
                    }
                    sums[place..place + 4].copy_from_slice(&own);
                }
            }
        }
        sums.into_iter().map(Any::from).collect()
    }

    /// The products of this warp's share of K: of each strip and eight rows, four of a lane.
    fn sums(&self, own: &Own<'c>, source: &Source<'c>, first: Vec<Any<'c>>) -> Vec<Any<'c>> {
        let (e, cut) = (self.e, &self.cut);
        let lines: Vec<_> =
            (0..cut.eights()).map(|eight| source.line(e, self.plan, e.plus(own.g, 8 * eight))).collect();
        let count = (cut.strips * cut.eights() * 4) as usize;
        let zeros: Vec<Any<'c>> = vec![e.float(0.0).into(); count];
        let step = cut.step();
        let whole = self.steps() * step;
        let sums = e.choose(
            own.any,
            || {
                let k = e.times(own.share, step);
                let stride = own.shares * step;
                let mut carried = zeros.clone();
                carried.push(k.into());
                let weights = first.len();
                carried.extend(first);
                carried.extend(self.x(own, source, &lines, k));
                let from = e.plus(k, stride);
                let advance = |carried: &[Any<'c>]| {
                    let (weights, x) = carried[count + 1..].split_at(weights);
                    self.multiply(&carried[..count], weights, x)
                };
                let carried = e.fold((from, e.word(whole as u32), stride), &carried, |k, carried| {
                    // Asked for before what came before is used.
                    let (weights, x) = (self.weights(own, k), self.x(own, source, &lines, k));
                    let mut next = advance(carried);
                    next.push(k.into());
                    next.extend(weights);
                    next.extend(x);
                    next
                });
                advance(&carried)
            },
            || zeros.clone(),
        );
        if whole == self.plan.k {
            return sums;
        }
        // What is left of K goes to the warp whose turn it is.
        let turn = e.word((self.steps() % own.shares) as u32);
        e.choose(
            e.cmp(IntPredicate::EQ, own.share, turn),
            || self.rest(own, source, &lines, (&sums, whole)),
            || sums.clone(),
        )
    }

    /// The sums with the last, partial step added.
    fn rest(
        &self,
        own: &Own<'c>,
        source: &Source<'c>,
        lines: &[Line<'c>],
        (sums, whole): (&[Any<'c>], u64),
    ) -> Vec<Any<'c>> {
        let e = self.e;
        let four = e.context.i32_type().vec_type(4);
        let mut sums = sums.to_vec();
        let left = (self.plan.k - whole).div_ceil(CHUNK);
        for chunk in 0..left {
            let first = whole + chunk * CHUNK;
            let at = e.plus(e.times(own.t, 8), first);
            let there = e.cmp(IntPredicate::SLT, at, e.word(self.plan.k as u32));
            // Past the end the row's first elements are read, and become zeros.
            let offset = e.select(there, e.word(first as u32), e.times(own.t, -8_i64 as u64));
            let weights: Vec<Any<'c>> = own
                .weights
                .iter()
                .flatten()
                .map(|row| {
                    let loaded = e.load_read_only(four, e.at(*row, Dtype::Bf16, offset), 16);
                    e.select(there, loaded.into_vector_value(), four.const_zero()).into()
                })
                .collect();
            let k = e.select(there, at, e.word(0));
            let x = lines.iter().flat_map(|line| source.words(e, self.plan, line, &[k])[0]);
            let x: Vec<Any<'c>> = x.map(|word| e.select(there, word, e.word(0)).into()).collect();
            sums = self.multiply(&sums, &weights, &x);
        }
        sums
    }

    /// Puts the warp's sums where the epilogue finds them.
    fn stage(&self, own: &Own<'c>, staged: Ptr<'c>, sums: &[Any<'c>]) {
        let (e, cut) = (self.e, &self.cut);
        let part = e.times(own.along, cut.rows * cut.stride());
        let column = e.add(e.times(own.across, cut.strips * STRIP), own.g);
        let base = e.at(staged, F32, e.add(part, column));
        for (place, sums) in sums.chunks(4).enumerate() {
            let (strip, eight) = (place as u64 / cut.eights(), place as u64 % cut.eights());
            for odd in [0, 1] {
                let row = e.plus(e.times(own.t, 2), 8 * eight + odd);
                let store = || {
                    for high in [0, 1] {
                        let column = e.word((strip * STRIP + 8 * high) as u32);
                        let place = e.at(base, F32, e.add(e.times(row, cut.stride()), column));
                        e.store(place, F32, &[sums[(2 * high + odd) as usize].into_float_value()], 1);
                    }
                };
                // Of the last eight rows some may be past the tile.
                if 8 * (eight + 1) <= cut.rows {
                    store();
                } else {
                    e.when(e.cmp(IntPredicate::SLT, row, e.word(cut.rows as u32)), store);
                }
            }
        }
    }
}
