//! How a CTA reads the rows of x: as they are stored, normed once into shared memory, or normed wherever they are read.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::types::Dtype;

use super::plan::{Input, Norm, Plan, Rows};
use crate::nvptx::{Any, Emit, Float, Int, Ptr, SharedBytes, Written};

const F32: Dtype = Dtype::F32;
/// Columns that a thread norms at once: x and the norm's weights are read without gaps then.
const PIECE: u64 = 4;
/// Pieces of a row that a thread holds from the sum of squares to the norm.
const HELD: u64 = 16;
/// Pieces that a thread loads at once otherwise.
const AHEAD: u64 = 4;

/// Where the products find x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In global memory, as it is stored.
    Global,
    /// In shared memory, in rows of so many elements.
    Shared { stride: u64 },
    /// In global memory, to be scaled; shared memory holds a scale for each group of each row.
    Scaled,
}

/// What is decided without LLVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staging {
    place: Place,
    /// Rows of a CTA.
    rows: u64,
}

/// Shared memory that a staging takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes of rows or scales; 0 where there are none.
    bytes: u32,
    /// Bytes for sums over the CTA, or scales that wait for their rows; 0 where there are none.
    sums: u32,
}

/// x as a CTA reads it.
#[derive(Clone, Copy)]
pub(super) struct Source<'c> {
    place: Place,
    /// Its rows or scales in shared memory.
    space: Option<Ptr<'c>>,
    /// The first row, and how many there are.
    rows: (Int<'c>, Int<'c>),
}

/// A row of x.
#[derive(Clone, Copy)]
pub(super) struct Line<'c> {
    /// Its first element.
    base: Ptr<'c>,
    gate: Option<Ptr<'c>>,
    /// Its first scale.
    scales: Option<Ptr<'c>>,
    /// Whether there is such a row; i1.
    there: Option<IntValue<'c>>,
}

impl Staging {
    /// Normed rows lie in shared memory where they fit the bytes; stored ones, where that is asked for.
    pub fn of(plan: &Plan, rows: u64, budget: u64, stored: bool) -> Self {
        let element = plan.x.dtype().bytes();
        // Eight lanes that read 16 bytes each, four of one row and four of the next, meet no bank twice.
        let stride = ((plan.k * element).next_multiple_of(128) + 64) / element;
        let fits = rows * stride * element <= budget;
        let place = match (&plan.x.norm, fits) {
            (Some(_), true) => Place::Shared { stride },
            (None, true) if stored => Place::Shared { stride },
            (Some(_), false) => Place::Scaled,
            (None, _) => Place::Global,
        };
        Self { place, rows }
    }

    /// Whether rows are normed over and over.
    pub fn repeats(&self) -> bool {
        self.place == Place::Scaled
    }

    /// How much shared memory it takes.
    pub fn space(&self, plan: &Plan) -> Space {
        let groups = plan.x.norm.as_ref().map_or(1, |norm| plan.k / norm.group);
        let bytes = match self.place {
            Place::Global => 0,
            Place::Shared { stride } => self.rows * stride * plan.x.dtype().bytes(),
            Place::Scaled => self.rows * groups * 4,
        };
        // One for each warp, or for each group of each row.
        let sums = if plan.x.norm.is_some() { (self.rows * groups * 4).max(128) } else { 0 };
        let sums = sums as u32;
        Space { bytes: bytes as u32, sums }
    }

    /// Puts rows `first ..` of x, `count` of them, where the products find them. All threads of the CTA come here, and all may
    /// read after.
    pub fn prepare<'c>(&self, e: &Emit<'c, '_>, plan: &Plan, rows: (Int<'c>, Int<'c>)) -> Source<'c> {
        let Space { bytes, sums } = self.space(plan);
        let space = (bytes > 0).then(|| e.shared(bytes, 128));
        let sums = (sums > 0).then(|| e.shared(sums, 16));
        let source = Source { place: self.place, space, rows };
        let Some(space) = space else { return source };
        match (&plan.x.norm, sums) {
            (Some(norm), Some(sums)) => {
                let filler = Filler { plan, norm, source, space };
                filler.fill(e, self.rows, sums);
            }
            _ => copy(e, plan, source),
        }
        e.barrier();
        source
    }
}

