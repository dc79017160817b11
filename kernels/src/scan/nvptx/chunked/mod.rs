//! The chunked (SSD) form on tensor cores: a CTA takes one head of one sequence, a warp 16 columns of head_dim, and of a
//! large state half the rows: two warps then add what they have of y and finish half of the chunk's rows each.
//!
//! With l_t the running sum of dt * A inside a chunk of rows,
//!   y_t  = sum_{s <= t} (c_t . b_s) e^{l_t - l_s} dt_s x_s  +  e^{l_t} S c_t  +  d x_t
//!   S'   = e^{l_last} S  +  sum_s e^{l_last - l_s} dt_s x_s b_s^T.
//! The state stays in registers, in f32 and transposed: so the sums of one chunk's last product are the right operands of
//! the next one's first. The scores c_t . b_s are shared by the warps, with their decay, and d on the diagonal. x, b and c
//! are bf16; what is computed from them enters products as a sum of two bf16, which leaves errors of f32's order. A chunk has
//! 64 rows from each sequence's first one on, whatever the op says: where chunks end is a matter of rounding alone.

mod products;

use inkwell::IntPredicate;
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::types::{Dtype, Symbol};

use super::heads::{Columns, Scan};
use super::panel::{BLOCK, Corners, PANEL, ROWS, Source};
use super::sequences::{Sequence, Sequences};
use crate::nvptx::{Any, Chain, Emit, Float, Int, Kernel, Link, Needs, Ptr, SharedBytes, Written, geometry};
use crate::spec::KernelSpec;
use crate::target::Sm;

const F32: Dtype = Dtype::F32;
/// Blocks of 16 x 16 scores on and below the diagonal.
const BLOCKS: u32 = 10;
/// Panels of the state's rows that a warp's registers shall hold, beside x and what the next chunk will need.
const HELD: u32 = 8;
/// The most warps that may need so many registers each as these do.
const MOST_WARPS: u32 = 10;
/// Bytes of an f32 for each row of a chunk.
const LINE: u32 = ROWS * 4;

/// How a head is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiling {
    /// Panels of the state's rows.
    state: u32,
    /// Panels of head_dim.
    strips: u32,
    /// Warps that share a panel of head_dim, each with as many of the state's panels: one or two.
    parts: u32,
    /// Chunks in shared memory: the next one is copied while one is computed, or one CTA's copies pass while another
    /// computes.
    stages: u32,
    /// Blocks of scores that take the place of a warp's panel of x, which is in registers by then.
    overlaid: u32,
}

