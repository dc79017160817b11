//! A step as the caller gives it, and the checks that make it safe to run.

use nemo_ir::plan::Phase;
use nemo_ir::step::{PAGE_TOKENS, StepDims, StepInput};
use thiserror::Error;

/// The inputs of one step: the contract of `nemo_ir::step`, as slices.
///
/// With T tokens, R sequences, L rows and P pages per sequence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step<'a> {
    /// Which program runs it; `None` takes `decode` where every sequence has one token and every row
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
    /// Largest T and R of a decode step; 0 where there is no decode program.
    pub decode_seqs: u64,
    /// State slots.
    pub slots: u64,
    /// KV pages.
    pub pages: u64,
    /// P.
    pub pages_per_seq: u64,
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
    /// A step that the decode program cannot run.
    #[error("the decode program cannot run this step: {0}")]
    NotDecode(&'static str),
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

    /// Checks every input and chooses the program.
    ///
    /// # Errors
    /// [`StepError`]; a step that passes makes no kernel reach outside of the engine's buffers.
    pub fn check(&self, bounds: &Bounds) -> Result<(Phase, StepDims), StepError> {
        let seqs = self.slot_in.len();
        if seqs == 0 || self.tokens.is_empty() {
            return Err(StepError::Empty);
        }
        for (what, has, most) in
            [("tokens", self.tokens.len(), bounds.tokens), ("sequences", seqs, bounds.seqs)]
        {
            if has as u64 > most {
                return Err(StepError::TooMany { what, has: has as u64, most });
            }
        }
        self.check_lengths(seqs, bounds)?;
        self.check_sequences(seqs, bounds)?;
        self.check_values(bounds)?;
        self.check_slots(seqs)?;
        let dims = StepDims {
            tokens: self.tokens.len() as u64,
            seqs: seqs as u64,
            rows: self.rows.len() as u64,
            pages: bounds.pages_per_seq,
        };
        Ok((self.choose(dims, bounds)?, dims))
    }

    fn check_lengths(&self, seqs: usize, bounds: &Bounds) -> Result<(), StepError> {
        let tokens = self.tokens.len();
        let pages = seqs * bounds.pages_per_seq as usize;
        for (input, has, wanted) in [
            ("positions", self.positions.len(), tokens),
            ("seq_start", self.seq_start.len(), seqs + 1),
            ("slot_out", self.slot_out.len(), seqs),
            ("context", self.context.len(), seqs),
            ("pages", self.pages.len(), pages),
            ("forced", self.forced.len(), seqs),
            ("temperature", self.temperature.len(), seqs),
            ("top_k", self.top_k.len(), seqs),
            ("top_p", self.top_p.len(), seqs),
            ("min_p", self.min_p.len(), seqs),
            ("seed", self.seed.len(), seqs),
        ] {
            if has != wanted {
                return Err(StepError::Length { input, has, wanted });
            }
        }
        Ok(())
    }

    fn check_sequences(&self, seqs: usize, bounds: &Bounds) -> Result<(), StepError> {
        let ends = |index: usize, wanted: usize| {
            let value = self.seq_start[index];
            if usize::try_from(value) == Ok(wanted) {
                return Ok(());
            }
            Err(refused("seq_start", index, &value, format!("{wanted}")))
        };
        ends(0, 0)?;
        ends(seqs, self.tokens.len())?;
        if self.seq_start.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(StepError::Empty);
        }
        let per_seq = bounds.pages_per_seq as usize;
        for seq in 0..seqs {
            let context = self.context[seq];
            if context < 0 {
                return Err(refused("context", seq, &context, "at least 0"));
            }
            let length = (self.seq_start[seq + 1] - self.seq_start[seq]) as u64;
            let has = context as u64 + length;
            if has > bounds.max_context {
                return Err(StepError::Context { seq, has, most: bounds.max_context });
            }
            if bounds.pages == 0 {
                continue;
            }
            // The pages that the sequence reads or writes are there, or, for padding, none is.
            let used = has.div_ceil(PAGE_TOKENS) as usize;
            let table = &self.pages[seq * per_seq..(seq + 1) * per_seq];
            let padding = context == 0 && table[..used].iter().all(|page| *page == -1);
            let bad =
                table[..used].iter().position(|page| !(0..bounds.pages as i64).contains(&i64::from(*page)));
            if let Some(at) = bad.filter(|_| !padding) {
                let wanted = format!("a page below {}", bounds.pages);
                return Err(refused("pages", seq * per_seq + at, &table[at], wanted));
            }
        }
        Ok(())
    }

    fn check_values(&self, bounds: &Bounds) -> Result<(), StepError> {
        let vocab = bounds.vocab as i64;
        let slots = bounds.slots as i64;
        within("tokens", self.tokens, 0, vocab)?;
        within("positions", self.positions, 0, bounds.max_context as i64)?;
        within("slot_in", self.slot_in, -1, slots)?;
        within("slot_out", self.slot_out, -1, slots)?;
        within("rows", self.rows, 0, self.tokens.len() as i64)?;
        within("forced", self.forced, -1, vocab)?;
        within("top_k", self.top_k, 0, i64::from(i32::MAX) + 1)?;
        if let Some(at) = self.rows.windows(2).position(|pair| pair[0] >= pair[1]) {
            let wanted = format!("above {}", self.rows[at]);
            return Err(refused("rows", at + 1, &self.rows[at + 1], wanted));
        }
        let real = |input, values: &[f32], good: fn(f32) -> bool, wanted: &str| match values
            .iter()
            .position(|value| !good(*value))
        {
            Some(at) => Err(refused(input, at, &values[at], wanted)),
            None => Ok(()),
        };
        real("temperature", self.temperature, |t| t.is_finite() && t >= 0.0, "finite and at least 0")?;
        real("top_p", self.top_p, |p| p > 0.0 && p <= 1.0, "above 0 and at most 1")?;
        real("min_p", self.min_p, |p| (0.0..=1.0).contains(&p), "between 0 and 1")
    }

    fn check_slots(&self, seqs: usize) -> Result<(), StepError> {
        for first in 0..seqs {
            let slot = self.slot_out[first];
            let shares = |second: &usize| {
                *second != first && (self.slot_out[*second] == slot || self.slot_in[*second] == slot)
            };
            if let Some(second) = (0..seqs).find(shares).filter(|_| slot >= 0) {
                return Err(StepError::SharedSlot { first, second, slot });
            }
        }
        Ok(())
    }

    fn choose(&self, dims: StepDims, bounds: &Bounds) -> Result<Phase, StepError> {
        // Every sequence has a token, so as many tokens as sequences is one each.
        let obstacle = if dims.tokens != dims.seqs {
            Some("a sequence has more than one token")
        } else if dims.rows != dims.tokens {
            Some("not every row wants logits")
        } else if dims.seqs > bounds.decode_seqs {
            Some("it has more sequences than that program's buffers hold")
        } else {
            None
        };
        match (self.phase, obstacle) {
            (Some(Phase::Decode), Some(obstacle)) => Err(StepError::NotDecode(obstacle)),
            (Some(Phase::Prefill), _) | (None, Some(_)) => Ok(Phase::Prefill),
            (_, None) => Ok(Phase::Decode),
        }
    }
}

