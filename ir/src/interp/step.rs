//! A step as data: every input of the contract, checked against itself.

use thiserror::Error;

use super::tensor::Tensor;
use crate::step::{StepDims, StepInput};

/// The inputs of one step. Each field is the [`StepInput`] of its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// `[T]`; negative in padded rows.
    pub tokens: Vec<i32>,
    /// `[T]`.
    pub positions: Vec<i32>,
    /// `[R + 1]`.
    pub seq_start: Vec<i32>,
    /// `[R]`.
    pub slot_in: Vec<i32>,
    /// `[R]`.
    pub slot_out: Vec<i32>,
    /// `[R]`.
    pub context: Vec<i32>,
    /// `[R, P]`.
    pub pages: Vec<i32>,
    /// `[L]`.
    pub rows: Vec<i32>,
    /// `[R]`.
    pub forced: Vec<i32>,
    /// `[R]`.
    pub temperature: Vec<f32>,
    /// `[R]`.
    pub top_k: Vec<i32>,
    /// `[R]`.
    pub top_p: Vec<f32>,
    /// `[R]`.
    pub min_p: Vec<f32>,
    /// `[R, 2]`.
    pub seed: Vec<[u32; 2]>,
}

/// Which rows of a sequence want logits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Logits {
    /// None: an inner chunk of a prompt.
    None,
    /// The last one.
    #[default]
    Last,
    /// Every one.
    All,
}

/// One sequence's part of a step. The default is a padded one, greedy, without tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// The tokens of this step.
    pub tokens: Vec<i32>,
    /// Tokens already cached.
    pub context: i32,
    /// Slot read, or -1.
    pub slot_in: i32,
    /// Slot written, or -1.
    pub slot_out: i32,
    /// Block table; padded to the longest of the step.
    pub pages: Vec<i32>,
    /// Rows that want logits.
    pub logits: Logits,
    /// The answer, or -1.
    pub forced: i32,
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: i32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// Key of the generator.
    pub seed: [u32; 2],
}

impl Default for Sequence {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            context: 0,
            slot_in: -1,
            slot_out: -1,
            pages: Vec::new(),
            logits: Logits::Last,
            forced: -1,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: [0; 2],
        }
    }
}

/// What is wrong with a step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// Two inputs disagree about an extent.
    #[error("step input `{input}` has {found} elements, expected {wanted}")]
    Length {
        /// Input name.
        input: &'static str,
        /// Elements that the others imply.
        wanted: String,
        /// Elements it has.
        found: usize,
    },
    /// A value outside its range.
    #[error("step input `{input}`[{index}] is {found}, expected {wanted}")]
    Value {
        /// Input name.
        input: &'static str,
        /// Which element.
        index: usize,
        /// The legal range.
        wanted: String,
        /// The value.
        found: String,
    },
    /// A slot that one sequence writes and another reads or writes in the same step.
    #[error("sequence {writer} writes slot {slot}, which sequence {other} uses in the same step")]
    SharedSlot {
        /// The slot.
        slot: i32,
        /// The sequence that writes it.
        writer: usize,
        /// The other one.
        other: usize,
    },
}

impl Step {
    /// The step of these sequences, one after the other.
    pub fn of(sequences: &[Sequence]) -> Self {
        let columns = sequences.iter().map(|sequence| sequence.pages.len()).max().unwrap_or(0);
        let mut step = Self { seq_start: vec![0], ..Self::default() };
        for sequence in sequences {
            let (first, len) = (step.tokens.len() as i32, sequence.tokens.len() as i32);
            step.tokens.extend(&sequence.tokens);
            step.positions.extend(sequence.context..sequence.context + len);
            step.seq_start.push(first + len);
            step.slot_in.push(sequence.slot_in);
            step.slot_out.push(sequence.slot_out);
            step.context.push(sequence.context);
            step.pages.extend(&sequence.pages);
            step.pages.extend(std::iter::repeat_n(-1, columns - sequence.pages.len()));
            match sequence.logits {
                Logits::None => {}
                Logits::Last => step.rows.extend((len > 0).then_some(first + len - 1)),
                Logits::All => step.rows.extend(first..first + len),
            }
            step.forced.push(sequence.forced);
            step.temperature.push(sequence.temperature);
            step.top_k.push(sequence.top_k);
            step.top_p.push(sequence.top_p);
            step.min_p.push(sequence.min_p);
            step.seed.push(sequence.seed);
        }
        step
    }

    /// The values of T, R, L and P.
    pub fn dims(&self) -> StepDims {
        let seqs = self.seq_start.len().saturating_sub(1);
        StepDims {
            tokens: self.tokens.len() as u64,
            seqs: seqs as u64,
            rows: self.rows.len() as u64,
            pages: self.pages.len().checked_div(seqs).unwrap_or(0) as u64,
        }
    }

    /// An input as a tensor.
    pub fn tensor(&self, input: StepInput) -> Tensor {
        let ints = |values: &[i32]| Tensor::int([values.len()], values.to_vec());
        match input {
            StepInput::Tokens => ints(&self.tokens),
            StepInput::Positions => ints(&self.positions),
            StepInput::SeqStart => ints(&self.seq_start),
            StepInput::SlotIn => ints(&self.slot_in),
            StepInput::SlotOut => ints(&self.slot_out),
            StepInput::Context => ints(&self.context),
            StepInput::Pages => {
                let dims = self.dims();
                Tensor::int([dims.seqs as usize, dims.pages as usize], self.pages.clone())
            }
            StepInput::Rows => ints(&self.rows),
            StepInput::Forced => ints(&self.forced),
            StepInput::Temperature => Tensor::from_f32([self.temperature.len()], &self.temperature),
            StepInput::TopK => ints(&self.top_k),
            StepInput::TopP => Tensor::from_f32([self.top_p.len()], &self.top_p),
            StepInput::MinP => Tensor::from_f32([self.min_p.len()], &self.min_p),
            StepInput::Seed => Tensor::int(
                [self.seed.len(), 2],
                self.seed.iter().flatten().map(|word| *word as i32).collect(),
            ),
        }
    }