impl Tiling {
    /// `None` where tensor cores do not take the scan: for other dtypes than bf16, odd extents, or loose alignment.
    pub fn of(sm: Sm, spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Option<Self>, String> {
        let shape = Scan::of(spec, chain, link)?.shape;
        for name in ["x", "b", "c"] {
            let columns = Columns::of(spec, chain, link, name)?;
            if columns.layout(spec).dtype() != Dtype::Bf16 || columns.vector(spec) < 8 {
                return Ok(None);
            }
        }
        let whole = |extent: u64| extent > 0 && extent.is_multiple_of(16) && extent <= 256;
        if !whole(shape.state) || !whole(shape.head_dim) {
            return Ok(None);
        }
        let (state, strips) = ((shape.state / 16) as u32, (shape.head_dim / 16) as u32);
        let halves = state > HELD && state.is_multiple_of(2) && 2 * strips <= MOST_WARPS;
        // A larger state leaves no registers for x, and two warps have one panel of it.
        let overlaid = if state <= HELD { ROWS / 16 } else { 0 };
        let stages = match sm {
            Sm::Sm86 => 1,
            Sm::Sm90 => 2,
        };
        let tiling = Self { state, strips, parts: if halves { 2 } else { 1 }, stages, overlaid };
        Ok((tiling.shared().0 <= sm.shared_bytes()).then_some(tiling))
    }

    /// CTAs whose registers shall fit a multiprocessor: as many as its shared memory takes, where that is little.
    fn neighbours(&self, sm: Sm) -> u32 {
        if sm == Sm::Sm86 && 2 * (self.shared().0 + 1024) <= 100 << 10 { 2 } else { 1 }
    }

    fn warps(&self) -> u32 {
        self.strips * self.parts
    }

    /// Panels of the state's rows of a warp.
    fn held(&self) -> u32 {
        self.state / self.parts
    }

    /// Whether a warp has registers for x and for what the next chunk will need.
    fn is_spare(&self) -> bool {
        self.held() <= HELD
    }

    /// Bytes of a chunk's b, c and x.
    fn stage(&self) -> u32 {
        (2 * self.state + self.strips) * PANEL
    }

    /// Blocks of scores of a warp, at most.
    fn blocks(&self) -> u32 {
        BLOCKS.div_ceil(self.warps())
    }

    /// Blocks of a warp, of both parts of its scores, that lie in a place of their own.
    fn apart(&self) -> u32 {
        (2 * self.blocks()).saturating_sub(self.overlaid)
    }

    fn shared(&self) -> SharedBytes {
        SharedBytes::default()
            .and(self.stages * self.stage(), 128)
            .and(self.warps() * self.apart() * BLOCK, 128)
            .and(self.stages * 3 * LINE, 16)
    }
}

pub(super) fn kernel(
    sm: Sm,
    spec: &KernelSpec,
    chain: &Chain,
    link: &Link,
    tiling: Tiling,
) -> Result<Kernel, String> {
    let scan = Scan::of(spec, chain, link)?;
    let column = |name| Columns::of(spec, chain, link, name);
    let columns = [column("b")?, column("c")?, column("x")?];
    let grid = [Extent::Const(scan.shape.heads), Extent::each(Symbol::R), Extent::Const(1)];
    let geometry = Geometry { shared: tiling.shared().0, ..geometry::of(grid, tiling.warps() * 32) };
    let under_way = u64::from(tiling.stages * tiling.stage());
    let needs = Needs::of_residents(geometry.threads, tiling.neighbours(sm), under_way);
    Ok(Kernel::needing(geometry, needs, move |e| {
        let chain = e.chain();
        let link = chain.links.last().ok_or("the chain is empty")?;
        e.resident(tiling.neighbours(e.sm()));
        Work::new(e, scan, tiling, columns, Sequences::of(e, link)?).run(e);
        Ok(())
    }))
}

/// What one CTA does, seen by a thread.
struct Work<'c> {
    scan: Scan,
    tiling: Tiling,
    sequences: Sequences<'c>,
    sequence: Sequence<'c>,
    head: Int<'c>,
    /// The warp's panel of head_dim.
    strip: Int<'c>,
    /// The warp's part of the state's panels.
    part: Int<'c>,
    /// The head's columns of b, c and x.
    sources: [Source<'c>; 3],
    stages: Ptr<'c>,
    scores: Ptr<'c>,
    lines: Ptr<'c>,
    corners: Corners<'c>,
    /// lane / 4
    g: Int<'c>,
    /// 2 (lane % 4)
    pair: Int<'c>,
    /// log2 e * A
    decay: Float<'c>,
    skip: Float<'c>,
}

/// A chunk in shared memory.
#[derive(Clone, Copy)]
struct Chunk<'c> {
    /// First row of the step.
    first: Int<'c>,
    /// Rows, at most [`ROWS`].
    rows: Int<'c>,
    b: Ptr<'c>,
    c: Ptr<'c>,
    /// All panels.
    x: Ptr<'c>,
    /// l_t in units of log2, for each row.
    logs: Ptr<'c>,
    /// dt
    steps: Ptr<'c>,
    /// e^{l_last - l_s} dt_s
    weights: Ptr<'c>,
}

/// Sums of 16 x 8: of rows g, g, g + 8, g + 8 at columns 2t, 2t + 1, 2t, 2t + 1.
type Sums<'c> = [Float<'c>; 4];

impl<'c> Work<'c> {
    fn new(
        e: &Emit<'c, '_>,
        scan: Scan,
        tiling: Tiling,
        columns: [Columns; 3],
        sequences: Sequences<'c>,
    ) -> Self {
        let stages = e.shared(tiling.stages * tiling.stage(), 128);
        let scores = e.shared(tiling.warps() * tiling.apart() * BLOCK, 128);
        let lines = e.shared(tiling.stages * 3 * LINE, 16);
        let (head, shape) = (e.cta(0), scan.shape);
        let group = e.times(e.div(head, e.word(shape.heads_per_group() as u32)), shape.state);
        let source = |columns: Columns, column, width| Source {
            base: columns.at(e, e.word(0), column),
            stride: columns.layout(e.spec()).row_stride,
            columns: width,
        };
        let sources = [
            source(columns[0], group, shape.state),
            source(columns[1], group, shape.state),
            source(columns[2], e.times(head, shape.head_dim), shape.head_dim),
        ];
        let sequence = sequences.get(e, e.cta(1));
        let (strip, part) = match tiling.parts {
            1 => (e.warp(), e.word(0)),
            _ => (e.rem(e.warp(), e.word(tiling.strips)), e.div(e.warp(), e.word(tiling.strips))),
        };
        Self {
            scan,
            tiling,
            sequences,
            sequence,
            head,
            strip,
            part,
            sources,
            stages,
            scores,
            lines,
            corners: Corners::of(e),
            g: e.shift_right(e.lane(), 2),
            pair: e.times(e.and(e.lane(), e.word(3)), 2),
            decay: e.fmul(scan.decay(e, head), e.float(std::f64::consts::LOG2_E)),
            skip: scan.skip(e, head),
        }
    }

