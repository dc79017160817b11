//! The paged KV cache: pages of 64 tokens, `[page, keys and values, kv_head, token, head_dim]`.

use inkwell::IntPredicate;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Dim, Dtype};

use super::rope::Angles;
use crate::host::{Emit, Int, Ptr, Rows, Sequence};

/// Extents of the cache.
#[derive(Clone, Copy)]
pub(crate) struct Cache {
    pub heads: u64,
    pub head_dim: u64,
    pub dtype: Dtype,
}

impl Cache {
    pub(crate) fn of(e: &Emit<'_, '_>) -> Result<Self, String> {
        let (_, layout) = e.operand("kv");
        match layout.ty.shape[..] {
            [_, _, Dim::Const(heads), _, Dim::Const(head_dim)] => {
                Ok(Self { heads, head_dim, dtype: layout.dtype() })
            }
            _ => Err("the cache's shape is not constant".to_owned()),
        }
    }

    /// The page of a sequence that holds a position; negative where there is none.
    pub(super) fn page<'c>(e: &Emit<'c, '_>, sequence: Sequence<'c>, position: Int<'c>) -> Int<'c> {
        let (pages, layout) = e.operand("pages");
        let per_sequence = e.dim(layout.ty.shape[1]);
        let place = e.div(position, e.int(PAGE_TOKENS));
        e.load_int(pages, e.add(e.mul(sequence.index, per_sequence), place))
    }

    /// Keys (part 0) or values (part 1) of a head in a page: `[token, head_dim]`.
    pub(super) fn block<'c>(&self, e: &Emit<'c, '_>, page: Int<'c>, part: u64, head: Int<'c>) -> Ptr<'c> {
        let (base, _) = e.operand("kv");
        let block = e.add(e.times(e.plus(e.times(page, 2), part), self.heads), head);
        e.at(base, self.dtype, e.times(block, PAGE_TOKENS * self.head_dim))
    }
}

/// Position in its sequence of a row of the step.
pub(super) fn position<'c>(e: &Emit<'c, '_>, sequence: Sequence<'c>, row: Int<'c>) -> Int<'c> {
    let (context, _) = e.operand("context");
    e.add(e.load_int(context, sequence.index), e.sub(row, sequence.start))
}

/// Where the keys (part 0) or values (part 1) of a head and row go; runs `body` where there is a page.
pub(crate) fn when_placed<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    (sequence, row): (Sequence<'c>, Int<'c>),
    body: impl FnOnce(&dyn Fn(u64, Int<'c>) -> Ptr<'c>),
) {
    let position = position(e, sequence, row);
    let page = Cache::page(e, sequence, position);
    e.when(e.cmp(IntPredicate::SGE, page, e.int(0)), || {
        let token = e.times(e.rem(position, e.int(PAGE_TOKENS)), cache.head_dim);
        body(&|part, head| e.at(cache.block(e, page, part, head), cache.dtype, token));
    });
}

/// One head's line on its way to the cache.
pub(crate) fn append<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    row: Int<'c>,
    angles: Option<Angles<'c>>,
    (from, dtype): (Ptr<'c>, Dtype),
    to: Ptr<'c>,
) {
    match angles {
        Some(angles) => angles.rotate(e, row, (from, dtype), (to, cache.dtype)),
        None => e.columns(cache.head_dim, |at, lanes| {
            let value = e.load(e.at(from, dtype, at), dtype, lanes);
            e.store(e.at(to, cache.dtype, at), cache.dtype, lanes, value);
        }),
    }
}

/// Keys and values, either of them rotated where the chain says so.
pub(super) fn kv_append(e: &Emit<'_, '_>) -> Result<(), String> {
    let cache = Cache::of(e)?;
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let mut parts = Vec::new();
    let mut rows = None;
    for name in ["k", "v"] {
        let rope = link.source(name).and_then(|source| chain.giver(source));
        let angles = rope.map(|rope| Angles::of(e, rope)).transpose()?;
        let source = rope.map_or_else(|| e.taken(link, name), |rope| e.taken(rope, "x"))?;
        rows = Some(source.1.ty.shape[0]);
        parts.push((Rows::of(e, source), angles));
    }
    let share = e.share(e.dim(rows.ok_or("there are two parts")?));
    e.each_sequence_row(share, |sequence, row| {
        when_placed(e, cache, (sequence, row), |place| {
            for (part, (source, angles)) in (0..).zip(&parts) {
                e.each(e.int(0), e.int(cache.heads), |head| {
                    let from = source.at(e, row, e.times(head, cache.head_dim));
                    append(e, cache, row, *angles, (from, source.dtype), place(part, head));
                });
            }
        });
    });
    Ok(())
}
