//! The step contract: what the runtime gives a program, and what it gets back.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{Dim, Dtype, Symbol, Type, UnknownWord};

/// Tokens in one KV page.
pub const PAGE_TOKENS: u64 = 64;

/// Tokens in one tile of the chunked scan. A prompt that is cut between steps only at multiples of it has
/// the same tiles, and so the same bits, however it is cut.
pub const TILE_TOKENS: u64 = 64;

/// What `next` holds for a sequence none of whose rows wants logits.
pub const NO_TOKEN: i32 = -1;

/// What `next` holds for a sequence with a NaN among its logits: weights or activations are damaged.
pub const NOT_A_NUMBER: i32 = -2;

/// One named input of a step.
///
/// Shapes use `T` tokens and `R` sequences in the step, `L` rows that want logits and `P` pages per
/// sequence. Padded rows carry slot and page -1 and write nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepInput {
    /// `i32[T]`: token ids, sequences one after the other.
    Tokens,
    /// `i32[T]`: position of each token in its sequence.
    Positions,
    /// `i32[R+1]`: first row of each sequence, and the end. Given the type `i32[R]`; the kernels know
    /// that one more element follows.
    SeqStart,
    /// `i32[R]`: state slot read; -1 starts from zeros.
    SlotIn,
    /// `i32[R]`: state slot written; -1 writes nothing.
    SlotOut,
    /// `i32[R]`: tokens already in the KV cache.
    Context,
    /// `i32[R,P]`: KV block table, 64 tokens a page; -1 is no page.
    Pages,
    /// `i32[L]`: rows of the step that want logits, ascending.
    Rows,
    /// `i32[R]`: -1 samples; anything else is the answer.
    Forced,
    /// `f32[R]`: 0 is greedy.
    Temperature,
    /// `i32[R]`: 0 is off.
    TopK,
    /// `f32[R]`: 1 is off.
    TopP,
    /// `f32[R]`: 0 is off.
    MinP,
    /// `i32[R,2]`: two unsigned words that key the counter-based generator.
    Seed,
}

impl StepInput {
    /// Every input, in the order of the contract.
    pub const ALL: [Self; 14] = [
        Self::Tokens,
        Self::Positions,
        Self::SeqStart,
        Self::SlotIn,
        Self::SlotOut,
        Self::Context,
        Self::Pages,
        Self::Rows,
        Self::Forced,
        Self::Temperature,
        Self::TopK,
        Self::TopP,
        Self::MinP,
        Self::Seed,
    ];

    /// The spelling in text forms, without the `$`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Positions => "positions",
            Self::SeqStart => "seq_start",
            Self::SlotIn => "slot_in",
            Self::SlotOut => "slot_out",
            Self::Context => "context",
            Self::Pages => "pages",
            Self::Rows => "rows",
            Self::Forced => "forced",
            Self::Temperature => "temperature",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::Seed => "seed",
        }
    }

    /// The type that operands of this input have.
    pub fn ty(self) -> Type {
        let (dtype, shape) = match self {
            Self::Tokens | Self::Positions => (Dtype::I32, vec![Symbol::T.into()]),
            Self::Pages => (Dtype::I32, vec![Symbol::R.into(), Symbol::P.into()]),
            Self::Rows => (Dtype::I32, vec![Symbol::L.into()]),
            Self::Temperature | Self::TopP | Self::MinP => (Dtype::F32, vec![Symbol::R.into()]),
            Self::Seed => (Dtype::I32, vec![Symbol::R.into(), Dim::Const(2)]),
            Self::SeqStart | Self::SlotIn | Self::SlotOut | Self::Context | Self::Forced | Self::TopK => {
                (Dtype::I32, vec![Symbol::R.into()])
            }
        };
        Type { dtype, shape }
    }
}

impl FromStr for StepInput {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|input| input.name() == word).ok_or_else(|| UnknownWord {
            found: word.to_owned(),
            wanted: "step input ($tokens, $positions, …)",
        })
    }
}

/// The values of the step's symbols as kernels read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StepDims {
    /// Tokens in the step.
    pub tokens: u64,
    /// Sequences in the step.
    pub seqs: u64,
    /// Rows that want logits.
    pub rows: u64,
    /// Pages per sequence in the block table.
    pub pages: u64,
}

impl StepDims {
    /// The value of a symbol of the step; 0 for slots and pages, which are the engine's.
    pub fn of(&self, symbol: Symbol) -> u64 {
        match symbol {
            Symbol::T => self.tokens,
            Symbol::R => self.seqs,
            Symbol::L => self.rows,
            Symbol::P => self.pages,
            Symbol::S | Symbol::N => 0,
        }
    }
}
