//! The rotation of a tensor: a thread takes a stretch of pairs, and the same stretch of several heads, so that angles are
//! read once for them.

use inkwell::IntPredicate;
use nemo_ir::plan::Extent;

use super::rope::{self, Angles};
use crate::nvptx::{Chain, Emit, Kernel, Written, geometry};
use crate::spec::KernelSpec;

/// The most threads of a CTA.
const THREADS: u64 = 128;
/// The most heads of a thread.
const HEADS: u64 = 4;

/// How heads are shared out.
#[derive(Debug, Clone, Copy)]
struct Shares {
    head_dim: u64,
    /// Pairs that a thread takes of a head.
    vector: u32,
    /// Such stretches of a head.
    stretches: u64,
    /// Heads of a thread: it takes every `groups`-th.
    heads: u64,
    groups: u64,
}

pub(super) fn kernel(spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let link = chain.links.last().ok_or("the chain is empty")?;
    let (x, y) = (spec.layout_of(link, "x")?, &spec.results[0]);
    let head_dim = rope::head_dim(spec, link)?;
    let all = y.ty.width().ok_or("the result has no rows")? / head_dim;
    let vector = rope::vector(head_dim, x.vector().min(y.vector()));
    let heads = (1..=HEADS).rev().find(|heads| all.is_multiple_of(*heads)).unwrap_or(1);
    let stretches = head_dim / 2 / u64::from(vector);
    let shares = Shares { head_dim, vector, stretches, heads, groups: all / heads };
    let items = stretches * shares.groups;
    let threads = items.next_multiple_of(32).min(THREADS);
    let grid = [Extent::Const(items.div_ceil(threads)), geometry::rows(y.ty.shape[0]), Extent::Const(1)];
    let geometry = geometry::of(grid, threads as u32);
    Ok(Kernel::new(geometry, move |e| rotate(e, shares, items)))
}

fn rotate(e: &Emit<'_, '_>, shares: Shares, items: u64) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let (x, y) = (e.taken(link, "x")?, e.result());
    let angles = Angles::of(e, link)?;
    let Shares { head_dim, vector, stretches, heads, groups } = shares;
    let row = e.cta(1);
    let item = e.add(e.times(e.cta(0), e.threads().into()), e.thread());
    e.when(e.cmp(IntPredicate::ULT, item, e.word(items as u32)), || {
        let first = e.times(e.rem(item, e.word(stretches as u32)), vector.into());
        let group = e.div(item, e.word(stretches as u32));
        let turns = angles.turns(e, row, first, (vector, vector));
        let column = |index: u64, half: u64| {
            let head = e.plus(group, index * groups);
            e.plus(e.add(e.times(head, head_dim), first), half * (head_dim / 2))
        };
        let load = |index, half| {
            let place = e.at(e.row(x, row), x.1.dtype(), column(index, half));
            e.load(place, x.1.dtype(), (vector, vector), Written::Now)
        };
        let values: Vec<_> = (0..heads).map(|index| [load(index, 0), load(index, 1)]).collect();
        for (index, [low, high]) in (0..).zip(&values) {
            let turned = turns.rotate_all(e, [low, high]);
            for (half, turned) in (0..).zip(turned) {
                let place = e.at(e.row(y, row), y.1.dtype(), column(index, half));
                e.store(place, y.1.dtype(), &turned, vector);
            }
        }
    });
    Ok(())
}