impl Space {
    /// Added to what came before.
    pub fn after(self, sum: SharedBytes) -> SharedBytes {
        let sum = if self.bytes > 0 { sum.and(self.bytes, 128) } else { sum };
        if self.sums > 0 { sum.and(self.sums, 16) } else { sum }
    }
}

/// The most columns, up to a power of two, of which pieces fill `width` and lie at multiples in each tensor.
pub(super) fn piece(most: u64, width: u64, tensors: &[&Rows]) -> u32 {
    let vectors = tensors.iter().map(|rows| rows.layout.vector()).min().unwrap_or(1);
    vectors.min(1 << width.trailing_zeros().min(most.trailing_zeros()))
}

impl Input {
    /// The tensors that rows are made of, but for the norm's weight.
    fn tensors(&self) -> Vec<&Rows> {
        let gate = self.norm.as_ref().and_then(|norm| norm.gate.as_ref());
        [&self.x].into_iter().chain(gate).collect()
    }

    /// Columns that can be read from a row at once, whatever is done to them.
    pub fn vector(&self, most: u64, k: u64) -> u32 {
        let mut tensors = self.tensors();
        let width = self.norm.as_ref().map_or(k, |norm| {
            tensors.push(&norm.weight);
            norm.group
        });
        piece(most, width, &tensors).min(1 << k.trailing_zeros().min(most.trailing_zeros()))
    }
}

