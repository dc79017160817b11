//! RMSNorm and rotation in one: a few lanes take a head, and keep it in registers between the two.
//!
//! Where a norm's groups are not the heads, or a head is wider than a warp's registers, a warp goes over the columns twice.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::types::Dtype;

use super::rope::{self, Angles};
use crate::nvptx::{Chain, Emit, Float, Int, Kernel, Link, Ptr, SharedBytes, Written, geometry};
use crate::spec::{KernelSpec, Layout};

/// Threads of a CTA.
const THREADS: u32 = 128;

/// Extents of the two ops.
#[derive(Debug, Clone, Copy)]
struct Shape {
    width: u64,
    head_dim: u64,
    /// Columns that share a scale.
    group: u64,
    /// Pairs that one access takes.
    vector: u32,
}

pub(super) fn kernel(spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let (norm, rope) = links(chain)?;
    let (x, y) = (spec.layout_of(norm, "x")?, &spec.results[0]);
    let head_dim = rope::head_dim(spec, rope)?;
    let shape = Shape {
        width: y.ty.width().ok_or("the result has no rows")?,
        head_dim,
        group: norm.int("group"),
        vector: rope::vector(head_dim, x.vector().min(y.vector())),
    };
    let rows = geometry::rows(y.ty.shape[0]);
    let stretches = head_dim / 2 / u64::from(shape.vector);
    if shape.group == head_dim && stretches <= 32 {
        let lanes = stretches.next_power_of_two();
        let threads = (shape.width / head_dim * lanes).next_multiple_of(32).min(THREADS.into());
        let ctas = (shape.width / head_dim * lanes).div_ceil(threads);
        let geometry = geometry::of([Extent::Const(ctas), rows, Extent::Const(1)], threads as u32);
        return Ok(Kernel::new(geometry, move |e| in_registers(e, shape, (stretches, lanes))));
    }
    let unit = shape.group.max(head_dim);
    if !unit.is_multiple_of(shape.group) || !unit.is_multiple_of(head_dim) {
        return Err(format!("groups of {} columns do not divide into heads of {head_dim}", shape.group));
    }
    let (units, groups) = (shape.width / unit, unit / shape.group);
    let warps = u64::from(THREADS / 32).min(units);
    let shared = SharedBytes::default().and((warps * groups * 4) as u32, 4).0;
    let grid = [Extent::Const(units.div_ceil(warps)), rows, Extent::Const(1)];
    let geometry = Geometry { shared, ..geometry::of(grid, 32 * warps as u32) };
    Ok(Kernel::new(geometry, move |e| in_two_passes(e, shape, unit)))
}

fn links(chain: &Chain) -> Result<(&Link, &Link), String> {
    let norm = chain.find(&["rms_norm"]).ok_or("the chain has no norm")?;
    let rope = chain.links.last().ok_or("the chain is empty")?;
    Ok((norm, rope))
}

/// The norm's parameters.
struct Norm<'c, 'm> {
    weight: (Ptr<'c>, &'m Layout),
    /// One group's weights serve all groups.
    shared: bool,
    group: u64,
    eps: f64,
    dtype: Dtype,
}

impl<'c, 'm> Norm<'c, 'm> {
    fn of(e: &Emit<'c, 'm>, link: &Link) -> Result<Self, String> {
        let (weight, group) = (e.taken(link, "weight")?, link.int("group"));
        let shared = weight.1.ty.width() == Some(group);
        Ok(Self { weight, shared, group, eps: link.float("eps"), dtype: link.dtype() })
    }

