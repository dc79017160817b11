//! RMSNorm: a thread takes whole groups of columns; each group is read twice, the second time from cache.
//!
//! Where x comes from is a matter of the chain: its own rows, rows chosen by index, a sum that is written
//! on the way, a gated product. The products' prologue and the scan take their rows from here, too.

use inkwell::IntPredicate;
use nemo_ir::types::{Dim, Dtype};

use crate::host::{Chain, Emit, Float, Generator, Int, Lanes, Link, Ptr, Rows};
use crate::spec::Layout;

const F32: Dtype = Dtype::F32;
/// The most columns of a gated group, whose products wait on the stack.
const MAX_GATED: u64 = 1 << 15;

pub(crate) fn generator(chain: &Chain) -> Option<Generator> {
    match chain.links.last()?.op.name {
        "rms_norm" | "gated_rms_norm" => Some(norm),
        _ => None,
    }
}

fn norm(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let normed = Normed::of(e, &chain, link)?;
    let y = Rows::of(e, e.result_at(chain.result(link, 0).ok_or("the norm gives no result")?));
    let groups = normed.width / normed.norm.group;
    let (from, to) = e.share(e.times(normed.rows(e), groups));
    e.each(from, to, |item| {
        let row = e.div(item, e.int(groups));
        let column = e.times(e.rem(item, e.int(groups)), normed.norm.group);
        normed.group(e, row, column, (y.at(e, row, column), y.dtype));
    });
    Ok(())
}

/// The norm itself.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'c> {
    /// Columns that share a scale.
    pub group: u64,
    eps: f64,
    weight: Ptr<'c>,
    /// One group's width of weights serves every group.
    shared: bool,
}

impl<'c> Norm<'c> {
    pub(crate) fn of(e: &Emit<'c, '_>, link: &Link) -> Result<Self, String> {
        let (weight, layout) = e.taken(link, "weight")?;
        let group = link.int("group");
        let shared = layout.ty.width() == Some(group);
        Ok(Self { group, eps: link.float("eps"), weight, shared })
    }