impl<'c> Source<'c> {
    /// A row of the CTA's, i32; any, where there are fewer.
    pub fn line(&self, e: &Emit<'c, '_>, plan: &Plan, row: Int<'c>) -> Line<'c> {
        let (_, count) = self.rows;
        let inside = e.cmp(IntPredicate::SLT, row, count);
        // All that are not there are the last one, so that lanes which read them meet in the same words.
        let own = e.min(row, e.sub(count, e.word(1)));
        match (self.place, self.space) {
            (Place::Shared { stride }, Some(space)) => {
                let base = e.at(space, plan.x.dtype(), e.times(own, stride));
                Line { base, gate: None, scales: None, there: None }
            }
            (_, space) => {
                let groups = plan.x.norm.as_ref().map_or(1, |norm| plan.k / norm.group);
                let scales = space.map(|space| e.at(space, F32, e.times(own, groups)));
                let stored = self.stored(e, plan, own);
                let there = stored.there.map_or(inside, |there| e.and(inside, there));
                Line { scales, there: Some(there), ..stored }
            }
        }
    }

    /// A row as it is stored, which is one of the CTA's.
    fn stored(&self, e: &Emit<'c, '_>, plan: &Plan, row: Int<'c>) -> Line<'c> {
        let row = e.add(self.rows.0, row);
        let (row, there) = match plan.x.indices {
            None => (row, None),
            Some(indices) => {
                let index = e.load_int(e.arg(indices), row);
                let there = e.cmp(IntPredicate::SGE, index, e.word(0));
                (e.max(index, e.word(0)), Some(there))
            }
        };
        let gate = plan.x.norm.as_ref().and_then(|norm| norm.gate.as_ref());
        let start = |rows: &Rows| rows.at(e, row, e.word(0));
        Line { base: start(&plan.x.x), gate: gate.map(start), scales: None, there }
    }

    /// Eight bf16 of a row at each of some places, in four words each; zeros where there is no such row, or, in shared memory,
    /// anything.
    pub fn words(
        &self,
        e: &Emit<'c, '_>,
        plan: &Plan,
        line: &Line<'c>,
        places: &[Int<'c>],
    ) -> Vec<[Int<'c>; 4]> {
        let four = e.context.i32_type().vec_type(4);
        let split = |loaded: Any<'c>| {
            let loaded = loaded.into_vector_value();
            std::array::from_fn(|lane| e.extract(loaded, lane as u32).into_int_value())
        };
        let at = |k: &Int<'c>| e.at(line.base, plan.x.dtype(), *k);
        match self.place {
            Place::Shared { .. } => places.iter().map(|k| split(e.load_aligned(four, at(k), 16))).collect(),
            Place::Global => {
                let there = line.there.expect("a stored row may not be there");
                let load = || places.iter().map(|k| e.load_read_only(four, at(k), 16)).collect();
                let loaded = e.choose(there, load, || vec![four.const_zero().into(); places.len()]);
                loaded.into_iter().map(split).collect()
            }
            Place::Scaled => {
                let words = |k: &Int<'c>| {
                    let values = self.elements(e, plan, line, (*k, 8));
                    std::array::from_fn(|lane| e.pack(values[2 * lane], values[2 * lane + 1]))
                };
                places.iter().map(words).collect()
            }
        }
    }

    /// Elements of a row, as the products take them; a power of two of them, which [`Input::vector`] allows. Zeros where there
    /// is no such row, or, in shared memory, anything.
    pub fn elements(
        &self,
        e: &Emit<'c, '_>,
        plan: &Plan,
        line: &Line<'c>,
        (k, count): (Int<'c>, u32),
    ) -> Vec<Float<'c>> {
        let dtype = plan.x.dtype();
        if let Place::Shared { .. } = self.place {
            return e.load(e.at(line.base, dtype, k), dtype, (count, count), Written::Now);
        }
        let there = line.there.expect("a stored row may not be there");
        let values = || {
            let values = raw(e, plan, line, (k, count));
            let Some((norm, scales)) = plan.x.norm.as_ref().zip(line.scales) else { return values };
            let group = e.div(k, e.word(norm.group as u32));
            let scale = e.load_scalar(e.at(scales, F32, group), F32, Written::Now);
            let weights = norm.weights(e, k, count);
            scaled(e, &values, scale, &weights).into_iter().map(|value| e.round(dtype, value)).collect()
        };
        let zeros = || vec![e.float(0.0).into(); count as usize];
        let chosen = e.choose(there, || values().into_iter().map(Any::from).collect(), zeros);
        chosen.into_iter().map(Any::into_float_value).collect()
    }
}

/// What is normed, or copied: elements of a row that is there, and of its gate.
fn raw<'c>(
    e: &Emit<'c, '_>,
    plan: &Plan,
    line: &Line<'c>,
    (column, count): (Int<'c>, u32),
) -> Vec<Float<'c>> {
    let load = |rows: &Rows, base| {
        let most = rows.layout.vector().min(count);
        e.load(e.at(base, rows.dtype(), column), rows.dtype(), (count, most), Written::Before)
    };
    let values = load(&plan.x.x, line.base);
    let gate = plan.x.norm.as_ref().and_then(|norm| norm.gate.as_ref()).zip(line.gate);
    match gate {
        None => values,
        Some((rows, base)) => {
            let gates = load(rows, base);
            values.iter().zip(gates).map(|(value, gate)| e.fmul(*value, e.silu(gate))).collect()
        }
    }
}

impl Norm {
    /// Its weights for some columns.
    fn weights<'c>(&self, e: &Emit<'c, '_>, column: Int<'c>, count: u32) -> Vec<Float<'c>> {
        let place = if self.shared { e.rem(column, e.word(self.group as u32)) } else { column };
        let most = self.weight.layout.vector().min(count);
        e.load(e.at(e.arg(self.weight.arg), F32, place), F32, (count, most), Written::Before)
    }
}

/// Values with their scale and the norm's weights.
fn scaled<'c>(
    e: &Emit<'c, '_>,
    values: &[Float<'c>],
    scale: Float<'c>,
    weights: &[Float<'c>],
) -> Vec<Float<'c>> {
    values.iter().zip(weights).map(|(value, weight)| e.fmul(e.fmul(*value, scale), *weight)).collect()
}

