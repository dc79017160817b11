//! The recurrent form: a CTA takes columns of one head's state for one sequence, loads them into registers once, lets every
//! row of the sequence update them, and stores them once.
//!
//! A thread holds one access's width of columns of some of the state's rows, consecutive threads what lies side by side in
//! memory. So y's sum over the state's rows is partly a thread's own, and is finished over the CTA in a fixed order.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::{Extent, Geometry, Phase};
use nemo_ir::types::{Dtype, Symbol};

use super::heads::{Columns, Scan, Shape};
use super::sequences::{STAGED, Sequence, Sequences, Slots};
use crate::nvptx::{Any, Chain, Emit, Float, Int, Kernel, Link, Needs, Ptr, SharedBytes, Written, geometry};
use crate::spec::KernelSpec;

const F32: Dtype = Dtype::F32;
/// Elements of the state that a thread should hold, or else can hold, and the most threads whose registers that leaves.
const HELD: [(u64, u64); 2] = [(32, 768), (64, 512)];

/// How a head's state is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Columns of one access.
    vector: u32,
    /// Accesses side by side, of a CTA.
    wide: u64,
    /// Rows that the CTA's threads take side by side.
    high: u64,
    /// Rows of a thread, `high` apart.
    rows: u64,
    /// CTAs that share a head's columns.
    pub parts: u64,
}

impl Cut {
    pub fn of(shape: Shape, vector: u32) -> Result<Self, String> {
        let all = shape.head_dim / u64::from(vector);
        for (held, threads) in HELD {
            let least = shape.state.div_ceil(held / u64::from(vector));
            // Rows that divide evenly need no masks, where that does not take many more threads.
            let even = (least..=least * 2).find(|high| shape.state.is_multiple_of(*high));
            let high = even.unwrap_or(least);
            let wide = (1..=all).rev().find(|wide| all.is_multiple_of(*wide) && wide * high <= threads);
            if let Some(wide) = wide {
                return Ok(Self { vector, wide, high, rows: shape.state.div_ceil(high), parts: all / wide });
            }
        }
        Err(format!("a state of {} x {} does not fit a CTA's registers", shape.state, shape.head_dim))
    }

    fn active(&self) -> u64 {
        self.wide * self.high
    }

    pub fn threads(&self) -> u32 {
        self.active().next_multiple_of(32) as u32
    }

    /// Columns of a CTA.
    fn columns(&self) -> u64 {
        self.wide * u64::from(self.vector)
    }

    /// Times that x is there: so often that the accesses of consecutive threads, which begin again at each row of the state,
    /// fall into different banks.
    fn copies(&self) -> u64 {
        if self.columns().is_multiple_of(32) || !self.columns().is_multiple_of(16) { 1 } else { 2 }
    }

    /// Rows of b and c with zeros up to the last row that a thread counts.
    fn padded(&self) -> u64 {
        self.high * self.rows
    }

    /// A thread holds its state in registers, and asks for all of it at once.
    pub fn needs(&self, resident: u32) -> Needs {
        let held = u64::from(self.vector) * self.rows;
        Needs::of_residents(self.threads(), resident, self.active() * held * 4)
    }

    /// Whether every thread has a place in the state.
    fn is_full(&self) -> bool {
        self.active() == u64::from(self.threads())
    }

    fn shared(&self) -> SharedBytes {
        let inputs =
            (self.copies() * self.columns()).next_multiple_of(4) + 2 * self.padded().next_multiple_of(4);
        let partials = self.active() * u64::from(self.vector);
        SharedBytes::default()
            .and(inputs as u32 * 4, 16)
            .and(partials as u32 * 4, 16)
            .and(12, 4)
            .and(STAGED, 16)
    }

    /// The launch, for a kernel that uses `more` shared memory after that of the scan.
    pub fn geometry(&self, shape: Shape, more: impl FnOnce(SharedBytes) -> SharedBytes) -> Geometry {
        let grid = [Extent::Const(shape.heads * self.parts), Extent::each(Symbol::R), Extent::Const(1)];
        Geometry { shared: more(self.shared()).0, ..geometry::of(grid, self.threads()) }
    }
}

