//! RMSNorm: x is read once and stays in registers where a group fits them.
//!
//! Each group has its *team*: some lanes of a warp, so that small groups share a CTA, or a CTA of its own. Where x comes
//! from is a matter of the chain: its own rows, rows chosen by index, a sum that is written on the way, a gated product.

mod held;
mod input;
mod streamed;
mod team;

use nemo_ir::types::Dtype;

use crate::nvptx::{Chain, Emit, Float, Int, Kernel, Link, Ptr};
use crate::spec::{KernelSpec, Layout};
use crate::target::Sm;
use input::Input;
use team::Team;

const F32: Dtype = Dtype::F32;

pub(crate) fn kernel(_sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let plan = Plan::of(spec, chain)?;
    let geometry = plan.team.geometry(plan.input.rows(spec), plan.groups);
    Ok(Kernel::new(geometry, move |e| {
        if plan.team.rounds() * plan.team.vector <= team::MOST_HELD {
            held::norm(e, &plan);
        } else {
            streamed::norm(e, &plan);
        }
        Ok(())
    }))
}

/// The norm itself: what makes a scale of a sum of squares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    /// Columns that share a scale.
    pub group: u64,
    /// Keeps the root away from zero.
    pub eps: f64,
}

impl Norm {
    pub(crate) fn of(link: &Link) -> Self {
        Self { group: link.int("group"), eps: link.float("eps") }
    }

    /// What the columns of a group are multiplied by.
    pub(crate) fn scale<'c>(self, e: &Emit<'c, '_>, squares: Float<'c>) -> Float<'c> {
        e.rsqrt(e.fma(squares, e.float(1.0 / self.group as f64), e.float(self.eps)))
    }
}

/// All that is known of a kernel before it is written.
#[derive(Debug, Clone, Copy)]
struct Plan {
    input: Input,
    norm: Norm,
    /// Groups of a row.
    groups: u64,
    /// Place of the weight among the operands, and whether one group's width of it serves every group.
    weight: usize,
    shared: bool,
    /// Place of y among the results.
    y: usize,
    team: Team,
}

impl Plan {
    fn of(spec: &KernelSpec, chain: &Chain) -> Result<Self, String> {
        let is_norm = |link: &&Link| matches!(link.op.name, "rms_norm" | "gated_rms_norm");
        let link = chain.links.last().filter(is_norm).ok_or("the op has no generator")?;
        let norm = Norm::of(link);
        let input = Input::of(spec, chain, link)?;
        let what = || format!("the weight of `{}` is no operand", spec.op.name);
        let weight = spec.given(link.source("weight")).ok_or_else(what)?;
        let shared = spec.operands[weight].ty.width() == Some(norm.group);
        let y = spec.result_place(chain.result(link, 0).ok_or("the norm gives no result")?);
        let width = spec.results[y].ty.width().ok_or("the width is not constant")?;
        if width > u64::from(u32::MAX >> 3) {
            return Err(format!("a row of {width} columns exceeds what 32 bits index"));
        }
        let layouts = input.layouts(spec).into_iter().chain([&spec.operands[weight], &spec.results[y]]);
        let vector = layouts.map(Layout::vector).min().unwrap_or(1);
        let team = Team::of(norm.group, vector);
        Ok(Self { input, norm, groups: width / norm.group, weight, shared, y, team })
    }

    /// Where this thread's first weights are.
    fn weights<'c>(&self, e: &Emit<'c, '_>, group: Int<'c>, first: Int<'c>) -> Ptr<'c> {
        let column = if self.shared { first } else { e.add(e.times(group, self.norm.group), first) };
        e.at(e.arg(self.weight), F32, column)
    }

    /// Where this thread's first columns of y go, and as what.
    fn target<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, group: Int<'c>, first: Int<'c>) -> (Ptr<'c>, Dtype) {
        let layout = &e.spec().results[self.y];
        let y = e.row((e.arg(e.spec().operands.len() + self.y), layout), row);
        let column = e.add(e.times(group, self.norm.group), first);
        (e.at(y, layout.dtype(), column), layout.dtype())
    }
}