fn refused(input: &'static str, index: usize, value: &impl ToString, wanted: impl Into<String>) -> StepError {
    StepError::Value { input, index, value: value.to_string(), wanted: wanted.into() }
}

/// Every value is in `low..high`.
fn within(input: &'static str, values: &[i32], low: i64, high: i64) -> Result<(), StepError> {
    match values.iter().position(|value| !(low..high).contains(&i64::from(*value))) {
        Some(at) => Err(refused(input, at, &values[at], format!("in {low}..{high}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        vocab: 100,
        max_context: 128,
        tokens: 8,
        seqs: 2,
        decode_seqs: 2,
        slots: 2,
        pages: 4,
        pages_per_seq: 2,
    };

    /// Two sequences: two tokens of a new one, one more of another at position 64.
    fn mixed() -> Step<'static> {
        Step {
            phase: None,
            tokens: &[5, 6, 7],
            positions: &[0, 1, 64],
            seq_start: &[0, 2, 3],
            slot_in: &[-1, 1],
            slot_out: &[0, 1],
            context: &[0, 64],
            pages: &[0, -1, 2, 3],
            rows: &[1, 2],
            forced: &[-1, 9],
            temperature: &[0.0, 0.6],
            top_k: &[0, 50],
            top_p: &[1.0, 0.95],
            min_p: &[0.0, 0.05],
            seed: &[[0, 0], [1, 2]],
        }
    }

    fn single() -> Step<'static> {
        Step {
            tokens: &[5],
            positions: &[1],
            seq_start: &[0, 1],
            slot_in: &[0],
            slot_out: &[0],
            context: &[1],
            pages: &[0, -1],
            rows: &[0],
            forced: &[-1],
            temperature: &[0.0],
            top_k: &[0],
            top_p: &[1.0],
            min_p: &[0.0],
            seed: &[[0, 0]],
            ..Step::default()
        }
    }

    #[test]
    fn the_program_follows_from_the_shape_unless_overridden() {
        let phase = |step: Step<'_>| step.check(&BOUNDS).map(|(phase, _)| phase);
        assert_eq!(phase(mixed()), Ok(Phase::Prefill));
        assert_eq!(phase(single()), Ok(Phase::Decode));
        assert_eq!(phase(Step { phase: Some(Phase::Prefill), ..single() }), Ok(Phase::Prefill));
        assert_eq!(phase(Step { rows: &[], ..single() }), Ok(Phase::Prefill));
        let forced = phase(Step { phase: Some(Phase::Decode), ..mixed() }).unwrap_err().to_string();
        assert_eq!(forced, "the decode program cannot run this step: a sequence has more than one token");
        let (_, dims) = mixed().check(&BOUNDS).unwrap();
        assert_eq!(dims, StepDims { tokens: 3, seqs: 2, rows: 2, pages: 2 });
    }

    #[test]
    fn padding_carries_no_slot_and_no_page() {
        let step = Step { slot_in: &[-1], slot_out: &[-1], context: &[0], pages: &[-1, -1], ..single() };
        step.check(&BOUNDS).unwrap();
    }

    #[test]
    fn every_fault_has_its_sentence() {
        let cases: &[(Step<'_>, &str)] = &[
            (Step::default(), "at least one sequence"),
            (
                Step { tokens: &[0; 9], ..mixed() },
                "the step has 9 tokens, but the engine's steps hold at most 8",
            ),
            (Step { slot_in: &[0; 3], ..mixed() }, "the step has 3 sequences"),
            (Step { positions: &[0], ..mixed() }, "`positions` has 1 elements, but 3 are wanted"),
            (Step { pages: &[0], ..mixed() }, "`pages` has 1 elements, but 4 are wanted"),
            (Step { tokens: &[5, 100, 7], ..mixed() }, "`tokens`, element 1: 100 is not in 0..100"),
            (Step { tokens: &[5, -1, 7], ..mixed() }, "`tokens`, element 1: -1 is not in 0..100"),
            (Step { positions: &[0, 1, 128], ..mixed() }, "`positions`, element 2: 128 is not in 0..128"),
            (Step { seq_start: &[0, 0, 3], ..mixed() }, "each at least one token"),
            (Step { seq_start: &[1, 2, 3], ..mixed() }, "`seq_start`, element 0: 1 is not 0"),
            (Step { seq_start: &[0, 2, 4], ..mixed() }, "`seq_start`, element 2: 4 is not 3"),
            (Step { slot_in: &[-2, 1], ..mixed() }, "`slot_in`, element 0: -2 is not in -1..2"),
            (Step { slot_out: &[0, 2], ..mixed() }, "`slot_out`, element 1: 2 is not in -1..2"),
            (Step { slot_out: &[1, 1], ..mixed() }, "sequences 0 and 1 of the step share state slot 1"),
            (Step { slot_out: &[1, -1], ..mixed() }, "share state slot 1, which one of them writes"),
            (Step { context: &[0, 128], ..mixed() }, "sequence 1 would have 129 tokens"),
            (Step { context: &[-1, 1], ..mixed() }, "`context`, element 0: -1 is not at least 0"),
            (Step { pages: &[0, -1, 2, 4], ..mixed() }, "`pages`, element 3: 4 is not a page below 4"),
            (Step { pages: &[0, -1, 2, -1], ..mixed() }, "`pages`, element 3: -1 is not a page below 4"),
            (Step { rows: &[3], ..mixed() }, "`rows`, element 0: 3 is not in 0..3"),
            (Step { rows: &[1, 1], ..mixed() }, "`rows`, element 1: 1 is not above 1"),
            (Step { forced: &[-1, 100], ..mixed() }, "`forced`, element 1: 100 is not in -1..100"),
            (Step { temperature: &[f32::NAN, 0.0], ..mixed() }, "`temperature`, element 0: NaN"),
            (Step { top_k: &[-1, 0], ..mixed() }, "`top_k`, element 0: -1"),
            (Step { top_p: &[0.0, 1.0], ..mixed() }, "`top_p`, element 0: 0 is not above 0"),
            (Step { min_p: &[0.0, 1.5], ..mixed() }, "`min_p`, element 1: 1.5 is not between 0 and 1"),
        ];
        for (step, wanted) in cases {
            let message = step.check(&BOUNDS).unwrap_err().to_string();
            assert!(message.contains(wanted), "wanted {wanted:?}, got {message:?}");
        }
    }
}
