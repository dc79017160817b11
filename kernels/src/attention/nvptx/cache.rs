//! The paged KV cache: pages of 64 tokens, `[page, keys and values, kv_head, token, head_dim]`.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Dim, Dtype};

use crate::nvptx::{Emit, Int, Ptr};
use crate::spec::KernelSpec;

/// Extents of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache {
    /// KV heads.
    pub heads: u64,
    /// Elements of a key or a value.
    pub head_dim: u64,
    /// Element type.
    pub dtype: Dtype,
    /// Elements that one access can take from the start of any key or value.
    pub vector: u32,
}

/// The place of one row of the step in the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'c> {
    cache: Cache,
    /// Its page; negative where there is none.
    page: Int<'c>,
    /// Its token in the page.
    token: Int<'c>,
}

impl Cache {
    /// The cache that is the op's operand `kv`.
    pub fn of(spec: &KernelSpec) -> Result<Self, String> {
        let (_, layout) = spec.operand("kv");
        match layout.ty.shape[..] {
            [_, _, Dim::Const(heads), _, Dim::Const(head_dim)] => {
                Ok(Self { heads, head_dim, dtype: layout.dtype(), vector: layout.vector() })
            }
            _ => Err("the cache's shape is not constant".to_owned()),
        }
    }

    /// The page that holds the 64 positions from `64 * index` on, of a sequence; negative where there is none.
    pub fn page<'c>(e: &Emit<'c, '_>, sequence: Int<'c>, index: Int<'c>) -> Int<'c> {
        let (pages, layout) = e.operand("pages");
        let per_sequence = e.dim(layout.ty.shape[1]);
        e.load_int(pages, e.add(e.mul(sequence, per_sequence), index))
    }

    /// Keys (part 0) or values (part 1) of a head in a page: `[64, head_dim]`, without gaps.
    pub fn block<'c>(&self, e: &Emit<'c, '_>, page: Int<'c>, part: u64, head: Int<'c>) -> Ptr<'c> {
        let (base, _) = e.operand("kv");
        let block = e.add(e.times(e.plus(e.times(e.long(page), 2), part), self.heads), e.long(head));
        e.at(base, self.dtype, e.times(block, PAGE_TOKENS * self.head_dim))
    }
}

impl<'c> Place<'c> {
    /// The place of a row that exists (an i32 below T). All threads may ask for rows of their own.
    pub fn of_row(e: &Emit<'c, '_>, cache: Cache, row: Int<'c>) -> Self {
        let (seq_start, context) = (e.operand("seq_start").0, e.operand("context").0);
        let sequence = sequence_of(e, row);
        let offset = e.sub(row, e.load_int(seq_start, sequence));
        let position = e.add(e.load_int(context, sequence), offset);
        // Rows behind the last sequence have no place, and their pages are not in the table.
        let inside = e.cmp(IntPredicate::SLT, row, e.load_int(seq_start, e.plus(sequence, 1)));
        let page = e.choose(
            inside,
            || vec![Cache::page(e, sequence, e.shift_right(position, PAGE_TOKENS.ilog2().into())).into()],
            || vec![e.word(u32::MAX).into()],
        );
        let token = e.and(position, e.word(PAGE_TOKENS as u32 - 1));
        Self { cache, page: page[0].into_int_value(), token }
    }

    /// Whether there is a page to write to (i1).
    pub fn exists(&self, e: &Emit<'c, '_>) -> IntValue<'c> {
        e.cmp(IntPredicate::SGE, self.page, e.word(0))
    }

    /// Where element `column` of the row's key (part 0) or value (part 1) of a head goes. Only where
    /// the place exists.
    pub fn at(&self, e: &Emit<'c, '_>, part: u64, head: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        let block = self.cache.block(e, self.page, part, head);
        let element = e.add(e.times(self.token, self.cache.head_dim), column);
        e.at(block, self.cache.dtype, element)
    }
}

/// The sequence that a row below T belongs to; for rows behind the last sequence, the last one.
pub(crate) fn sequence_of<'c>(e: &Emit<'c, '_>, row: Int<'c>) -> Int<'c> {
    if e.steps().phase == Phase::Decode {
        return row;
    }
    let (seq_start, layout) = e.operand("seq_start");
    let last = e.sub(e.dim(layout.ty.shape[0]), e.word(1));
    find_last(e, last, |sequence| e.cmp(IntPredicate::SLE, e.load_int(seq_start, sequence), row))
}

/// The last sequence up to `last` for which an ascending condition holds; the first one always counts.
pub(super) fn find_last<'c>(
    e: &Emit<'c, '_>,
    last: Int<'c>,
    holds: impl Fn(Int<'c>) -> IntValue<'c>,
) -> Int<'c> {
    // The answer is put together from its highest bit on.
    let mut found = e.word(0);
    for bit in (0..u64::BITS - e.steps().max_seqs.saturating_sub(1).leading_zeros()).rev() {
        let next = e.plus(found, 1 << bit);
        let within = e.cmp(IntPredicate::SLE, next, last);
        let accepted = e.and(within, holds(e.min(next, last)));
        found = e.select(accepted, next, found);
    }
    found
}