    /// Checks lengths, ranges, and that no sequence writes a slot that another uses. Slots and pages
    /// are checked against the engine's where it has such state.
    ///
    /// # Errors
    /// The first [`StepError`] found.
    pub fn validate(&self, slots: Option<usize>, pages: Option<usize>) -> Result<(), StepError> {
        self.check_lengths()?;
        self.check_rows()?;
        let below = |limit: Option<usize>| limit.map_or(i64::MAX, |limit| limit as i64);
        let natural = |input, values: &[i32]| in_range(input, values, 0, i64::MAX);
        in_range("slot_in", &self.slot_in, -1, below(slots))?;
        in_range("slot_out", &self.slot_out, -1, below(slots))?;
        in_range("pages", &self.pages, -1, below(pages))?;
        in_range("forced", &self.forced, -1, i64::MAX)?;
        natural("context", &self.context)?;
        natural("top_k", &self.top_k)?;
        real_range("temperature", &self.temperature, "a finite number >= 0", |x| x >= 0.0)?;
        real_range("top_p", &self.top_p, "a number >= 0 and <= 1", |x| (0.0..=1.0).contains(&x))?;
        real_range("min_p", &self.min_p, "a number >= 0 and <= 1", |x| (0.0..=1.0).contains(&x))?;
        self.check_slots()
    }

    fn check_lengths(&self) -> Result<(), StepError> {
        let (tokens, seqs) = (self.tokens.len(), self.seq_start.len().saturating_sub(1));
        let wrong = |input, wanted: String, found| Err(StepError::Length { input, wanted, found });
        if self.seq_start.is_empty() {
            return wrong("seq_start", "one more than there are sequences".to_owned(), 0);
        }
        if self.positions.len() != tokens {
            return wrong("positions", format!("{tokens} (one a token)"), self.positions.len());
        }
        let per_sequence = [
            ("slot_in", self.slot_in.len()),
            ("slot_out", self.slot_out.len()),
            ("context", self.context.len()),
            ("forced", self.forced.len()),
            ("temperature", self.temperature.len()),
            ("top_k", self.top_k.len()),
            ("top_p", self.top_p.len()),
            ("min_p", self.min_p.len()),
            ("seed", self.seed.len()),
        ];
        for (input, found) in per_sequence {
            if found != seqs {
                return wrong(input, format!("{seqs} (one a sequence)"), found);
            }
        }
        if self.pages.len().checked_rem(seqs).unwrap_or(self.pages.len()) != 0 {
            return wrong("pages", format!("as many for each of {seqs} sequences"), self.pages.len());
        }
        Ok(())
    }

    /// `seq_start` ascends from 0 within the tokens, `rows` ascends strictly within them.
    fn check_rows(&self) -> Result<(), StepError> {
        let tokens = self.tokens.len() as i64;
        in_range("seq_start", &self.seq_start[..1], 0, 1)?;
        in_range("seq_start", &self.seq_start, 0, tokens + 1)?;
        in_range("rows", &self.rows, 0, tokens)?;
        let ascends = |input, values: &[i32], strictly: bool| {
            for (index, pair) in values.windows(2).enumerate() {
                if pair[1] < pair[0] || (strictly && pair[1] == pair[0]) {
                    let wanted = format!("{} {}", if strictly { "more than" } else { "at least" }, pair[0]);
                    let found = pair[1].to_string();
                    return Err(StepError::Value { input, index: index + 1, wanted, found });
                }
            }
            Ok(())
        };
        ascends("seq_start", &self.seq_start, false)?;
        ascends("rows", &self.rows, true)
    }

    fn check_slots(&self) -> Result<(), StepError> {
        for (writer, slot) in self.slot_out.iter().copied().enumerate().filter(|(_, slot)| *slot >= 0) {
            let others = self.slot_in.iter().zip(&self.slot_out).enumerate();
            for (other, (read, written)) in others {
                if other != writer && (*read == slot || *written == slot) {
                    return Err(StepError::SharedSlot { slot, writer, other });
                }
            }
        }
        Ok(())
    }
}

/// Every value is in `low .. end`.
fn in_range(input: &'static str, values: &[i32], low: i64, end: i64) -> Result<(), StepError> {
    match values.iter().position(|value| !(low..end).contains(&i64::from(*value))) {
        None => Ok(()),
        Some(index) => {
            let wanted =
                if end == i64::MAX { format!("at least {low}") } else { format!("{low} to {}", end - 1) };
            Err(StepError::Value { input, index, wanted, found: values[index].to_string() })
        }
    }
}

fn real_range(
    input: &'static str,
    values: &[f32],
    wanted: &str,
    legal: fn(f32) -> bool,
) -> Result<(), StepError> {
    match values.iter().position(|value| !(value.is_finite() && legal(*value))) {
        None => Ok(()),
        Some(index) => {
            let found = values[index].to_string();
            Err(StepError::Value { input, index, wanted: wanted.to_owned(), found })
        }
    }
}
