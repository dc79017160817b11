//! Products of any dtypes and any K, in f32: lanes run along K, a warp takes four columns and some rows at once.

use inkwell::IntPredicate;
use nemo_ir::plan::Geometry;
use nemo_ir::types::Dtype;

use super::cut::{self, Rows16};
use super::epilogue::{Done, Staged, finish};
use super::plan::{Plan, Rows};
use super::source::{Line, Source, Staging, piece};
use super::strips::{Blocks, Reading, STRIP};
use crate::nvptx::{
    self, Any, Candidate, Emit, Float, Form, Int, Kernel, Needs, Ptr, SharedBytes, Written, geometry,
};
use crate::spec::KernelSpec;
use crate::target::Sm;

const F32: Dtype = Dtype::F32;
/// Warps of a CTA.
const WARPS: u64 = 8;
/// Columns that a warp works on at once.
const COLUMNS: u64 = 4;
/// Rows of a tile: with four columns they make as many sums as a warp has lanes.
const ROWS: u64 = 8;
/// Elements of K that a lane takes of each row at once.
const PIECE: u64 = 4;
/// Such pieces that are under way together.
const AHEAD: u64 = 2;
/// The most strips of a unit: the sums of its columns have to fit shared memory.
const MOST_PARTS: u64 = 128;

/// The kernel.
pub(super) fn kernel(sm: Sm, spec: &KernelSpec, plan: Plan) -> Result<Kernel, String> {
    let parts = plan.parts();
    if parts > MOST_PARTS {
        return Err(format!("{parts} strips of 16 columns meet in one value, and {MOST_PARTS} fit a CTA"));
    }
    let most = cut::most_rows(spec, plan.rows);
    let rows = most.clamp(1, ROWS);
    let blocks = Blocks::of(&plan, parts.max(WARPS * COLUMNS / STRIP));
    let stride = blocks.strips * STRIP + 4;
    let staged_bytes = (rows * stride * 4) as u32;
    let budget = u64::from(sm.shared_bytes()) - u64::from(staged_bytes) - 1024;
    let staging = Staging::of(&plan, rows, budget, true);
    let tiles = Rows16 { dim: plan.rows, rows, most };
    let shared = staging.space(&plan).after(SharedBytes::default().and(staged_bytes, 16));
    let grid = cut::grid(tiles, blocks.count(), 1)?;
    let geometry = Geometry { shared: shared.0, ..geometry::of(grid, 32 * WARPS as u32) };
    let bytes = plan.groups[0].products[0].weight.dtype().bytes();
    let candidate = Candidate {
        form: Form::Simt,
        needs: Needs {
            registers: 128,
            under_way: u64::from(geometry.threads) * COLUMNS * AHEAD * PIECE * bytes,
            again: 0,
            waits: 1,
        },
        geometry,
        cut: Some(nvptx::Cut { rows, columns: blocks.strips * STRIP, splits: 1 }),
    };
    Ok(Kernel::of(candidate, move |e| {
        let staged = e.shared(staged_bytes, 16);
        let rows_of_tile = tiles.of_tile(e, e.cta(0));
        let source = staging.prepare(e, &plan, rows_of_tile);
        let block = e.cta(1);
        let staged = Staged { base: staged, stride, parts: 1, part: 0 };
        let lines: Vec<_> = (0..rows).map(|row| source.line(e, &plan, e.word(row as u32))).collect();
        let classes = plan.classes();
        for (reading, groups) in &classes {
            let own = || {
                let dots = Dots { e, plan: &plan, reading: *reading, source, lines: &lines };
                let quads = blocks.strips * STRIP / COLUMNS;
                e.step_by(e.warp(), e.word(quads as u32), WARPS, |quad| {
                    dots.quad(&blocks, groups, (block, quad), staged);
                });
            };
            match classes.len() {
                1 => own(),
                _ => e.when(blocks.holds_any(e, groups, block), own),
            }
        }
        e.barrier();
        let groups: Vec<usize> = (0..plan.groups.len()).collect();
        finish(e, &plan, (&blocks, &groups), Done { block, rows: rows_of_tile, staged });
        Ok(())
    }))
}

/// Dot products of a warp.
struct Dots<'e, 'c, 'm, 'p> {
    e: &'e Emit<'c, 'm>,
    plan: &'p Plan,
    reading: Reading,
    source: Source<'c>,
    lines: &'p [Line<'c>],
}

