//! What the stages of a tile are filled with: rows of x, as they are or normed on the way, and of weights.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::types::Dtype;

use super::multistage::{PIECE, Rows, Shape, Side};
use crate::linear::nvptx::plan::{self, Norm, Plan};
use crate::linear::nvptx::strips::{Blocks, STRIP};
use crate::nvptx::{Emit, Float, Int, Ptr, Written};

const F32: Dtype = Dtype::F32;

/// Whether x can be taken.
pub(super) fn check(plan: &Plan) -> Result<(), String> {
    if plan.x.dtype() != Dtype::Bf16 {
        return Err(format!("x is {}, not bf16", plan.x.dtype()));
    }
    match &plan.x.norm {
        None if plan.x.x.layout.vector() < PIECE => {
            Err("the rows of x are not whole pieces of 16 bytes".to_owned())
        }
        Some(norm) if !norm.group.is_multiple_of(PIECE.into()) => {
            Err(format!("a group of {} columns is no multiple of {PIECE}", norm.group))
        }
        None | Some(_) => Ok(()),
    }
}

/// Where x comes from.
pub(super) enum Input<'c, 'p> {
    Plain(Rows<'c>),
    Normed(Normed<'c, 'p>),
}

/// Rows that are normed while they are put into a stage.
pub(super) struct Normed<'c, 'p> {
    x: &'p plan::Rows,
    norm: &'p Norm,
    /// This thread's rows.
    rows: Vec<Row<'c>>,
}

#[derive(Clone, Copy)]
struct Row<'c> {
    x: Ptr<'c>,
    gate: Option<Ptr<'c>>,
    there: IntValue<'c>,
    /// The scales of its groups.
    scales: Ptr<'c>,
}

/// The row of x that a row of the products is made of, and whether there is one; if not, it is any row of x.
fn row_of_x<'c>(e: &Emit<'c, '_>, plan: &Plan, row: Int<'c>, rows: Int<'c>) -> (Int<'c>, IntValue<'c>) {
    let inside = e.cmp(IntPredicate::SLT, row, rows);
    let row = e.select(inside, row, e.word(0));
    let Some(indices) = plan.x.indices else {
        return (row, inside);
    };
    let index = e.load_int(e.arg(indices), row);
    let there = e.and(inside, e.cmp(IntPredicate::SGE, index, e.word(0)));
    (e.select(there, index, e.word(0)), there)
}

impl<'c, 'p> Input<'c, 'p> {
    /// The rows from `first` on, of `rows`; `scales` holds an f32 for each row and group of a norm.
    pub fn of(
        e: &Emit<'c, '_>,
        shape: Shape,
        plan: &'p Plan,
        (first, rows): (Int<'c>, Int<'c>),
        scales: Ptr<'c>,
    ) -> Self {
        let x = &plan.x.x;
        let own = shape.own_rows(e, shape.rows);
        let none = e.word(0);
        let Some(norm) = &plan.x.norm else {
            let row = |row| {
                let (row, there) = row_of_x(e, plan, e.add(first, row), rows);
                (x.at(e, row, none), e.select(there, e.word(16), none))
            };
            let (starts, there) = own.into_iter().map(row).unzip();
            return Self::Plain(Rows { starts, there });
        };
        let groups = (plan.k / norm.group) as u32;
        let row = |row| {
            let (of_x, there) = row_of_x(e, plan, e.add(first, row), rows);
            let scales = e.at(scales, F32, e.times(row, groups.into()));
            // A gate lies beside the rows that are gated: none of them is chosen by index.
            let gate = norm.gate.as_ref().map(|gate| gate.at(e, of_x, none));
            Row { x: x.at(e, of_x, none), gate, there, scales }
        };
        let warps = u64::from(e.warps());
        e.step_by(e.warp(), e.word(shape.rows), warps, |index| {
            scale(e, (x, norm), row(index), groups);
        });
        e.barrier();
        Self::Normed(Normed { x, norm, rows: own.into_iter().map(row).collect() })
    }