pub(super) fn kernel(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Kernel, String> {
    let scan = Scan::of(spec, chain, link)?;
    let cut = Cut::of(scan.shape, scan.state_vector(spec))?;
    let column = |name| Columns::of(spec, chain, link, name);
    let ready = Ready::of(spec, [column("x")?, column("b")?, column("c")?], scan.shape, &cut);
    let geometry = cut.geometry(scan.shape, |shared| shared);
    // One loads while the other computes.
    let resident = if cut.threads() <= 512 { 2 } else { 1 };
    Ok(Kernel::needing(geometry, cut.needs(resident), move |e| {
        let chain = e.chain();
        let link = chain.links.last().ok_or("the chain is empty")?;
        let sequences = Sequences::of(e, link)?;
        e.resident(resident);
        let work = Work::new(e, scan, cut, sequences);
        let y = e.result();
        work.run(
            e,
            |e, inputs, row| ready.stage(e, inputs, row),
            |e, row, column, values| {
                let place = e.at(e.row(y, row), y.1.dtype(), column);
                e.store(place, y.1.dtype(), values, ready.y_vector.min(cut.vector));
            },
        );
        Ok(())
    }))
}

/// The places of a row's x, b and c in shared memory, in f32.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'c> {
    base: Ptr<'c>,
    /// First element, elements, and first column, of each.
    pub parts: [(u64, u64, Int<'c>); 3],
    /// Times that x is there: the last one beside b, as threads put them side by side, the others before it.
    copies: u64,
}

impl<'c> Inputs<'c> {
    /// Puts values in their place, those of x in all their places.
    pub fn put(
        &self,
        e: &Emit<'c, '_>,
        in_x: IntValue<'c>,
        (element, values): (Int<'c>, &[Float<'c>]),
        vector: u32,
    ) {
        let place = |element| e.at(self.base, F32, element);
        e.store(place(element), F32, values, vector);
        if self.copies > 1 {
            let columns = self.parts[0].1;
            e.when(in_x, || {
                (1..self.copies).for_each(|copy| {
                    e.store(place(e.sub(element, e.word((copy * columns) as u32))), F32, values, vector);
                });
            });
        }
    }
}

/// Inputs that are there.
#[derive(Clone, Copy)]
struct Ready {
    columns: [Columns; 3],
    /// Elements of one access to each.
    vectors: [u32; 3],
    /// All three can be read by the same loop.
    alike: bool,
    y_vector: u32,
}

impl Ready {
    fn of(spec: &KernelSpec, columns: [Columns; 3], shape: Shape, cut: &Cut) -> Self {
        let widths = [cut.columns(), shape.state, shape.state];
        let fits = |width: u64| 1_u32 << width.trailing_zeros().min(2);
        let mut vectors = [0, 1, 2].map(|at| columns[at].vector(spec).min(fits(widths[at])));
        vectors[0] = vectors[0].min(fits(shape.head_dim));
        let dtypes = columns.map(|columns| columns.layout(spec).dtype());
        let alike = dtypes.iter().all(|dtype| *dtype == dtypes[0]);
        if alike {
            vectors = [*vectors.iter().min().expect("three"); 3];
        }
        Self { columns, vectors, alike, y_vector: spec.results[0].vector().min(fits(shape.head_dim)) }
    }

    /// Loads a row, by all threads.
    fn stage<'c>(&self, e: &Emit<'c, '_>, inputs: &Inputs<'c>, row: Int<'c>) {
        let vector = |at: usize| u64::from(self.vectors[at]);
        let place = |at: usize, piece: Int<'c>| {
            let element = e.times(piece, vector(at));
            (
                self.columns[at].at(e, row, e.add(inputs.parts[at].2, element)),
                e.plus(element, inputs.parts[at].0),
            )
        };
        let copy = |at: usize, in_x: IntValue<'c>, (from, to): (Ptr<'c>, Int<'c>)| {
            let dtype = self.columns[at].layout(e.spec()).dtype();
            let access = (self.vectors[at], self.vectors[at]);
            let values = e.load(from, dtype, access, Written::Before);
            inputs.put(e, in_x, (to, &values), access.0);
        };
        let pieces = [0, 1, 2].map(|at| (inputs.parts[at].1 / vector(at)) as u32);
        if self.alike {
            e.each_strided(e.word(pieces.iter().sum()), |piece| {
                let after = [e.sub(piece, e.word(pieces[0])), e.sub(piece, e.word(pieces[0] + pieces[1]))];
                let below = |piece, count| e.cmp(IntPredicate::ULT, piece, e.word(count));
                let (x, b, c) = (place(0, piece), place(1, after[0]), place(2, after[1]));
                let (in_x, in_b) = (below(piece, pieces[0]), below(after[0], pieces[1]));
                let from = e.select(in_x, x.0, e.select(in_b, b.0, c.0));
                copy(0, in_x, (from, e.select(in_x, x.1, e.select(in_b, b.1, c.1))));
            });
        } else {
            for (at, pieces) in pieces.into_iter().enumerate() {
                let in_x = e.cmp(IntPredicate::EQ, e.word(at as u32), e.word(0));
                e.each_strided(e.word(pieces), |piece| copy(at, in_x, place(at, piece)));
            }
        }
    }
}