    /// What a group is multiplied by, given the sum of its squares.
    fn scale(&self, e: &Emit<'c, '_>, squares: Float<'c>) -> Float<'c> {
        let mean = e.fmul(squares, e.float(1.0 / self.group as f64));
        e.rsqrt(e.fadd(mean, e.float(self.eps)))
    }

    /// The weights of `count` columns from that one of the row, within a group.
    fn weights(&self, e: &Emit<'c, '_>, column: Int<'c>, (count, vector): (u32, u32)) -> Vec<Float<'c>> {
        let column = if self.shared { e.rem(column, e.word(self.group as u32)) } else { column };
        let place = e.at(self.weight.0, Dtype::F32, column);
        e.load(place, Dtype::F32, (count, vector.min(self.weight.1.vector())), Written::Before)
    }

    fn apply(
        &self,
        e: &Emit<'c, '_>,
        values: &[Float<'c>],
        scale: Float<'c>,
        weights: &[Float<'c>],
    ) -> Vec<Float<'c>> {
        let scaled = values.iter().zip(weights);
        scaled.map(|(x, weight)| e.round(self.dtype, e.fmul(e.fmul(*x, scale), *weight))).collect()
    }
}

fn in_registers(e: &Emit<'_, '_>, shape: Shape, (stretches, lanes): (u64, u64)) -> Result<(), String> {
    let chain = e.chain();
    let (norm, rope) = links(&chain)?;
    let (x, y) = (e.taken(norm, "x")?, e.result());
    let (norm, angles) = (Norm::of(e, norm)?, Angles::of(e, rope)?);
    let Shape { width, head_dim, vector, .. } = shape;
    let row = e.cta(1);
    let item = e.add(e.times(e.cta(0), e.threads().into()), e.thread());
    let (head, stretch) = (e.div(item, e.word(lanes as u32)), e.rem(item, e.word(lanes as u32)));
    let first = e.times(stretch, vector.into());
    let columns: [Int<'_>; 2] =
        [0, 1].map(|half| e.plus(e.add(e.times(head, head_dim), first), half * (head_dim / 2)));
    let there: IntValue<'_> = e.and(
        e.cmp(IntPredicate::ULT, head, e.word((width / head_dim) as u32)),
        e.cmp(IntPredicate::ULT, stretch, e.word(stretches as u32)),
    );
    // Lanes without a stretch take part in the sum.
    let loaded = e.choose(
        there,
        || {
            let load = |column| {
                let place = e.at(e.row(x, row), x.1.dtype(), column);
                e.load(place, x.1.dtype(), (vector, vector), Written::Now)
            };
            columns.into_iter().flat_map(load).map(Into::into).collect()
        },
        || vec![e.float(0.0).into(); 2 * vector as usize],
    );
    let values: Vec<_> = loaded.iter().map(|value| value.into_float_value()).collect();
    let squares = values.iter().fold(e.float(0.0), |sum, value| e.fma(*value, *value, sum));
    let squares = e.across(squares, lanes as u32, |a, b| e.fadd(a, b));
    e.when(there, || {
        let scale = norm.scale(e, squares);
        let turns = angles.turns(e, row, first, (vector, vector));
        let halves: Vec<_> = columns
            .into_iter()
            .zip(values.chunks(vector as usize))
            .map(|(column, values)| norm.apply(e, values, scale, &norm.weights(e, column, (vector, vector))))
            .collect();
        let turned = turns.rotate_all(e, [&halves[0], &halves[1]]);
        for (column, turned) in columns.into_iter().zip(turned) {
            e.store(e.at(e.row(y, row), y.1.dtype(), column), y.1.dtype(), &turned, vector);
        }
    });
    Ok(())
}

/// A warp takes whole groups and whole heads, element by element.
fn in_two_passes(e: &Emit<'_, '_>, shape: Shape, unit: u64) -> Result<(), String> {
    let chain = e.chain();
    let (norm, rope) = links(&chain)?;
    let (x, y) = (e.taken(norm, "x")?, e.result());
    let (norm, angles) = (Norm::of(e, norm)?, Angles::of(e, rope)?);
    let Shape { width, head_dim, group, .. } = shape;
    let groups = unit / group;
    let warps = u64::from(e.warps());
    let space = e.shared((warps * groups * 4) as u32, 4);
    let scales = e.at(space, Dtype::F32, e.times(e.warp(), groups));
    let row = e.cta(1);
    let index = e.add(e.times(e.cta(0), warps), e.warp());
    let column = e.times(index, unit);
    let load = |at| e.load_scalar(e.at(e.row(x, row), x.1.dtype(), at), x.1.dtype(), Written::Now);
    e.when(e.cmp(IntPredicate::ULT, index, e.word((width / unit) as u32)), || {
        e.each(e.word(0), e.word(groups as u32), |which| {
            let first = e.add(column, e.times(which, group));
            let squares = e.fold((e.lane(), e.word(group as u32), 32), &[e.float(0.0).into()], |at, sum| {
                let value = load(e.add(first, at));
                vec![e.fma(value, value, sum[0].into_float_value()).into()]
            });
            let squares = e.warp_sum(squares[0].into_float_value());
            e.store_aligned(e.at(scales, Dtype::F32, which), norm.scale(e, squares), 4);
        });
        e.warp_barrier();
        let half = head_dim / 2;
        e.step_by(e.lane(), e.word((unit / 2) as u32), 32, |pair| {
            let head = e.times(e.div(pair, e.word(half as u32)), head_dim);
            let first = e.rem(pair, e.word(half as u32));
            let normed = |half_offset: u64| {
                let at = e.plus(e.add(head, first), half_offset);
                let which = e.div(at, e.word(group as u32));
                let scale = e.load_aligned(e.context.f32_type(), e.at(scales, Dtype::F32, which), 4);
                let at = e.add(column, at);
                let weights = norm.weights(e, at, (1, 1));
                norm.apply(e, &[load(at)], scale.into_float_value(), &weights)[0]
            };
            let turns = angles.turns(e, row, first, (1, 1));
            let turned = turns.rotate(e, 0, [normed(0), normed(half)]);
            for (offset, value) in [0, half].into_iter().zip(turned) {
                let at = e.add(column, e.plus(e.add(head, first), offset));
                e.store(e.at(e.row(y, row), y.1.dtype(), at), y.1.dtype(), &[value], 1);
            }
        });
    });
    Ok(())
}