    fn run(&self, e: &Emit<'c, '_>) {
        let Sequence { start, end, .. } = self.sequence;
        let mut carried = self.load(e);
        let spare = self.tiling.is_spare();
        let count = carried.len();
        if spare {
            carried.extend(self.raw(e, start).map(Any::from));
        }
        let overlaps = self.tiling.stages > 1;
        if overlaps {
            e.when(e.cmp(IntPredicate::SLT, start, end), || self.copy(e, start));
        }
        let carried = e.fold((start, end, ROWS.into()), &carried, |first, carried| {
            let (state, raw) = carried.split_at(count);
            let raw = match floats(raw)[..] {
                [low, high] => [low, high],
                _ => self.raw(e, first),
            };
            if !overlaps {
                self.copy(e, first);
            }
            let chunk = self.chunk(e, first);
            self.lines(e, &chunk, raw);
            e.copies_wait(0);
            e.barrier();
            let next = e.plus(first, ROWS.into());
            if overlaps {
                e.when(e.cmp(IntPredicate::SLT, next, end), || self.copy(e, next));
            }
            let raw = spare.then(|| self.raw(e, next));
            let held = spare.then(|| [0, 1, 2, 3].map(|block| self.x(e, &chunk, block)));
            let state: Vec<Sums<'c>> =
                floats(state).chunks(4).map(|sums| [sums[0], sums[1], sums[2], sums[3]]).collect();
            self.decayed_scores(e, &chunk);
            // Two warps with parts of y leave them in the place of c: all have read it before the barrier then.
            let carried = (self.tiling.parts > 1).then(|| self.carried(e, &chunk, &state));
            e.barrier();
            let carried = carried.unwrap_or_else(|| self.carried(e, &chunk, &state));
            let x = |block: u32| match &held {
                Some(held) => held[block as usize],
                None => self.x(e, &chunk, block),
            };
            self.outputs(e, &chunk, &carried, x);
            let state = self.next_state(e, &chunk, state, x);
            if !overlaps {
                e.barrier();
            }
            state.into_iter().flatten().chain(raw.into_iter().flatten()).map(Any::from).collect()
        });
        self.store(e, &carried[..count]);
    }