/// What one CTA does, seen by a thread.
pub(super) struct Work<'c> {
    scan: Scan,
    cut: Cut,
    pub sequence: Sequence<'c>,
    pub slots: Slots<'c>,
    pub head: Int<'c>,
    inputs: Inputs<'c>,
    partials: Ptr<'c>,
    /// keep, step, skip.
    scalars: Ptr<'c>,
    /// Index among the accesses side by side.
    across: Int<'c>,
    /// First row of the state.
    down: Int<'c>,
}

impl<'c> Work<'c> {
    pub fn new(e: &Emit<'c, '_>, scan: Scan, cut: Cut, sequences: Sequences<'c>) -> Self {
        let shape = scan.shape;
        let columns = (cut.copies() * cut.columns()).next_multiple_of(4);
        let padded = cut.padded().next_multiple_of(4);
        let base = e.shared((columns + 2 * padded) as u32 * 4, 16);
        let partials = e.shared((cut.active() * u64::from(cut.vector)) as u32 * 4, 16);
        let scalars = e.shared(12, 4);
        let staged = e.shared(STAGED, 16);
        let (head, part) = match cut.parts {
            1 => (e.cta(0), e.word(0)),
            parts => (e.div(e.cta(0), e.word(parts as u32)), e.rem(e.cta(0), e.word(parts as u32))),
        };
        let wide = e.word(cut.wide as u32);
        let (across, down) = (e.rem(e.thread(), wide), e.div(e.thread(), wide));
        let group = e.div(head, e.word(shape.heads_per_group() as u32));
        let first = e.times(group, shape.state);
        let x = e.add(e.times(head, shape.head_dim), e.times(part, cut.columns()));
        let inputs = Inputs {
            base,
            parts: [
                ((cut.copies() - 1) * cut.columns(), cut.columns(), x),
                (columns, shape.state, first),
                (columns + padded, shape.state, first),
            ],
            copies: cut.copies(),
        };
        // Zeros for rows that only some threads count.
        if cut.padded() > shape.state {
            e.each_strided(e.word((cut.padded() - shape.state) as u32), |at| {
                for first in [columns, columns + padded] {
                    let place = e.at(base, F32, e.plus(at, first + shape.state));
                    e.store(place, F32, &[e.float(0.0)], 1);
                }
            });
        }
        let (sequence, slots) = sequences.staged(e, e.cta(1), staged);
        Self { scan, cut, sequence, slots, head, inputs, partials, scalars, across, down }
    }

