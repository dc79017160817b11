//! Rotation of the two halves of each head by the angle of the token's position.

use nemo_ir::types::Dtype;

use crate::host::{Emit, Int, Link, Ptr, Rows};
use crate::norm::host::Normed;

/// The angles of every position.
#[derive(Clone, Copy)]
pub(crate) struct Angles<'c> {
    table: Rows<'c>,
    positions: Ptr<'c>,
    pub head_dim: u64,
    /// What the rotated values are rounded to.
    pub dtype: Dtype,
}

impl<'c> Angles<'c> {
    pub(crate) fn of(e: &Emit<'c, '_>, link: &Link) -> Result<Self, String> {
        let (table, positions) = (e.taken(link, "table")?, e.taken(link, "positions")?);
        let head_dim = table.1.ty.width().ok_or("the table's shape is not constant")?;
        Ok(Self { table: Rows::of(e, table), positions: positions.0, head_dim, dtype: link.dtype() })
    }

    /// Rotates the head at `from`, which belongs to a row of the step.
    pub(crate) fn rotate(
        &self,
        e: &Emit<'c, '_>,
        row: Int<'c>,
        (from, from_dtype): (Ptr<'c>, Dtype),
        (to, to_dtype): (Ptr<'c>, Dtype),
    ) {
        let half = self.head_dim / 2;
        // A padded row has no position; its result is never read, so any row of the table will do.
        let position = e.max(e.load_int(self.positions, row), e.int(0));
        e.columns(half, |at, lanes| {
            let load = |offset| e.load(e.at(from, from_dtype, e.plus(at, offset)), from_dtype, lanes);
            let angle = |offset| self.table.load(e, position, e.plus(at, offset), lanes);
            let (low, high, cos, sin) = (load(0), load(half), angle(0), angle(half));
            let store = |offset, value| {
                let place = e.at(to, to_dtype, e.plus(at, offset));
                e.store(place, to_dtype, lanes, e.round(self.dtype, value));
            };
            store(0, e.fsub(e.fmul(low, cos), e.fmul(high, sin)));
            store(half, e.fadd(e.fmul(high, cos), e.fmul(low, sin)));
        });
    }
}

/// The rotation of a tensor, or of its norm.
pub(super) fn rope(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let angles = Angles::of(e, link)?;
    let y = e.result();
    let (width, head_dim) = (y.1.ty.width().unwrap_or(0), angles.head_dim);
    let (y, rows) = (Rows::of(e, y), e.dim(y.1.ty.shape[0]));
    let Some(norm) = chain.find(&["rms_norm"]) else {
        let x = Rows::of(e, e.taken(link, "x")?);
        each_unit(e, rows, (width, head_dim), |row, column| {
            let to = (y.at(e, row, column), y.dtype);
            angles.rotate(e, row, (x.at(e, row, column), x.dtype), to);
        });
        return Ok(());
    };
    let normed = Normed::of(e, &chain, norm)?;
    let group = normed.norm.group;
    let unit = group.max(head_dim);
    if !unit.is_multiple_of(group) || !unit.is_multiple_of(head_dim) {
        return Err(format!("groups of {group} columns do not divide into heads of {head_dim}"));
    }
    if unit > 1 << 15 {
        return Err(format!("a group of {unit} columns exceeds the 32768 that fit the stack"));
    }
    let space = e.scratch_rows(norm.dtype(), 1, unit);
    each_unit(e, rows, (width, unit), |row, column| {
        let space = space.from(row, column);
        let end = e.plus(column, unit);
        e.step_by(column, end, group, |at| {
            normed.group(e, row, at, (space.at(e, row, at), space.dtype));
        });
        e.step_by(column, end, head_dim, |at| {
            angles.rotate(e, row, (space.at(e, row, at), space.dtype), (y.at(e, row, at), y.dtype));
        });
    });
    Ok(())
}

/// This thread's part of what is rotated at once, heads or wider groups of a norm, by row and first column.
fn each_unit<'c>(
    e: &Emit<'c, '_>,
    rows: Int<'c>,
    (width, unit): (u64, u64),
    body: impl FnOnce(Int<'c>, Int<'c>),
) {
    let units = width / unit;
    let (from, to) = e.share(e.times(rows, units));
    e.each(from, to, |item| {
        body(e.div(item, e.int(units)), e.times(e.rem(item, e.int(units)), unit));
    });
}
