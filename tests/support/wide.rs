//! Shapes and steps that tensor cores take: products of many rows through tiles, of warpgroups where there are columns
//! enough, heads as wide as those of systems.

use nemo_ir::interp::{Logits, Sequence, Step};
use nemo_ir::ops::{Op, Recipe};
use nemo_ir::plan::Phase;

use crate::drawn::{BF16, DTYPES, Dtypes, EXTENTS, Extents, steps, token};

/// Everything in bf16.
pub const ALL_BF16: Dtypes = Dtypes { x: BF16, weight: BF16, inner: BF16, y: BF16 };

/// K in whole pieces, and columns that need not be.
pub const NARROW: Extents = Extents {
    k: 80,
    n: 36,
    group: 16,
    attention: (4, 2, 40),
    scan: (4, 2, 16, 16),
    taps: 4,
    tile: 256,
    window: 0,
    bias: true,
};

/// Columns enough for warpgroups of 128 each.
pub const COLUMNS_OF_128: Extents = Extents { n: 2200, attention: (36, 18, 64), tile: 128, ..NARROW };

/// Extents with steps that are drawn for them.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The extents.
    pub extents: Extents,
    /// How tensors are stored.
    pub dtypes: Dtypes,
    /// Steps, and the phases whose programs run them.
    pub steps: Vec<(Step, &'static [Phase])>,
    /// Only ops with a product.
    pub products: bool,
}

impl Drawing {
    /// Whether it is drawn for an op.
    pub fn takes(&self, op: Op) -> bool {
        !self.products || op.name == "linear" || Recipe::of(op).is_some_and(|of| of.step("linear").is_some())
    }
}

/// What a bundle is drawn from: small extents of every kind, then wide ones.
pub fn drawings() -> Vec<Drawing> {
    let small = EXTENTS.iter().zip(DTYPES).map(|(extents, dtypes)| Drawing {
        extents: *extents,
        dtypes,
        steps: steps().into_iter().map(|step| (step, &Phase::ALL[..])).collect(),
        products: false,
    });
    let prefill = || vec![(prompts(), &[Phase::Prefill][..])];
    // A step of each range that decode kernels are made for.
    let decode = [12, 33, 100].map(|count| (singles(count), &[Phase::Decode][..]));
    let heads = Extents { k: 296, n: 56, group: 296, attention: (10, 2, 128), ..NARROW };
    let heads = Extents { scan: (4, 2, 80, 128), ..heads };
    let many = Extents { n: 4400, ..NARROW };
    let drawing = |extents, steps, products| Drawing { extents, dtypes: ALL_BF16, steps, products };
    small
        .chain([
            drawing(heads, [prefill(), decode.to_vec()].concat(), false),
            drawing(NARROW, [prefill(), decode.to_vec()].concat(), false),
            drawing(COLUMNS_OF_128, prefill(), true),
            drawing(many, prefill(), true),
        ])
        .collect()
}

/// Several sequences, one of which begins inside a tile, and padding.
pub fn prompts() -> Step {
    let sequence = |tokens: usize, context: i32, slot: i32, pages: &[i32]| Sequence {
        tokens: (0..tokens).map(|n| token(context as usize + n)).collect(),
        context,
        slot_in: slot,
        slot_out: slot,
        pages: pages.to_vec(),
        ..Sequence::default()
    };
    let padded =
        Sequence { tokens: vec![-1], pages: vec![-1], slot_in: -1, slot_out: -1, ..Sequence::default() };
    Step::of(&[sequence(70, 3, 0, &[4, 0]), sequence(59, 0, 1, &[1, -1]), padded])
}

/// So many tokens of a sequence each: the first three have slots, the last is padded where there are more. Sequences
/// share pages, for no op both reads and writes them, and each writes to a place of its own.
pub fn singles(count: usize) -> Step {
    let kept = [(0, 70, [4, 0]), (1, 9, [1, -1]), (2, 100, [3, 2])];
    let sequence = |index: usize| {
        let shared = [(index + 1) as i32 % 6, (index + 2) as i32 % 6];
        let (slot, context, pages) = kept.get(index).copied().unwrap_or((-1, 13 + index as i32, shared));
        Sequence {
            tokens: vec![token(index)],
            context,
            slot_in: if index == 1 { -1 } else { slot },
            slot_out: slot,
            pages: pages.to_vec(),
            logits: Logits::Last,
            ..Sequence::default()
        }
    };
    let padded =
        Sequence { tokens: vec![-1], logits: Logits::None, pages: vec![-1, -1], ..Sequence::default() };
    let mut sequences: Vec<_> = (0..count).map(sequence).collect();
    if count > kept.len() {
        sequences[count - 1] = padded;
    }
    Step::of(&sequences)
}