    /// Puts this thread's pieces, `k` of `width` columns on, into a stage.
    pub fn fill(&self, e: &Emit<'c, '_>, shape: Shape, (k, width): (Int<'c>, u64), stage: Ptr<'c>) {
        match self {
            Self::Plain(rows) => shape.copy(e, (rows, Side::X), (k, width), stage),
            Self::Normed(normed) => normed.fill(e, shape, (k, width), stage),
        }
    }
}

/// Eight columns of a row, before they are scaled.
fn unscaled<'c>(
    e: &Emit<'c, '_>,
    (x, norm): (&plan::Rows, &Norm),
    row: Row<'c>,
    column: Int<'c>,
) -> Vec<Float<'c>> {
    let load = |rows: &plan::Rows, start| {
        let place = e.at(start, rows.dtype(), column);
        e.load(place, rows.dtype(), (PIECE, rows.layout.vector().min(PIECE)), Written::Before)
    };
    let values = load(x, row.x);
    match (&norm.gate, row.gate) {
        (Some(gate), Some(start)) => {
            values.into_iter().zip(load(gate, start)).map(|(x, gate)| e.fmul(x, e.silu(gate))).collect()
        }
        _ => values,
    }
}

/// A warp finds the scales of a row's groups.
fn scale<'c>(e: &Emit<'c, '_>, (x, norm): (&plan::Rows, &Norm), row: Row<'c>, groups: u32) {
    e.each(e.word(0), e.word(groups), |group| {
        let first = e.times(group, norm.group);
        let own = e.add(first, e.times(e.lane(), PIECE.into()));
        let range = (own, e.plus(first, norm.group), u64::from(32 * PIECE));
        let sum = e.fold(range, &[e.float(0.0).into()], |column, sum| {
            let values = unscaled(e, (x, norm), row, column);
            let sum = sum[0].into_float_value();
            vec![values.into_iter().fold(sum, |sum, value| e.fma(value, value, sum)).into()]
        });
        let sum = e.warp_sum(sum[0].into_float_value());
        let mean = e.fmul(sum, e.float(1.0 / norm.group as f64));
        let scale = e.rsqrt(e.fadd(mean, e.float(norm.eps)));
        e.when(e.cmp(IntPredicate::EQ, e.lane(), e.word(0)), || {
            e.store(e.at(row.scales, F32, group), F32, &[scale], 1);
        });
    });
}

impl<'c> Normed<'c, '_> {
    fn fill(&self, e: &Emit<'c, '_>, shape: Shape, (k, width): (Int<'c>, u64), stage: Ptr<'c>) {
        let norm = self.norm;
        let column = e.add(k, shape.own_column(e));
        let within = e.cmp(IntPredicate::ULT, column, e.word(width as u32));
        let group = e.word(norm.group as u32);
        for (place, row) in shape.own_places(e, stage, Side::X).into_iter().zip(&self.rows) {
            let words = e.choose(
                e.and(within, row.there),
                || {
                    let of_weight = if norm.shared { e.rem(column, group) } else { column };
                    let weight = e.at(e.arg(norm.weight.arg), F32, of_weight);
                    let vector = norm.weight.layout.vector().min(PIECE);
                    let weight = e.load(weight, F32, (PIECE, vector), Written::Before);
                    let scale = e.at(row.scales, F32, e.div(column, group));
                    let scale = e.load_scalar(scale, F32, Written::Now);
                    let values = unscaled(e, (self.x, norm), *row, column);
                    let normed = values.into_iter().zip(weight);
                    let normed: Vec<_> =
                        normed.map(|(value, weight)| e.fmul(e.fmul(value, scale), weight)).collect();
                    normed.chunks(2).map(|pair| e.pack(pair[0], pair[1]).into()).collect()
                },
                || vec![e.word(0).into(); PIECE as usize / 2],
            );
            let words: Vec<_> = words.into_iter().map(|word| word.into_int_value()).collect();
            e.store_words(place, &words, 16);
        }
    }
}

/// The rows of weights that this thread copies, of a block of strips.
pub(super) fn weights<'c>(
    e: &Emit<'c, '_>,
    shape: Shape,
    plan: &Plan,
    blocks: &Blocks,
    block: Int<'c>,
) -> Rows<'c> {
    let groups: Vec<usize> = (0..plan.groups.len()).collect();
    let stride = plan.groups[0].products[0].weight.layout.row_stride;
    let none = e.word(0);
    let row = |row: Int<'c>| {
        let index = e.shift_right(row, u64::from(STRIP.trailing_zeros()));
        let strip = blocks.strip(e, plan, &groups, (block, index));
        let inside = e.and(row, e.word(STRIP as u32 - 1));
        let there = e.cmp(IntPredicate::SLT, inside, strip.present);
        let offset = e.times(e.select(there, inside, none), stride);
        (e.at(strip.base, Dtype::Bf16, offset), e.select(there, e.word(16), none))
    };
    let (starts, there) = shape.own_rows(e, shape.columns).into_iter().map(row).unzip();
    Rows { starts, there }
}
