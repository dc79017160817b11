//! What the forms of the scan share: extents, and where a head's inputs and state lie.

use nemo_ir::types::{Dim, Dtype};

use super::steps::StepSizes;
use crate::nvptx::{Chain, Emit, Float, Int, Link, Ptr, Written};
use crate::spec::{KernelSpec, Layout};

/// Elements that one access can take at every multiple of as many, in rows of `width` elements of all these tensors.
pub(super) fn piece(width: u64, layouts: &[&Layout]) -> u32 {
    let fits = 1_u32 << width.trailing_zeros().min(3);
    layouts.iter().map(|layout| layout.vector()).min().unwrap_or(1).min(fits)
}

/// Extents of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub heads: u64,
    pub groups: u64,
    pub head_dim: u64,
    pub state: u64,
}

impl Shape {
    pub fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let &[_, Dim::Const(heads), Dim::Const(state), Dim::Const(head_dim)] =
            &spec.layout_of(link, "ssm")?.ty.shape[..]
        else {
            return Err("the state's shape is not constant".to_owned());
        };
        Ok(Self { heads, groups: link.int("groups"), head_dim, state })
    }

    /// Elements of one head's state.
    pub fn head_state(&self) -> u64 {
        self.state * self.head_dim
    }

    /// Heads that share b and c.
    pub fn heads_per_group(&self) -> u64 {
        self.heads / self.groups
    }

    /// Columns of x that share b and c.
    pub fn group_width(&self) -> u64 {
        self.heads_per_group() * self.head_dim
    }
}

/// Columns of an operand, counted from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    /// The operand.
    place: usize,
    first: u64,
}

impl Columns {
    /// An operand of a step: one of the op, or a slice of one.
    pub fn of(spec: &KernelSpec, chain: &Chain, link: &Link, name: &str) -> Result<Self, String> {
        let source = link.source(name).ok_or_else(|| format!("`{}` has no `{name}`", link.op.name))?;
        match chain.giver(source) {
            None => {
                let place = spec.given(Some(source)).ok_or_else(|| format!("`{name}` is absent"))?;
                Ok(Self { place, first: 0 })
            }
            Some(slice) if slice.op.name == "slice" => {
                let whole = Self::of(spec, chain, slice, "x")?;
                Ok(Self { first: whole.first + slice.int("offset"), ..whole })
            }
            Some(other) => Err(format!("a scan of `{}` in one kernel", other.op.name)),
        }
    }

    pub fn layout(self, spec: &KernelSpec) -> &Layout {
        &spec.operands[self.place]
    }

    /// Elements that one access can take at every multiple of as many columns.
    pub fn vector(self, spec: &KernelSpec) -> u32 {
        self.layout(spec).vector().min(1 << self.first.trailing_zeros().min(3))
    }

    /// The address of a column.
    pub fn at<'c>(self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        let layout = self.layout(e.spec());
        e.at(e.row((e.arg(self.place), layout), row), layout.dtype(), e.plus(column, self.first))
    }

    /// `count` columns, `vector` of them by one access.
    pub fn load<'c>(
        self,
        e: &Emit<'c, '_>,
        row: Int<'c>,
        column: Int<'c>,
        (count, vector): (u32, u32),
    ) -> Vec<Float<'c>> {
        let dtype = self.layout(e.spec()).dtype();
        e.load(self.at(e, row, column), dtype, (count, vector), Written::Before)
    }
}

/// A scan: its extents, and which operands it takes.
#[derive(Clone, Copy)]
pub(super) struct Scan {
    pub shape: Shape,
    pub steps: StepSizes,
    a_log: usize,
    skip: usize,
    ssm: usize,
}

impl Scan {
    pub fn of(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Self, String> {
        let operand = |name: &str| {
            spec.given(link.source(name)).ok_or_else(|| format!("`{name}` of a scan is no operand"))
        };
        Ok(Self {
            shape: Shape::of(spec, link)?,
            steps: StepSizes::of(spec, chain, link)?,
            a_log: operand("a_log")?,
            skip: operand("d")?,
            ssm: operand("ssm")?,
        })
    }

    /// -exp(a_log) of a head.
    pub fn decay<'c>(&self, e: &Emit<'c, '_>, head: Int<'c>) -> Float<'c> {
        e.fneg(e.exp(self.scalar(e, self.a_log, head)))
    }

    /// Weight of the skip of a head.
    pub fn skip<'c>(&self, e: &Emit<'c, '_>, head: Int<'c>) -> Float<'c> {
        self.scalar(e, self.skip, head)
    }

    fn scalar<'c>(&self, e: &Emit<'c, '_>, place: usize, head: Int<'c>) -> Float<'c> {
        e.load_scalar(e.at(e.arg(place), Dtype::F32, head), Dtype::F32, Written::Before)
    }

    /// A head's state in a slot.
    pub fn state<'c>(&self, e: &Emit<'c, '_>, slot: Int<'c>, head: Int<'c>) -> Ptr<'c> {
        let index = e.add(e.times(e.long(slot), self.shape.heads), e.long(head));
        e.at(e.arg(self.ssm), Dtype::F32, e.times(index, self.shape.head_state()))
    }

    /// Elements of a state's row that one access can take.
    pub fn state_vector(&self, spec: &KernelSpec) -> u32 {
        let fits = 1_u64 << self.shape.head_dim.trailing_zeros().min(2);
        (spec.operands[self.ssm].align / 4).clamp(1, 4).min(fits) as u32
    }
}