/// Puts stored rows into shared memory.
fn copy<'c>(e: &Emit<'c, '_>, plan: &Plan, source: Source<'c>) {
    let dtype = plan.x.dtype();
    let vector = plan.x.vector(16 / dtype.bytes(), plan.k);
    let per_row = plan.k / u64::from(vector);
    e.each_strided(e.times(source.rows.1, per_row), |item| {
        let row = e.div(item, e.word(per_row as u32));
        let column = e.times(e.rem(item, e.word(per_row as u32)), vector.into());
        let line = source.stored(e, plan, row);
        let values = raw(e, plan, &line, (column, vector));
        let values: Vec<_> = match line.there {
            None => values,
            Some(there) => values.into_iter().map(|value| e.select(there, value, e.float(0.0))).collect(),
        };
        let own = source.line(e, plan, row);
        e.store(e.at(own.base, dtype, column), dtype, &values, vector);
    });
}

/// What norms rows into shared memory, or finds their scales.
struct Filler<'c, 'p> {
    plan: &'p Plan,
    norm: &'p Norm,
    source: Source<'c>,
    space: Ptr<'c>,
}

/// The threads that share a group of a row.
#[derive(Clone, Copy)]
struct Team<'c> {
    /// Index of this thread among them, i32.
    index: Int<'c>,
    size: u64,
    /// Space for sums over all warps, where the team is the CTA.
    sums: Option<Ptr<'c>>,
}