    /// Lets every row of the sequence pass. `stage` puts a row's inputs in their places, by all threads; `finish` takes
    /// y of a row at a column, as many as an access of the state has.
    pub fn run(
        &self,
        e: &Emit<'c, '_>,
        stage: impl Fn(&Emit<'c, '_>, &Inputs<'c>, Int<'c>),
        finish: impl Fn(&Emit<'c, '_>, Int<'c>, Int<'c>, &[Float<'c>]),
    ) {
        let state = self.load(e, self.slots.before);
        let token = |row: Int<'c>, state: &[Any<'c>]| {
            stage(e, &self.inputs, row);
            self.stage_scalars(e, row);
            e.barrier();
            let (state, [sums, x]) = self.update(e, state);
            let partial = e.times(e.thread(), self.cut.vector.into());
            self.where_active(e, || {
                e.store(e.at(self.partials, F32, partial), F32, &sums, self.cut.vector);
            });
            e.barrier();
            let adds = e.cmp(IntPredicate::ULT, e.thread(), e.word(self.cut.wide as u32));
            e.when(adds, || {
                let y = self.total(e, &x);
                let column = e.add(self.inputs.parts[0].2, e.times(e.thread(), self.cut.vector.into()));
                finish(e, row, column, &y);
            });
            state
        };
        let Sequence { start, end, .. } = self.sequence;
        let state = match e.steps().phase {
            Phase::Decode => token(start, &state),
            Phase::Prefill => e.fold((start, end, 1), &state, token),
        };
        self.store(e, self.slots.after, &state);
    }

    /// This thread's part of the state, row by row.
    fn load(&self, e: &Emit<'c, '_>, slot: Int<'c>) -> Vec<Any<'c>> {
        let vector = self.cut.vector;
        let there = e.cmp(IntPredicate::SGE, slot, e.word(0));
        let row = |at: u64| {
            let place = e.at(self.scan.state(e, slot, self.head), F32, self.element(e, at));
            e.load(place, F32, (vector, vector), Written::Now).into_iter().map(Any::from).collect::<Vec<_>>()
        };
        let zeros = |rows: u64| vec![e.float(0.0).into(); (rows * u64::from(vector)) as usize];
        let rows = self.cut.rows;
        if self.is_even() {
            return e.choose(there, || (0..rows).flat_map(row).collect(), || zeros(rows));
        }
        let masked = |at: u64| e.choose(e.and(there, self.has_row(e, at)), || row(at), || zeros(1));
        (0..rows).flat_map(masked).collect()
    }

    fn store(&self, e: &Emit<'c, '_>, slot: Int<'c>, state: &[Any<'c>]) {
        let vector = self.cut.vector as usize;
        let kept = e.cmp(IntPredicate::SGE, slot, e.word(0));
        let row = |at: u64, values: &[Any<'c>]| {
            let place = e.at(self.scan.state(e, slot, self.head), F32, self.element(e, at));
            let values: Vec<_> = values.iter().map(|value| value.into_float_value()).collect();
            e.store(place, F32, &values, self.cut.vector);
        };
        e.when(kept, || {
            for (at, values) in (0..).zip(state.chunks(vector)) {
                if self.is_even() {
                    row(at, values);
                } else {
                    e.when(self.has_row(e, at), || row(at, values));
                }
            }
        });
    }

    /// The place in the head's state of the thread's columns of its `at`-th row.
    fn element(&self, e: &Emit<'c, '_>, at: u64) -> Int<'c> {
        let shape = self.scan.shape;
        let row = e.plus(self.down, at * self.cut.high);
        let x = e.sub(self.inputs.parts[0].2, e.times(self.head, shape.head_dim));
        let column = e.add(x, e.times(self.across, self.cut.vector.into()));
        e.add(e.times(row, shape.head_dim), column)
    }

    /// Whether every thread has all its rows.
    fn is_even(&self) -> bool {
        self.cut.is_full() && self.cut.padded() == self.scan.shape.state
    }

