//! A step's inputs as one piece of memory, which one upload brings to the GPU.

use nemo_ir::step::StepInput;

use super::driver::ALIGN;
use crate::device::sizes::place;
use crate::step::CheckedStep;

/// A step's inputs, one after the other, at places that no step moves: recorded launches point to them.
#[derive(Debug)]
pub(super) struct Inputs {
    /// By place in the contract.
    offsets: Vec<usize>,
    staging: Vec<u8>,
}

/// What a step is filled up with.
enum Padding {
    /// The same words again.
    Words(u32),
    /// The sequence's number, and more by this.
    Counting(u32),
}

impl Padding {
    /// Of each input: a sequence of one token that reads nothing, writes nothing and draws nothing.
    fn of(input: StepInput) -> Self {
        const NONE: u32 = -1_i32 as u32;
        match input {
            StepInput::Tokens | StepInput::SlotIn | StepInput::SlotOut | StepInput::Pages => {
                Self::Words(NONE)
            }
            StepInput::Positions | StepInput::Context => Self::Words(0),
            // Its token ends where the next one begins.
            StepInput::SeqStart => Self::Counting(1),
            StepInput::Rows => Self::Counting(0),
            // An answer that nobody reads; to sample one would cost time.
            StepInput::Forced => Self::Words(0),
            StepInput::Temperature | StepInput::TopK | StepInput::MinP | StepInput::Seed => Self::Words(0),
            StepInput::TopP => Self::Words(1.0_f32.to_bits()),
        }
    }
}

/// The inputs as they lie in memory. The block table is last: as it is by far the longest, a step uploads no more of it
/// than it has.
fn order() -> impl Iterator<Item = StepInput> {
    let others = StepInput::ALL.into_iter().filter(|input| *input != StepInput::Pages);
    others.chain([StepInput::Pages])
}

impl Inputs {
    /// Places for inputs of these sizes, by place in the contract.
    pub(super) fn new(sizes: &[u64]) -> Self {
        let mut offsets = vec![0; sizes.len()];
        let mut end = 0;
        for input in order() {
            let at = place(input);
            offsets[at] = end;
            end = (end + sizes[at] as usize).next_multiple_of(ALIGN as usize);
        }
        Self { offsets, staging: vec![0; end] }
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.staging.len() as u64
    }

    /// Where each begins, by place in the contract.
    pub(super) fn offsets(&self) -> impl Iterator<Item = u64> {
        self.offsets.iter().map(|offset| *offset as u64)
    }

    /// The inputs of a step, a decode step filled up to `seqs` sequences; what is after the last one is left out.
    pub(super) fn fill(&mut self, step: &CheckedStep<'_>, seqs: u64) -> &[u8] {
        let has = step.dims().seqs;
        let missing = seqs.saturating_sub(has);
        let mut end = 0;
        for input in order() {
            let bytes = step.input(input);
            let at = self.offsets[place(input)];
            self.staging[at..][..bytes.len()].copy_from_slice(bytes);
            end = at + bytes.len();
            if missing == 0 {
                continue;
            }
            // Of one sequence; `seq_start` has an element more than there are sequences.
            let width = match input {
                StepInput::SeqStart => size_of::<i32>(),
                _ => bytes.len() / has as usize,
            };
            for seq in has..seqs {
                let word = match Padding::of(input) {
                    Padding::Words(word) => word,
                    Padding::Counting(more) => seq as u32 + more,
                };
                for word_at in self.staging[end..][..width].as_chunks_mut().0 {
                    *word_at = word.to_le_bytes();
                }
                end += width;
            }
        }
        &self.staging[..end]
    }
}