impl<'c> Dots<'_, 'c, '_, '_> {
    /// Elements of K of a piece.
    fn piece(&self) -> u64 {
        let (_, _, vector) = self.reading;
        let x = self.plan.x.vector(PIECE, self.plan.k);
        u64::from(x.min(vector)).min(piece(PIECE, self.plan.k, &[] as &[&Rows]).into())
    }

    /// Four columns of all rows.
    fn quad(&self, blocks: &Blocks, groups: &[usize], (block, quad): (Int<'c>, Int<'c>), staged: Staged<'c>) {
        let e = self.e;
        let (dtype, stride, _) = self.reading;
        let per_strip = e.word((STRIP / COLUMNS) as u32);
        let strip = blocks.strip(e, self.plan, groups, (block, e.div(quad, per_strip)));
        let last = e.sub(strip.present, e.word(1));
        let first = e.times(e.rem(quad, per_strip), COLUMNS);
        let weight = |column: u64| {
            // A column that is not there reads one that is, and its sum goes nowhere.
            let row = e.min(e.plus(first, column), last);
            e.at(strip.base, dtype, e.times(e.long(row), stride))
        };
        let weights: Vec<Ptr<'c>> = (0..COLUMNS).map(weight).collect();
        let sums = self.along(&weights);
        let (sum, index) = scatter(e, sums);
        // A sum for each column of each row, columns first.
        let (row, column) = (e.div(index, e.word(COLUMNS as u32)), e.rem(index, e.word(COLUMNS as u32)));
        let there = e.cmp(IntPredicate::SLT, row, e.word(self.lines.len() as u32));
        e.when(there, || {
            let column = e.add(e.times(quad, COLUMNS), column);
            let place = e.at(staged.base, F32, e.add(e.times(row, staged.stride), column));
            e.store(place, F32, &[sum], 1);
        });
    }

    /// Each lane's part of the sums: for each row, for each column.
    fn along(&self, weights: &[Ptr<'c>]) -> Vec<Float<'c>> {
        let e = self.e;
        let piece = self.piece();
        let width = 32 * piece;
        let own = e.times(e.lane(), piece);
        let count = weights.len() * self.lines.len();
        let zeros: Vec<Any<'c>> = vec![e.float(0.0).into(); count];
        let step = width * AHEAD;
        let whole = self.plan.k / step * step;
        let sums = e.fold((e.word(0), e.word(whole as u32), step), &zeros, |k, sums| {
            let places: Vec<_> = (0..AHEAD).map(|ahead| e.add(own, e.plus(k, ahead * width))).collect();
            let loaded: Vec<_> = places.iter().map(|at| self.load(weights, *at)).collect();
            places
                .iter()
                .zip(loaded)
                .fold(sums.to_vec(), |sums, (at, loaded)| self.accumulate(&sums, &loaded, *at))
        });
        let bounds = (e.word(whole as u32), e.word(self.plan.k as u32), width);
        let sums = e.fold(bounds, &sums, |k, sums| {
            let at = e.add(own, k);
            let there = e.cmp(IntPredicate::SLT, at, e.word(self.plan.k as u32));
            e.choose(there, || self.accumulate(sums, &self.load(weights, at), at), || sums.to_vec())
        });
        sums.into_iter().map(Any::into_float_value).collect()
    }

    /// A piece of each weight's row.
    fn load(&self, weights: &[Ptr<'c>], at: Int<'c>) -> Vec<Vec<Float<'c>>> {
        let (dtype, ..) = self.reading;
        let piece = self.piece() as u32;
        let load = |weight: &Ptr<'c>| {
            self.e.load(self.e.at(*weight, dtype, at), dtype, (piece, piece), Written::Before)
        };
        weights.iter().map(load).collect()
    }

    fn accumulate(&self, sums: &[Any<'c>], weights: &[Vec<Float<'c>>], at: Int<'c>) -> Vec<Any<'c>> {
        let e = self.e;
        let mut next = Vec::with_capacity(sums.len());
        for (line, sums) in self.lines.iter().zip(sums.chunks(weights.len())) {
            let x = self.source.elements(e, self.plan, line, (at, self.piece() as u32));
            for (weight, sum) in weights.iter().zip(sums) {
                let sum =
                    weight.iter().zip(&x).fold(sum.into_float_value(), |sum, (w, x)| e.fma(*w, *x, sum));
                next.push(sum.into());
            }
        }
        next
    }
}

/// Adds each of up to 32 values over the lanes of the warp: every lane gets one of the sums, and its index (i32), past the
/// values where there are fewer. Halves of the lanes swap halves of the values, so that each value is added in the order of
/// a tree.
fn scatter<'c>(e: &Emit<'c, '_>, mut values: Vec<Float<'c>>) -> (Float<'c>, Int<'c>) {
    values.resize(values.len().next_power_of_two(), e.float(0.0));
    let mut index = e.word(0);
    let mut mask = 16;
    while mask > 0 {
        let upper = e.cmp(IntPredicate::NE, e.and(e.lane(), e.word(mask)), e.word(0));
        if let [value] = values[..] {
            values = vec![e.fadd(value, e.shuffle_xor(value, mask))];
        } else {
            let half = values.len() / 2;
            let (low, high) = values.split_at(half);
            let pairs = low.iter().zip(high);
            let sums = pairs.map(|(low, high)| {
                let (kept, given) = (e.select(upper, *high, *low), e.select(upper, *low, *high));
                e.fadd(kept, e.shuffle_xor(given, mask))
            });
            values = sums.collect();
            index = e.select(upper, e.plus(index, half as u64), index);
        }
        mask /= 2;
    }
    (values[0], index)
}
