//! Step sizes: softplus of what the projection gives, computed by its own kernel or where they are used.

use inkwell::FloatPredicate;

use crate::host::{Chain, Emit, Float, Int, Lanes, Link, Ptr, Rows};

/// Where a scan's step sizes come from.
#[derive(Clone, Copy)]
pub(super) enum Steps<'c> {
    /// They are there.
    Ready(Rows<'c>),
    /// They are computed.
    Raw(Rows<'c>, Softplus<'c>),
}

/// Softplus with a bias and bounds.
#[derive(Clone, Copy)]
pub(super) struct Softplus<'c> {
    bias: Ptr<'c>,
    low: f64,
    high: f64,
}

const F32: nemo_ir::types::Dtype = nemo_ir::types::Dtype::F32;

impl<'c> Steps<'c> {
    /// Those of a scan.
    pub(super) fn of(e: &Emit<'c, '_>, chain: &Chain, link: &Link) -> Result<Self, String> {
        match chain.giver(link.source("dt").ok_or("a scan has step sizes")?) {
            None => Ok(Self::Ready(Rows::of(e, e.taken(link, "dt")?))),
            Some(giver) => Ok(Self::Raw(Rows::of(e, e.taken(giver, "dt")?), Softplus::of(e, giver)?)),
        }
    }

    pub(super) fn size(&self, e: &Emit<'c, '_>, row: Int<'c>, head: Int<'c>) -> Float<'c> {
        match self {
            Self::Ready(rows) => rows.scalar(e, row, head),
            Self::Raw(rows, softplus) => {
                let bias = e.splat(e.load_scalar(e.at(softplus.bias, F32, head), F32));
                let step = softplus.lanes(e, e.splat(rows.scalar(e, row, head)), bias);
                e.extract(step, 0).into_float_value()
            }
        }
    }

    /// Puts those of `count` heads from `first` on, at a row, into `to`: together they cost what one does.
    pub(super) fn gather(
        &self,
        e: &Emit<'c, '_>,
        row: Int<'c>,
        (first, count): (Int<'c>, u64),
        to: Rows<'c>,
    ) {
        e.columns(count, |at, lanes| {
            let head = e.add(first, at);
            let steps = match self {
                Self::Ready(rows) => rows.load(e, row, head, lanes),
                Self::Raw(rows, softplus) => {
                    let bias = e.load(e.at(softplus.bias, F32, head), F32, lanes);
                    softplus.lanes(e, rows.load(e, row, head, lanes), bias)
                }
            };
            to.store(e, row, at, lanes, steps);
        });
    }
}

impl<'c> Softplus<'c> {
    fn of(e: &Emit<'c, '_>, link: &Link) -> Result<Self, String> {
        Ok(Self { bias: e.taken(link, "bias")?.0, low: link.float("min"), high: link.float("max") })
    }

    fn lanes(&self, e: &Emit<'c, '_>, raw: Lanes<'c>, bias: Lanes<'c>) -> Lanes<'c> {
        // Comparisons, not extrema, so that NaN stays NaN.
        let mut step = e.softplus(e.fadd(raw, bias));
        if self.low > 0.0 {
            let below = e.vcmp(FloatPredicate::OLT, step, e.lanes(self.low));
            step = e.select(below, e.lanes(self.low), step);
        }
        if self.high.is_finite() {
            let above = e.vcmp(FloatPredicate::OGT, step, e.lanes(self.high));
            step = e.select(above, e.lanes(self.high), step);
        }
        step
    }
}

pub(super) fn dt_softplus(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let softplus = Softplus::of(e, link)?;
    let (x, y) = (e.taken(link, "dt")?, Rows::of(e, e.result()));
    let (rows, width) = (e.dim(x.1.ty.shape[0]), x.1.ty.width().unwrap_or(0));
    let x = Rows::of(e, x);
    e.share_columns(width, |column, lanes| {
        let bias = e.load(e.at(softplus.bias, F32, column), F32, lanes);
        e.each(e.int(0), rows, |row| {
            y.store(e, row, column, lanes, softplus.lanes(e, x.load(e, row, column, lanes), bias));
        });
    });
    Ok(())
}