    /// One group. `first` gives its columns, `again` does so for the second time; lanes that are not in
    /// use are zero.
    fn apply(
        &self,
        e: &Emit<'c, '_>,
        column: Int<'c>,
        first: impl Fn(Int<'c>, u32) -> Lanes<'c>,
        again: impl Fn(Int<'c>, u32) -> Lanes<'c>,
        (target, dtype): (Ptr<'c>, Dtype),
    ) {
        let squares = e.fold_columns(self.group, &[e.lanes(0.0).into()], |at, lanes, sum| {
            let value = first(at, lanes);
            vec![e.fma(value, value, sum[0].into_vector_value()).into()]
        });
        let mean = e.fdiv(e.sum(squares[0].into_vector_value()), e.float(self.group as f64));
        let root: Float<'c> = e.sqrt(e.fadd(mean, e.float(self.eps)));
        let scale = e.splat(e.fdiv(e.float(1.0), root));
        let weight = if self.shared { self.weight } else { e.at(self.weight, F32, column) };
        e.columns(self.group, |at, lanes| {
            let weight = e.load(e.at(weight, F32, at), F32, lanes);
            let value = e.fmul(e.fmul(again(at, lanes), scale), weight);
            e.store(e.at(target, dtype, at), dtype, lanes, value);
        });
    }

    /// The group of x * silu(gate) whose first columns are at these places; `space` holds the products.
    pub(crate) fn gated(
        &self,
        e: &Emit<'c, '_>,
        column: Int<'c>,
        [(x, x_dtype), (gate, gate_dtype)]: [(Ptr<'c>, Dtype); 2],
        space: Ptr<'c>,
        target: (Ptr<'c>, Dtype),
    ) {
        let product = |at, lanes| {
            let value = e.load(e.at(x, x_dtype, at), x_dtype, lanes);
            let gate = e.load(e.at(gate, gate_dtype, at), gate_dtype, lanes);
            let product = e.fmul(value, e.silu(gate));
            e.store(e.at(space, F32, at), F32, e.width(), product);
            product
        };
        let again = |at, _| e.load(e.at(space, F32, at), F32, e.width());
        self.apply(e, column, product, again, target);
    }

    /// Stack space for [`Norm::gated`].
    pub(crate) fn space(&self, e: &Emit<'c, '_>) -> Result<Ptr<'c>, String> {
        if self.group > MAX_GATED {
            return Err(format!(
                "a group of {} columns exceeds the {MAX_GATED} that fit the stack",
                self.group
            ));
        }
        Ok(e.scratch_rows(F32, 1, self.group).base)
    }
}

/// Where the columns come from.
enum Input<'c> {
    /// As they are.
    Plain(Rows<'c>),
    /// Rows by index; zeros where that is negative.
    Gathered { x: Rows<'c>, indices: Ptr<'c> },
    /// A sum that is stored on the way; its first addend may lie where it goes.
    Sum { addends: [Rows<'c>; 2], sum: Rows<'c> },
    /// A gated product, kept on the way.
    Gated { x: Rows<'c>, gate: Rows<'c>, space: Ptr<'c> },
}

/// A norm with its input.
pub(crate) struct Normed<'c> {
    input: Input<'c>,
    pub norm: Norm<'c>,
    rows: Dim,
    pub width: u64,
}

impl<'c> Normed<'c> {
    /// The norm of that step.
    pub(crate) fn of(e: &Emit<'c, '_>, chain: &Chain, link: &Link) -> Result<Self, String> {
        let norm = Norm::of(e, link)?;
        let x = link.source("x").ok_or("a norm has an x")?;
        let extent = |layout: &Layout| (layout.ty.shape[0], layout.ty.width().unwrap_or(0));
        let giver = chain.giver(x);
        let (input, (rows, width)) = match giver.map(|giver| giver.op.name) {
            None => {
                let x = e.taken(link, "x")?;
                let input = if link.op.name == "gated_rms_norm" {
                    let gate = Rows::of(e, e.taken(link, "gate")?);
                    Input::Gated { x: Rows::of(e, x), gate, space: norm.space(e)? }
                } else {
                    Input::Plain(Rows::of(e, x))
                };
                (input, extent(x.1))
            }
            Some("gather_rows") if link.op.name == "rms_norm" => {
                let giver = giver.ok_or("named above")?;
                let (x, indices) = (e.taken(giver, "x")?, e.taken(giver, "rows")?);
                let input = Input::Gathered { x: Rows::of(e, x), indices: indices.0 };
                (input, (indices.1.ty.shape[0], extent(x.1).1))
            }
            Some("add") if link.op.name == "rms_norm" => {
                let giver = giver.ok_or("named above")?;
                let (a, b) = (e.taken(giver, "a")?, e.taken(giver, "b")?);
                let result = chain.result(giver, 0).ok_or("the normed sum is no result")?;
                let sum = Rows::of(e, e.result_at(result));
                (Input::Sum { addends: [Rows::of(e, a), Rows::of(e, b)], sum }, extent(a.1))
            }
            Some(other) => return Err(format!("`{}` of `{other}` in one kernel", link.op.name)),
        };
        Ok(Self { input, norm, rows, width })
    }

    /// How many rows there are.
    pub(crate) fn rows(&self, e: &Emit<'c, '_>) -> Int<'c> {
        e.dim(self.rows)
    }

    /// The extent that counts the rows.
    pub(crate) fn extent(&self) -> Dim {
        self.rows
    }

    /// Norms the group at `column` of a row.
    pub(crate) fn group(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>, target: (Ptr<'c>, Dtype)) {
        match self.input {
            Input::Plain(x) => {
                let load = |at, lanes| x.load(e, row, e.add(column, at), lanes);
                self.norm.apply(e, column, load, load, target);
            }
            Input::Gathered { x, indices } => {
                let index = e.load_int(indices, row);
                let there = e.cmp(IntPredicate::SGE, index, e.int(0));
                let load = |at, lanes| {
                    let value = e.choose(
                        there,
                        || vec![x.load(e, index, e.add(column, at), lanes).into()],
                        || vec![e.lanes(0.0).into()],
                    );
                    value[0].into_vector_value()
                };
                self.norm.apply(e, column, load, load, target);
            }
            Input::Sum { addends: [a, b], sum } => {
                let add = |at, lanes| {
                    let at = e.add(column, at);
                    let value = e.fadd(a.load(e, row, at, lanes), b.load(e, row, at, lanes));
                    let value = e.round(sum.dtype, value);
                    sum.store(e, row, at, lanes, value);
                    value
                };
                let load = |at, lanes| sum.load(e, row, e.add(column, at), lanes);
                self.norm.apply(e, column, add, load, target);
            }
            Input::Gated { x, gate, space } => {
                let place = |rows: Rows<'c>| (rows.at(e, row, column), rows.dtype);
                self.norm.gated(e, column, [place(x), place(gate)], space, target);
            }
        }
    }

    /// Norms a whole row.
    pub(crate) fn row(&self, e: &Emit<'c, '_>, row: Int<'c>, target: Rows<'c>) {
        e.step_by(e.int(0), e.int(self.width), self.norm.group, |column| {
            self.group(e, row, column, (target.at(e, row, column), target.dtype));
        });
    }
}