    fn has_row(&self, e: &Emit<'c, '_>, at: u64) -> IntValue<'c> {
        let row = e.plus(self.down, at * self.cut.high);
        let inside = e.cmp(IntPredicate::ULT, row, e.word(self.scan.shape.state as u32));
        e.and(self.is_active(e), inside)
    }

    fn is_active(&self, e: &Emit<'c, '_>) -> IntValue<'c> {
        e.cmp(IntPredicate::ULT, e.thread(), e.word(self.cut.active() as u32))
    }

    fn where_active(&self, e: &Emit<'c, '_>, body: impl FnOnce()) {
        if self.cut.is_full() { body() } else { e.when(self.is_active(e), body) }
    }

    /// What all threads need of the head at a row, by the last warp: the first ones have the most inputs to stage.
    fn stage_scalars(&self, e: &Emit<'c, '_>, row: Int<'c>) {
        let stages = e.cmp(IntPredicate::EQ, e.thread(), e.word(self.cut.threads() - 32));
        e.when(stages, || {
            let raw = self.scan.steps.raw(e, row, self.head);
            let (decay, skip) = (self.scan.decay(e, self.head), self.scan.skip(e, self.head));
            let step = self.scan.steps.size(e, raw, self.head);
            let keep = e.exp(e.fmul(step, decay));
            e.store(self.scalars, F32, &[keep, step, skip], 1);
        });
    }

    /// The state after a row, the thread's part of its sums, and x with the skip's weight.
    fn update(&self, e: &Emit<'c, '_>, state: &[Any<'c>]) -> (Vec<Any<'c>>, [Vec<Float<'c>>; 2]) {
        let vector = self.cut.vector;
        let [keep, step, skip] = [0, 1, 2].map(|at| {
            let place = e.at(self.scalars, F32, e.word(at));
            e.load_scalar(place, F32, Written::Now)
        });
        let [(_, _, _), (b, ..), (c, ..)] = self.inputs.parts;
        let x = match self.cut.copies() {
            1 => self.across,
            copies => e.rem(e.thread(), e.word((copies * self.cut.wide) as u32)),
        };
        let x = e.at(self.inputs.base, F32, e.times(x, vector.into()));
        let x = e.load(x, F32, (vector, vector), Written::Now);
        let added: Vec<_> = x.iter().map(|x| e.fmul(*x, step)).collect();
        // Threads without a place read a row that is there.
        let down = match self.cut.is_full() {
            true => self.down,
            false => e.min(self.down, e.word(self.cut.high as u32 - 1)),
        };
        let mut sums = vec![e.float(0.0); vector as usize];
        let mut next = Vec::with_capacity(state.len());
        for (at, old) in (0..).zip(state.chunks(vector as usize)) {
            let row = e.plus(down, at * self.cut.high);
            let factor = |first: u64| {
                e.load_scalar(e.at(self.inputs.base, F32, e.plus(row, first)), F32, Written::Now)
            };
            let (b, c) = (factor(b), factor(c));
            for ((old, added), sum) in old.iter().zip(&added).zip(&mut sums) {
                let new = e.fma(*added, b, e.fmul(old.into_float_value(), keep));
                *sum = e.fma(new, c, *sum);
                next.push(new.into());
            }
        }
        let skipped = x.iter().map(|x| e.fmul(*x, skip)).collect();
        (next, [sums, skipped])
    }

    /// y of the thread's columns: what the skip adds, and the partial sums from the first to the last.
    fn total(&self, e: &Emit<'c, '_>, skipped: &[Float<'c>]) -> Vec<Float<'c>> {
        let vector = self.cut.vector;
        let partial = |down: u64| {
            let at = e.plus(e.thread(), down * self.cut.wide);
            let place = e.at(self.partials, F32, e.times(at, vector.into()));
            e.load(place, F32, (vector, vector), Written::Now)
        };
        let sums = (0..self.cut.high).map(partial).reduce(|sums, partial| {
            sums.iter().zip(&partial).map(|(sum, partial)| e.fadd(*sum, *partial)).collect()
        });
        let sums = sums.unwrap_or_default();
        sums.iter().zip(skipped).map(|(sum, skipped)| e.fadd(*sum, *skipped)).collect()
    }
}