impl<'c> Filler<'c, '_> {
    /// Few groups are done one after the other by the whole CTA, many by a warp each.
    fn fill(&self, e: &Emit<'c, '_>, rows: u64, sums: Ptr<'c>) {
        let groups = self.plan.k / self.norm.group;
        let items = e.times(self.source.rows.1, groups);
        let warps = u64::from(e.warps());
        if rows * groups * 2 < warps {
            let team = Team { index: e.thread(), size: u64::from(e.threads()), sums: Some(sums) };
            e.each(e.word(0), items, |item| self.group(e, team, (item, groups)));
            return;
        }
        let team = Team { index: e.lane(), size: 32, sums: None };
        let Place::Shared { stride } = self.source.place else {
            e.step_by(e.warp(), items, warps, |item| self.group(e, team, (item, groups)));
            return;
        };
        // First the scales of all rows, then columns: a thread reads the norm's weight once for all rows.
        e.step_by(e.warp(), items, warps, |item| self.square(e, team, (item, groups), (stride, sums)));
        e.barrier();
        self.columns(e, rows, (groups, stride), sums);
    }

    /// Whether elements lie in shared memory as they are stored, until they are scaled.
    fn keeps(&self) -> bool {
        self.norm.gate.is_none() && self.plan.x.x.dtype() == self.norm.dtype
    }

    /// What a row gives to the norm, from a column on.
    fn raw(&self, e: &Emit<'c, '_>, line: &Line<'c>, (column, count): (Int<'c>, u32)) -> Vec<Float<'c>> {
        let values = raw(e, self.plan, line, (column, count));
        match line.there {
            None => values,
            Some(there) => values.into_iter().map(|value| e.select(there, value, e.float(0.0))).collect(),
        }
    }

    fn scale(&self, e: &Emit<'c, '_>, team: Team<'c>, sum: Float<'c>) -> Float<'c> {
        let sum = match team.sums {
            Some(space) => e.cta_sum(sum, space),
            None => e.warp_sum(sum),
        };
        let mean = e.fmul(sum, e.float(1.0 / self.norm.group as f64));
        e.rsqrt(e.fadd(mean, e.float(self.norm.eps)))
    }

    /// The scale of a group of a row, whose elements stay in shared memory where they can.
    fn square(
        &self,
        e: &Emit<'c, '_>,
        team: Team<'c>,
        (item, groups): (Int<'c>, u64),
        (stride, scales): (u64, Ptr<'c>),
    ) {
        let row = e.div(item, e.word(groups as u32));
        let first = e.times(e.rem(item, e.word(groups as u32)), self.norm.group);
        let line = self.source.stored(e, self.plan, row);
        let vector = self.plan.x.vector(PIECE, self.plan.k);
        let walk = Walk { team, width: self.norm.group, vector };
        let load = |at: Int<'c>| self.raw(e, &line, (e.add(first, at), vector));
        let dtype = self.norm.dtype;
        let target = e.at(self.space, dtype, e.add(e.times(row, stride), first));
        let sum = walk.fold(e, load, e.float(0.0), |sum, at, values| {
            if self.keeps() {
                e.store(e.at(target, dtype, at), dtype, values, vector);
            }
            squares(e, sum, values)
        });
        let scale = self.scale(e, team, sum);
        let leader = e.cmp(IntPredicate::EQ, team.index, e.word(0));
        e.when(leader, || e.store(e.at(scales, F32, item), F32, &[scale], 1));
    }

    /// Scales columns of all rows.
    fn columns(&self, e: &Emit<'c, '_>, rows: u64, (groups, stride): (u64, u64), scales: Ptr<'c>) {
        let vector = self.plan.x.vector(PIECE, self.plan.k);
        let dtype = self.norm.dtype;
        e.each_strided(e.word((self.plan.k / u64::from(vector)) as u32), |index| {
            let column = e.times(index, vector.into());
            let weights = self.norm.weights(e, column, vector);
            let group = e.div(column, e.word(self.norm.group as u32));
            for row in 0..rows {
                let row = e.word(row as u32);
                e.when(e.cmp(IntPredicate::SLT, row, self.source.rows.1), || {
                    let place = e.at(self.space, dtype, e.add(e.times(row, stride), column));
                    let values = if self.keeps() {
                        e.load(place, dtype, (vector, vector), Written::Now)
                    } else {
                        let line = self.source.stored(e, self.plan, row);
                        self.raw(e, &line, (column, vector))
                    };
                    let scale = e.at(scales, F32, e.add(e.times(row, groups), group));
                    let scale = e.load_scalar(scale, F32, Written::Now);
                    e.store(place, dtype, &scaled(e, &values, scale, &weights), vector);
                });
            }
        });
    }

    /// A group of a row, by one team: it is scaled where it goes to shared memory, or its scale goes there.
    fn group(&self, e: &Emit<'c, '_>, team: Team<'c>, (item, groups): (Int<'c>, u64)) {
        let row = e.div(item, e.word(groups as u32));
        let first = e.times(e.rem(item, e.word(groups as u32)), self.norm.group);
        let line = self.source.stored(e, self.plan, row);
        let vector = self.plan.x.vector(PIECE, self.plan.k);
        let walk = Walk { team, width: self.norm.group, vector };
        let load = |at: Int<'c>| self.raw(e, &line, (e.add(first, at), vector));
        let held = walk.held(e, load);
        let sum = match &held {
            Some(held) => held.iter().fold(e.float(0.0), |sum, (_, values)| squares(e, sum, values)),
            None => walk.fold(e, load, e.float(0.0), |sum, _, values| squares(e, sum, values)),
        };
        let scale = self.scale(e, team, sum);
        let Place::Shared { stride } = self.source.place else {
            let leader = e.cmp(IntPredicate::EQ, team.index, e.word(0));
            e.when(leader, || e.store(e.at(self.space, F32, item), F32, &[scale], 1));
            return;
        };
        let dtype = self.norm.dtype;
        let target = e.at(self.space, dtype, e.add(e.times(row, stride), first));
        let store = |at: Int<'c>, values: &[Float<'c>]| {
            let weights = self.norm.weights(e, e.add(first, at), vector);
            e.store(e.at(target, dtype, at), dtype, &scaled(e, values, scale, &weights), vector);
        };
        match held {
            Some(held) => {
                for (at, values) in &held {
                    walk.when_inside(e, *at, || store(*at, values));
                }
            }
            None => {
                walk.fold(e, load, e.float(0.0), |sum, at, values| {
                    store(at, values);
                    sum
                });
            }
        }
    }
}

