//! Tiles that several CTAs share, each with a stretch of K.

use nemo_ir::types::Dtype;

use crate::nvptx::{Emit, Float, Int, Ptr, Written};

/// Puts this CTA's sums of a tile aside. The last of its `splits` CTAs adds those of all, in the order of K, and has `leave`
/// take them. Sums of a tile take so many bytes; `flag` is an i32 in shared memory.
pub(super) fn combine<'c>(
    e: &Emit<'c, '_>,
    (splits, bytes): (u32, u64),
    (tile, flag): (Int<'c>, Ptr<'c>),
    sums: &[Float<'c>],
    leave: impl FnOnce(&[Float<'c>]),
) {
    // Threads hold the same elements in every CTA, so sums lie as threads hold them: four by four, thread by thread.
    let threads = e.threads();
    let first = e.times(e.long(e.times(tile, splits.into())), bytes);
    let own = e.offset(e.offset(e.partials(), first), e.times(e.thread(), 16));
    let at = |split: Int<'c>, four: usize| {
        let place = e.offset(own, e.times(e.long(split), bytes));
        e.offset(place, e.word(four as u32 * threads * 16))
    };
    for (four, sums) in sums.chunks(4).enumerate() {
        e.store(at(e.cta(1), four), Dtype::F32, sums, 4);
    }
    let counter = e.at(e.counters(), Dtype::I32, tile);
    let last = e.is_last_cta(counter, e.word(splits), flag);
    e.when(last, || {
        let load = |split: Int<'c>| {
            let four = |four| e.load(at(split, four), Dtype::F32, (4, 4), Written::Now);
            (0..sums.len() / 4).flat_map(four).collect::<Vec<_>>()
        };
        let start: Vec<_> = load(e.word(0)).into_iter().map(Into::into).collect();
        let all = e.fold((e.word(1), e.word(splits), 1), &start, |split, sums| {
            let more = load(split).into_iter().zip(sums);
            more.map(|(more, sum)| e.fadd(sum.into_float_value(), more).into()).collect()
        });
        let all: Vec<_> = all.into_iter().map(|sum| sum.into_float_value()).collect();
        leave(&all);
    });
}
