//! One token a sequence: splits share the context of a KV head, and the last of them to end puts the results together.
//!
//! A CTA serves the query heads of one KV head, so that each key and value is read once for all of them. Split s takes every
//! S-th page from the s-th on; its warps share the tokens of each page. The number of splits is a matter of the range of
//! steps; a sequence with fewer pages than splits leaves the others without work.

use inkwell::IntPredicate;
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::merge::{self, Merge, Partials};
use super::{Shape, exact, tensor};
use crate::attention::nvptx::cache::Cache;
use crate::nvptx::{Any, COMBINING, Emit, Int, Kernel, Needs, geometry};
use crate::spec::{KernelSpec, Steps};
use crate::target::Sm;

/// Warps of a CTA; each takes its quarter of a page.
pub(super) const WARPS: u32 = 4;
/// Tokens of a page that a warp takes.
pub(super) const WARP_TOKENS: u64 = PAGE_TOKENS / WARPS as u64;
/// The fewest splits, so that one long context among short ones does not end long after them. A short one leaves splits
/// without work, which end at once.
const MIN_SPLITS: u64 = 4;
/// The most splits: a warp's lanes weigh one each when they are put together.
const MAX_SPLITS: u64 = 32;

/// How heads and context are shared out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// Query heads of a CTA.
    pub heads: u64,
    /// CTAs for the query heads of a KV head.
    pub tiles: u64,
    /// CTAs that share a context.
    pub splits: u64,
}

impl Shares {
    fn of(sm: Sm, steps: Steps, shape: &Shape) -> Self {
        let most = if shape.tensor { tensor::MAX_HEADS } else { exact::queries(shape) };
        let tiles = shape.group.div_ceil(most);
        let heads = shape.group.div_ceil(tiles);
        // Two CTAs for each SM, at the middle of the range; a power of two.
        let tokens = (steps.min_tokens.max(1) * steps.max_tokens.max(1)).isqrt();
        let wanted = (2 * sm.multiprocessors() / (tokens * tiles * shape.cache.heads)).max(1);
        let splits = (1 << wanted.ilog2()).clamp(MIN_SPLITS, MAX_SPLITS);
        Self { heads, tiles, splits }
    }
}

/// What a warp of a CTA works on.
#[derive(Clone, Copy)]
pub(super) struct Work<'c> {
    /// The sequence, which is the row.
    pub sequence: Int<'c>,
    /// The KV head.
    pub kv_head: Int<'c>,
    /// First query head and how many of the CTA's heads there are.
    pub heads: (Int<'c>, Int<'c>),
    /// First token that the row sees, and one past the last.
    pub span: (Int<'c>, Int<'c>),
    /// First page of the split, and one past the last.
    pub pages: (Int<'c>, Int<'c>),
    /// Pages from one of the split to the next.
    pub stride: u64,
}

impl<'c> Work<'c> {
    /// Goes through the pages of the split that exist, and of which the warp has tokens to see. `body` gets the page and the
    /// first and one past the last token of the page that the row sees, and carries values along.
    pub fn fold(
        &self,
        e: &Emit<'c, '_>,
        initial: &[Any<'c>],
        body: impl FnOnce(Int<'c>, (Int<'c>, Int<'c>), &[Any<'c>]) -> Vec<Any<'c>>,
    ) -> Vec<Any<'c>> {
        let (from, to) = self.pages;
        let warp_first = e.times(e.warp(), WARP_TOKENS);
        let last = e.sub(to, e.word(1));
        // The number of the next page is there before it is needed.
        let first_page = Cache::page(e, self.sequence, e.min(from, last));
        let mut all = vec![first_page.into()];
        all.extend(initial);
        let state = e.fold((from, to, self.stride), &all, |index, state| {
            let page = state[0].into_int_value();
            let next = Cache::page(e, self.sequence, e.min(e.plus(index, self.stride), last));
            let base = e.times(index, PAGE_TOKENS);
            let (low, high) = (e.sub(self.span.0, base), e.sub(self.span.1, base));
            let exists = e.cmp(IntPredicate::SGE, page, e.word(0));
            let below = e.cmp(IntPredicate::SLT, warp_first, high);
            let above = e.cmp(IntPredicate::SGT, e.plus(warp_first, WARP_TOKENS), low);
            let seen = e.and(exists, e.and(below, above));
            let mut all = vec![next.into()];
            all.extend(e.choose(seen, || body(page, (low, high), &state[1..]), || state[1..].to_vec()));
            all
        });
        state[1..].to_vec()
    }
}