/// A sum with the squares of some values.
fn squares<'c>(e: &Emit<'c, '_>, sum: Float<'c>, values: &[Float<'c>]) -> Float<'c> {
    values.iter().fold(sum, |sum, value| e.fma(*value, *value, sum))
}

/// A team's way over the columns of a group, a piece a thread.
#[derive(Clone, Copy)]
struct Walk<'c> {
    team: Team<'c>,
    width: u64,
    vector: u32,
}

impl<'c> Walk<'c> {
    /// Columns of one piece of each thread.
    fn step(&self) -> u64 {
        self.team.size * u64::from(self.vector)
    }

    fn place(&self, e: &Emit<'c, '_>, from: Int<'c>) -> Int<'c> {
        e.add(from, e.times(self.team.index, self.vector.into()))
    }

    /// Where pieces begin at constant distances the compiler sees which of them are there for every thread.
    fn when_inside(&self, e: &Emit<'c, '_>, at: Int<'c>, body: impl FnOnce()) {
        e.when(e.cmp(IntPredicate::SLT, at, e.word(self.width as u32)), body);
    }

    /// A piece, zeros past the end.
    fn piece(
        &self,
        e: &Emit<'c, '_>,
        at: Int<'c>,
        load: impl Fn(Int<'c>) -> Vec<Float<'c>>,
    ) -> Vec<Float<'c>> {
        let there = e.cmp(IntPredicate::SLT, at, e.word(self.width as u32));
        let loaded = e.choose(
            there,
            || load(at).into_iter().map(Any::from).collect(),
            || vec![e.float(0.0).into(); self.vector as usize],
        );
        loaded.into_iter().map(Any::into_float_value).collect()
    }

    /// All pieces of this thread with their places, where they are few.
    fn held(
        &self,
        e: &Emit<'c, '_>,
        load: impl Fn(Int<'c>) -> Vec<Float<'c>>,
    ) -> Option<Vec<(Int<'c>, Vec<Float<'c>>)>> {
        let pieces = self.width.div_ceil(self.step());
        if pieces > HELD {
            return None;
        }
        let piece = |index: u64| {
            let at = self.place(e, e.word((index * self.step()) as u32));
            let whole = (index + 1) * self.step() <= self.width;
            (at, if whole { load(at) } else { self.piece(e, at, &load) })
        };
        Some((0..pieces).map(piece).collect())
    }

    /// Carries a value over all pieces of this thread, several of which are loaded at once.
    fn fold(
        &self,
        e: &Emit<'c, '_>,
        load: impl Fn(Int<'c>) -> Vec<Float<'c>>,
        initial: Float<'c>,
        body: impl Fn(Float<'c>, Int<'c>, &[Float<'c>]) -> Float<'c>,
    ) -> Float<'c> {
        let stretch = AHEAD * self.step();
        let whole = self.width / stretch * stretch;
        let bounds = (e.word(0), e.word(whole as u32), stretch);
        let carried = e.fold(bounds, &[initial.into()], |from, carried| {
            let place = |index: u64| self.place(e, e.plus(from, index * self.step()));
            let pieces: Vec<_> = (0..AHEAD).map(|index| (place(index), load(place(index)))).collect();
            let carried = carried[0].into_float_value();
            vec![pieces.iter().fold(carried, |value, (at, values)| body(value, *at, values)).into()]
        });
        let bounds = (e.word(whole as u32), e.word(self.width as u32), self.step());
        let carried = e.fold(bounds, &carried, |from, carried| {
            let at = self.place(e, from);
            let there = e.cmp(IntPredicate::SLT, at, e.word(self.width as u32));
            let value = carried[0].into_float_value();
            e.choose(there, || vec![body(value, at, &load(at)).into()], || vec![value.into()])
        });
        carried[0].into_float_value()
    }
}
