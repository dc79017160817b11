//! A step as the caller gives it, and the checks that make it safe to run.

mod check;

use nemo_ir::plan::{Phase, Plan, StateUnit};
use nemo_ir::step::{PAGE_TOKENS, StepInput};
use thiserror::Error;

pub(crate) use check::{CheckedStep, Written};

use crate::device::DeviceError;

/// The inputs of one step: the contract of `nemo_ir::step`, as slices.
///
/// With T tokens, R sequences, L rows and P pages per sequence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step<'a> {
    /// Which phase's programs run it; `None` takes `decode` where every sequence has one token and every row
    /// wants logits, and `prefill` otherwise.
    pub phase: Option<Phase>,
    /// `[T]` token ids, sequences one after the other.
    pub tokens: &'a [i32],
    /// `[T]` position of each token in its sequence.
    pub positions: &'a [i32],
    /// `[R + 1]` first row of each sequence, and the end.
    pub seq_start: &'a [i32],
    /// `[R]` state slot read; -1 starts from zeros.
    pub slot_in: &'a [i32],
    /// `[R]` state slot written; -1 writes nothing.
    pub slot_out: &'a [i32],
    /// `[R]` tokens already in the KV cache.
    pub context: &'a [i32],
    /// `[R * P]` KV block table; -1 is no page.
    pub pages: &'a [i32],
    /// `[L]` rows that want logits, ascending.
    pub rows: &'a [i32],
    /// `[R]` -1 samples; anything else is the answer.
    pub forced: &'a [i32],
    /// `[R]` 0 is greedy.
    pub temperature: &'a [f32],
    /// `[R]` 0 is off.
    pub top_k: &'a [i32],
    /// `[R]` 1 is off.
    pub top_p: &'a [f32],
    /// `[R]` 0 is off.
    pub min_p: &'a [f32],
    /// `[R]` key of the random generator.
    pub seed: &'a [[u32; 2]],
}

/// What a step may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Token ids are below it.
    pub vocab: u64,
    /// Positions are below it.
    pub max_context: u64,
    /// Largest T.
    pub tokens: u64,
    /// Largest R.
    pub seqs: u64,
    /// Largest T and R that a decode program serves; 0 where there is none.
    pub decode_seqs: u64,
    /// State slots.
    pub slots: u64,
    /// KV pages.
    pub pages: u64,
    /// P.
    pub pages_per_seq: u64,
}

impl Bounds {
    /// What the steps of an engine with these limits may reach; its buffers are sized by the same numbers.
    ///
    /// The plan must have passed `nemo_ir::artifact::validate`.
    pub(crate) fn of(plan: &Plan, max_seqs: u64, max_context: u64) -> Self {
        let largest = |phase| {
            let of_phase = plan.programs.iter().filter(move |program| program.phase == phase);
            of_phase.map(|program| program.max_tokens).max().unwrap_or(0)
        };
        let pages_per_seq = max_context.div_ceil(PAGE_TOKENS);
        let paged = plan.states.iter().any(|state| state.per == StateUnit::Page);
        // The contract names pages by i32.
        let pages = max_seqs.saturating_mul(pages_per_seq).min(i32::MAX as u64);
        Self {
            vocab: plan.limits.vocab,
            max_context,
            tokens: largest(Phase::Prefill),
            seqs: max_seqs,
            decode_seqs: largest(Phase::Decode),
            slots: max_seqs,
            pages: if paged { pages } else { 0 },
            pages_per_seq,
        }
    }
}

/// Why a step cannot run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// No token, or a sequence without one.
    #[error("a step needs at least one sequence, and each at least one token")]
    Empty,
    /// More than the buffers hold.
    #[error("the step has {has} {what}, but the engine's steps hold at most {most}")]
    TooMany {
        /// Tokens or sequences.
        what: &'static str,
        /// How many there are.
        has: u64,
        /// How many there may be.
        most: u64,
    },
    /// An input of another length.
    #[error("step input `{input}` has {has} elements, but {wanted} are wanted")]
    Length {
        /// The input.
        input: &'static str,
        /// Its length.
        has: usize,
        /// The length that goes with the other inputs.
        wanted: usize,
    },
    /// A value that is out of range.
    #[error("step input `{input}`, element {index}: {value} is not {wanted}")]
    Value {
        /// The input.
        input: &'static str,
        /// Where.
        index: usize,
        /// The value.
        value: String,
        /// What would do.
        wanted: String,
    },
    /// More tokens than a sequence may have.
    #[error("sequence {seq} would have {has} tokens, but the engine's context holds {most}")]
    Context {
        /// Which sequence of the step.
        seq: usize,
        /// Tokens after the step.
        has: u64,
        /// How many there may be.
        most: u64,
    },
    /// Two sequences in one slot.
    #[error("sequences {first} and {second} of the step share state slot {slot}, which one of them writes")]
    SharedSlot {
        /// One.
        first: usize,
        /// The other.
        second: usize,
        /// The slot.
        slot: i32,
    },
    /// A page that is written, and is there once more.
    #[error(
        "KV page {page}, which sequence {first} of the step writes, is there again for sequence {second}"
    )]
    SharedPage {
        /// The one that writes it.
        first: usize,
        /// The other, or the same one when its table has the page twice.
        second: usize,
        /// The page.
        page: i32,
    },
    /// A sequence without pages for its tokens that is more than padding.
    #[error(
        "sequence {0} of the step has no KV page for its tokens, but padding has no other page and no slot_out"
    )]
    Padding(usize),
    /// A step that the decode program cannot run.
    #[error("the decode program cannot run this step: {0}")]
    NotDecode(&'static str),
    /// A device that could not run it.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Step<'_> {
    /// The bytes of an input, as kernels read them.
    pub fn input(&self, input: StepInput) -> &[u8] {
        match input {
            StepInput::Tokens => bytemuck::cast_slice(self.tokens),
            StepInput::Positions => bytemuck::cast_slice(self.positions),
            StepInput::SeqStart => bytemuck::cast_slice(self.seq_start),
            StepInput::SlotIn => bytemuck::cast_slice(self.slot_in),
            StepInput::SlotOut => bytemuck::cast_slice(self.slot_out),
            StepInput::Context => bytemuck::cast_slice(self.context),
            StepInput::Pages => bytemuck::cast_slice(self.pages),
            StepInput::Rows => bytemuck::cast_slice(self.rows),
            StepInput::Forced => bytemuck::cast_slice(self.forced),
            StepInput::Temperature => bytemuck::cast_slice(self.temperature),
            StepInput::TopK => bytemuck::cast_slice(self.top_k),
            StepInput::TopP => bytemuck::cast_slice(self.top_p),
            StepInput::MinP => bytemuck::cast_slice(self.min_p),
            StepInput::Seed => bytemuck::cast_slice(self.seed),
        }
    }
}

#[cfg(test)]
mod tests;