pub(super) fn kernel(sm: Sm, spec: &KernelSpec, steps: Steps, shape: Shape) -> Kernel {
    let shares = Shares::of(sm, steps, &shape);
    let Shares { heads, tiles, splits } = shares;
    let head_tiles = tiles * shape.cache.heads;
    let merge = Merge::new(&shape, heads, splits);
    let rows = geometry::rows(spec.operand("q").1.ty.shape[0]);
    let grid = [Extent::Const(head_tiles * splits), rows, Extent::Const(1)];
    let geometry = Geometry {
        shared: merge.shared_bytes(),
        counters: steps.max_seqs * head_tiles,
        partials: steps.max_seqs * head_tiles * splits * merge.partial_bytes(),
        ..geometry::of(grid, 32 * WARPS)
    };
    // Loads of several CTAs overlap; more than eight heads need more registers.
    let resident = if heads > 8 { 2 } else { 3 };
    // The page's number, its keys, its values.
    let waits = 3 + if splits > 1 { COMBINING } else { 0 };
    let under_way = 64 * u64::from(geometry.threads);
    let needs = Needs { waits, ..Needs::of_residents(geometry.threads, resident, under_way) };
    Kernel::needing(geometry, needs, move |e| {
        e.resident(resident);
        body(e, shape, shares, merge);
        Ok(())
    })
}

fn body(e: &Emit<'_, '_>, shape: Shape, shares: Shares, merge: Merge) {
    let Shares { heads, tiles, splits } = shares;
    let space = merge::Space::of(e, &merge);
    let row = e.cta(1);
    let (split, tile) = (e.rem(e.cta(0), e.word(splits as u32)), e.div(e.cta(0), e.word(splits as u32)));
    let kv_head = e.div(tile, e.word(tiles as u32));
    let within = e.times(e.rem(tile, e.word(tiles as u32)), heads);
    let first_head = e.add(e.times(kv_head, shape.group), within);
    let count = e.min(e.sub(e.word(shape.group as u32), within), e.word(heads as u32));
    // In decode the row is the sequence's first token of the step.
    let position = e.load_int(e.operand("context").0, row);
    let span = (shape.first_seen(e, position), e.plus(position, 1));
    let page_bits = u64::from(PAGE_TOKENS.ilog2());
    let first_page = e.shift_right(span.0, page_bits);
    let end_page = e.plus(e.shift_right(position, page_bits), 1);
    let active = e.min(e.sub(end_page, first_page), e.word(splits as u32));
    e.when(e.cmp(IntPredicate::ULT, split, active), || {
        let work = Work {
            sequence: row,
            kv_head,
            heads: (first_head, count),
            span,
            pages: (e.add(first_page, split), end_page),
            stride: splits,
        };
        if shape.tensor {
            tensor::attend(e, &shape, &merge, &space, work);
        } else {
            exact::attend(e, &shape, &merge, &space, work);
        }
        e.barrier();
        let alone = e.cmp(IntPredicate::EQ, active, e.word(1));
        let result = |head, column, sums: &[_]| {
            let (y, layout) = e.result();
            let at = e.add(e.times(e.add(first_head, head), shape.cache.head_dim), column);
            let place = e.at(e.row((y, layout), row), layout.dtype(), at);
            e.store(place, layout.dtype(), sums, shape.vectors.1);
        };
        let group = e.add(e.times(row, tiles * shape.cache.heads), tile);
        let partials = Partials::of(e, &merge, group);
        e.choose(
            alone,
            || {
                merge::warps_to_result(e, &shape, &merge, &space, count, result);
                Vec::new()
            },
            || {
                merge::warps_to_partial(e, &shape, &merge, &space, count, (&partials, split));
                let counter = e.at(e.counters(), Dtype::I32, group);
                let last = e.is_last_cta(counter, active, space.flag);
                e.when(last, || {
                    merge::splits_to_result(e, &shape, &merge, &space, (count, active), &partials, result);
                });
                Vec::new()
            },
        );
    });
}
