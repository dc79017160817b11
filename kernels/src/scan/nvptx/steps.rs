//! Step sizes: softplus of what the projection gives, computed by its own kernel or where they are used.

use inkwell::FloatPredicate;
use nemo_ir::plan::Extent;
use nemo_ir::types::Dtype;

use super::heads::{Columns, piece};
use crate::nvptx::{Chain, Emit, Float, Int, Kernel, Link, Written, geometry};
use crate::spec::{KernelSpec, Layout};

/// Threads of a CTA of the op alone.
const THREADS: u64 = 256;

/// Where a scan's step sizes come from.
#[derive(Clone, Copy)]
pub(super) struct StepSizes {
    columns: Columns,
    /// They are computed from what is there.
    raw: Option<Softplus>,
}

/// Softplus with a bias and bounds.
#[derive(Clone, Copy)]
struct Softplus {
    /// The operand that holds the bias.
    bias: usize,
    low: f64,
    high: f64,
}

impl StepSizes {
    /// Those of a scan.
    pub fn of(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Self, String> {
        match chain.giver(link.source("dt").ok_or("a scan has step sizes")?) {
            None => Ok(Self { columns: Columns::of(spec, chain, link, "dt")?, raw: None }),
            Some(giver) => Ok(Self {
                columns: Columns::of(spec, chain, giver, "dt")?,
                raw: Some(Softplus::of(spec, giver)?),
            }),
        }
    }

    /// What is there for a head at a row.
    pub fn raw<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, head: Int<'c>) -> Float<'c> {
        self.columns.load(e, row, head, (1, 1))[0]
    }

    /// The step size, given what is there for it.
    pub fn size<'c>(&self, e: &Emit<'c, '_>, raw: Float<'c>, head: Int<'c>) -> Float<'c> {
        match self.raw {
            None => raw,
            Some(softplus) => {
                let bias = e.at(e.arg(softplus.bias), Dtype::F32, head);
                softplus.of_sum(e, e.fadd(raw, e.load_scalar(bias, Dtype::F32, Written::Before)))
            }
        }
    }
}

impl Softplus {
    fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let bias = spec.given(link.source("bias")).ok_or("the bias of step sizes is no operand")?;
        Ok(Self { bias, low: link.float("min"), high: link.float("max") })
    }

    fn of_sum<'c>(&self, e: &Emit<'c, '_>, sum: Float<'c>) -> Float<'c> {
        // Comparisons, not extrema, so that NaN stays NaN.
        let mut step = e.softplus(sum);
        if self.low > 0.0 {
            let low = e.float(self.low);
            step = e.select(e.fcmp(FloatPredicate::OLT, step, low), low, step);
        }
        if self.high.is_finite() {
            let high = e.float(self.high);
            step = e.select(e.fcmp(FloatPredicate::OGT, step, high), high, step);
        }
        step
    }
}

/// The op alone: a CTA takes whole rows, as many as fill it.
pub(super) fn kernel(spec: &KernelSpec, link: &Link) -> Result<Kernel, String> {
    let (x, bias, y) = (spec.layout_of(link, "dt")?, spec.layout_of(link, "bias")?, &spec.results[0]);
    let softplus = Softplus::of(spec, link)?;
    let width = y.ty.width().ok_or("step sizes have no heads")?;
    let vector = piece(width, &[x, bias, y]);
    let pieces = width / u64::from(vector);
    let (across, rows) = (pieces.div_ceil(THREADS), (THREADS / pieces).max(1));
    let dim = y.ty.shape[0];
    let grid = [Extent::Const(across), geometry::tiles(dim, rows), Extent::Const(1)];
    Ok(Kernel::new(geometry::of(grid, THREADS as u32), move |e| {
        let (x, bias, y) = (e.operand("dt"), e.operand("bias"), e.result());
        let per_row = e.word(if rows > 1 { pieces as u32 } else { THREADS as u32 });
        let row = e.add(e.times(e.cta(1), rows), e.div(e.thread(), per_row));
        let piece = e.add(e.times(e.cta(0), THREADS), e.rem(e.thread(), per_row));
        let inside = e.and(
            e.cmp(inkwell::IntPredicate::SLT, e.div(e.thread(), per_row), e.word(rows as u32)),
            e.and(
                e.cmp(inkwell::IntPredicate::SLT, row, e.dim(dim)),
                e.cmp(inkwell::IntPredicate::SLT, piece, e.word(pieces as u32)),
            ),
        );
        e.when(inside, || {
            let column = e.times(piece, vector.into());
            let place = |tensor: (_, &Layout)| e.at(e.row(tensor, row), tensor.1.dtype(), column);
            let raw = e.load(place(x), x.1.dtype(), (vector, vector), Written::Before);
            let bias = e.at(bias.0, Dtype::F32, column);
            let bias = e.load(bias, Dtype::F32, (vector, vector), Written::Before);
            let sizes: Vec<_> =
                raw.iter().zip(&bias).map(|(raw, bias)| softplus.of_sum(e, e.fadd(*raw, *bias))).collect();
            e.store(place(y), y.1.dtype(), &sizes, vector);
        });
        Ok(())
    }))
}
