//! The paged KV cache: pages of 64 tokens, `[page, keys and values, kv_head, token, head_dim]`.

use inkwell::IntPredicate;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Dim, Dtype};

use crate::host::{Emit, Int, Ptr, Sequence};

/// Extents of the cache.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub heads: u64,
    pub head_dim: u64,
    pub dtype: Dtype,
}

impl Cache {
    pub(super) fn of(e: &Emit<'_, '_>) -> Result<Self, String> {
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

pub(super) fn kv_append(e: &Emit<'_, '_>) -> Result<(), String> {
    let cache = Cache::of(e)?;
    let (_, layout) = e.operand("k");
    let share = e.share(e.dim(layout.ty.shape[0]));
    e.each_sequence_row(share, |sequence, row| {
        let position = position(e, sequence, row);
        let page = Cache::page(e, sequence, position);
        e.when(e.cmp(IntPredicate::SGE, page, e.int(0)), || {
            let token = e.times(e.rem(position, e.int(PAGE_TOKENS)), cache.head_dim);
            for (part, name) in ["k", "v"].into_iter().enumerate() {
                let source = e.operand(name);
                let line = e.row(source, row);
                e.each(e.int(0), e.int(cache.heads), |head| {
                    let from = e.at(line, source.1.dtype(), e.times(head, cache.head_dim));
                    let to = e.at(cache.block(e, page, part as u64, head), cache.dtype, token);
                    e.columns(cache.head_dim, |at, lanes| {
                        let value = e.load(e.at(from, source.1.dtype(), at), source.1.dtype(), lanes);
                        e.store(e.at(to, cache.dtype, at), cache.dtype, lanes, value);
                    });
                });
            }
        });
    });
    Ok(())
}