    /// Where a chunk's tiles and lines are.
    fn chunk(&self, e: &Emit<'c, '_>, first: Int<'c>) -> Chunk<'c> {
        let stage = self.stage(e, first);
        let b = e.offset(self.stages, e.times(stage, self.tiling.stage().into()));
        let logs = e.offset(self.lines, e.times(stage, (3 * LINE).into()));
        let panels = |count: u32| e.word(count * PANEL);
        Chunk {
            first,
            rows: e.min(e.sub(self.sequence.end, first), e.word(ROWS)),
            b,
            c: e.offset(b, panels(self.tiling.state)),
            x: e.offset(b, panels(2 * self.tiling.state)),
            logs,
            steps: e.offset(logs, e.word(LINE)),
            weights: e.offset(logs, e.word(2 * LINE)),
        }
    }

    fn stage(&self, e: &Emit<'c, '_>, first: Int<'c>) -> Int<'c> {
        match self.tiling.stages {
            1 => e.word(0),
            _ => e.and(e.shift_right(e.sub(first, self.sequence.start), ROWS.ilog2().into()), e.word(1)),
        }
    }

    /// Lets the copies of a chunk begin.
    fn copy(&self, e: &Emit<'c, '_>, first: Int<'c>) {
        let stage = e.times(self.stage(e, first), self.tiling.stage().into());
        let mut to = e.offset(self.stages, stage);
        for source in &self.sources {
            source.copy(e, to, first, self.sequence.end);
            to = e.offset(to, e.word((source.columns / 16) as u32 * PANEL));
        }
        e.copies_commit();
    }

    /// What is there for the step sizes of two rows of a chunk, in the first warp: lane and lane + 32.
    fn raw(&self, e: &Emit<'c, '_>, first: Int<'c>) -> [Float<'c>; 2] {
        let loads = e.cmp(IntPredicate::EQ, e.warp(), e.word(0));
        [0, 32].map(|half| {
            let row = e.plus(e.add(first, e.lane()), half);
            let there = e.and(loads, e.cmp(IntPredicate::SLT, row, self.sequence.end));
            let raw = e.choose(
                there,
                || vec![self.scan.steps.raw(e, row, self.head).into()],
                || vec![e.float(0.0).into()],
            );
            raw[0].into_float_value()
        })
    }

    /// The lines of a chunk, by the first warp.
    fn lines(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, raw: [Float<'c>; 2]) {
        e.when(e.cmp(IntPredicate::EQ, e.warp(), e.word(0)), || {
            let lane = e.lane();
            let steps = [0, 1].map(|half| {
                let there = e.cmp(IntPredicate::SLT, e.plus(lane, 32 * half), chunk.rows);
                let step = self.scan.steps.size(e, raw[half as usize], self.head);
                e.select(there, step, e.float(0.0))
            });
            let [low, high] = steps.map(|step| running_sum(e, e.fmul(step, self.decay)));
            let high = e.fadd(high, e.shuffle(low, e.word(31)));
            let last = e.shuffle(high, e.word(31));
            for (half, (log, step)) in [low, high].into_iter().zip(steps).enumerate() {
                let weight = e.fmul(e.exp2(e.fsub(last, log)), step);
                let row = e.plus(lane, 32 * half as u64);
                for (line, value) in [(chunk.logs, log), (chunk.steps, step), (chunk.weights, weight)] {
                    e.store(e.at(line, F32, row), F32, &[value], 1);
                }
            }
        });
    }

    /// The state's columns of this lane, transposed: of rows 8 i + 2t and 8 i + 2t + 1 for every i, those at g and g + 8.
    fn load(&self, e: &Emit<'c, '_>) -> Vec<Any<'c>> {
        let slot = self.sequences.slot_in(e, self.sequence);
        let count = self.tiling.held() as usize * 8;
        e.choose(
            e.cmp(IntPredicate::SGE, slot, e.word(0)),
            || {
                let lane = self.lane_state(e, slot);
                let load = |at| e.load_scalar(e.offset(lane, self.element(e, at)), F32, Written::Now).into();
                (0..count).map(load).collect()
            },
            || vec![e.float(0.0).into(); count],
        )
    }

    fn store(&self, e: &Emit<'c, '_>, state: &[Any<'c>]) {
        let slot = self.sequences.slot_out(e, self.sequence);
        e.when(e.cmp(IntPredicate::SGE, slot, e.word(0)), || {
            let lane = self.lane_state(e, slot);
            for (at, value) in state.iter().enumerate() {
                e.store(e.offset(lane, self.element(e, at)), F32, &[value.into_float_value()], 1);
            }
        });
    }

    /// Where the first element of a lane lies.
    fn lane_state(&self, e: &Emit<'c, '_>, slot: Int<'c>) -> Ptr<'c> {
        let column = e.add(e.times(self.strip, 16), self.g);
        let row = e.add(e.times(self.part, (16 * self.tiling.held()).into()), self.pair);
        let element = e.add(e.times(row, self.scan.shape.head_dim), column);
        e.at(self.scan.state(e, slot, self.head), F32, element)
    }

    /// Bytes from there to the `at`-th element: four of every eight rows.
    fn element(&self, e: &Emit<'c, '_>, at: usize) -> Int<'c> {
        let (eight, at) = (at as u64 / 4, at as u64 % 4);
        let row = 8 * eight + at % 2;
        e.word(((row * self.scan.shape.head_dim + at / 2 * 8) * 4) as u32)
    }
}

/// The running sum over a warp's lanes.
fn running_sum<'c>(e: &Emit<'c, '_>, value: Float<'c>) -> Float<'c> {
    let mut sum = value;
    for distance in [1, 2, 4, 8, 16] {
        let from = e.sub(e.lane(), e.word(distance));
        let there = e.cmp(IntPredicate::SGE, from, e.word(0));
        let before = e.shuffle(sum, e.and(from, e.word(31)));
        sum = e.fadd(sum, e.select(there, before, e.float(0.0)));
    }
    sum
}

fn floats<'c>(values: &[Any<'c>]) -> Vec<Float<'c>> {
    values.iter().map(|value| value.into_float_value()).collect()
}
