//! The checks of a step: after them no kernel reaches outside of the engine's buffers, and no two of its
//! threads write the same bytes.

use nemo_ir::plan::Phase;
use nemo_ir::step::{PAGE_TOKENS, StepDims, StepInput};

use super::{Bounds, Step, StepError};

/// A step that has passed [`Step::check`]; there is no other way to make one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedStep<'a> {
    step: &'a Step<'a>,
    phase: Phase,
    dims: StepDims,
    bounds: Bounds,
}

impl<'a> CheckedStep<'a> {
    /// The bytes of an input, as kernels read them.
    pub(crate) fn input(&self, input: StepInput) -> &'a [u8] {
        self.step.input(input)
    }

    /// The phase whose programs run it: the one that serves its number of tokens.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// T, R, L and P.
    pub(crate) fn dims(&self) -> StepDims {
        self.dims
    }

    /// What it was checked against: it may run only where exactly this may be reached.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// A set of KV pages, empty between checks: kept by the engine so that a check allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Written {
    words: Vec<u64>,
}

impl Written {
    /// An empty set that has room for every page.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self { words: vec![0; bounds.pages.div_ceil(64) as usize] }
    }

    /// Adds a page that is in range; whether it was new.
    fn insert(&mut self, page: i32) -> bool {
        let word = &mut self.words[page as usize / 64];
        let before = *word;
        *word |= 1 << (page % 64);
        *word != before
    }

    fn contains(&self, page: i32) -> bool {
        self.words[page as usize / 64] & 1 << (page % 64) != 0
    }

    fn remove(&mut self, page: i32) {
        self.words[page as usize / 64] &= !(1 << (page % 64));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

impl Step<'_> {
    /// Checks every input and chooses the phase; `written` is empty before and after.
    ///
    /// # Errors
    /// [`StepError`]; a step that passes makes no kernel reach outside of the engine's buffers.
    pub(crate) fn check<'a>(
        &'a self,
        bounds: &Bounds,
        written: &mut Written,
    ) -> Result<CheckedStep<'a>, StepError> {
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
        self.check_pages(seqs, bounds, written)?;
        let dims = StepDims {
            tokens: self.tokens.len() as u64,
            seqs: seqs as u64,
            rows: self.rows.len() as u64,
            pages: bounds.pages_per_seq,
        };
        Ok(CheckedStep { step: self, phase: self.choose(dims, bounds)?, dims, bounds: *bounds })
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
            if self.is_padding(seq, table, used) {
                if self.slot_out[seq] >= 0 || table.iter().any(|page| *page != -1) {
                    return Err(StepError::Padding(seq));
                }
                continue;
            }
            let outside = |page: &i32| !(0..bounds.pages as i64).contains(&i64::from(*page));
            if let Some(at) = table[..used].iter().position(outside) {
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

    /// Whether a sequence, which uses the first pages of its table, is there to fill the step only.
    fn is_padding(&self, seq: usize, table: &[i32], used: usize) -> bool {
        self.context[seq] == 0 && table[..used].iter().all(|page| *page == -1)
    }

    /// A page that is written is nowhere else among the pages in use; what is only read may be shared.
    fn check_pages(&self, seqs: usize, bounds: &Bounds, written: &mut Written) -> Result<(), StepError> {
        if bounds.pages == 0 {
            return Ok(());
        }
        let mut inserted = 0;
        let mut shared = None;
        'all: for seq in 0..seqs {
            for page in self.written_pages(seq, bounds) {
                if !written.insert(*page) {
                    shared = Some((seq, *page));
                    break 'all;
                }
                inserted += 1;
            }
        }
        if shared.is_none() {
            let read_again = |seq: usize| {
                let page = self.read_pages(seq, bounds).iter().find(|page| written.contains(**page));
                page.map(|page| (seq, *page))
            };
            shared = (0..seqs).find_map(read_again);
        }
        // Only what was inserted: a page that is there twice counts once.
        for page in (0..seqs).flat_map(|seq| self.written_pages(seq, bounds)).take(inserted) {
            written.remove(*page);
        }
        let Some((second, page)) = shared else { return Ok(()) };
        let writes = |seq: &usize| self.written_pages(*seq, bounds).contains(&page);
        Err(StepError::SharedPage { first: (0..seqs).find(writes).unwrap_or(second), second, page })
    }

    /// The pages that get the step's tokens of a sequence whose pages are in range; none of padding.
    fn written_pages(&self, seq: usize, bounds: &Bounds) -> &[i32] {
        let (from, to) = self.page_range(seq, bounds);
        &self.pages[from..to]
    }

    /// The pages before those.
    fn read_pages(&self, seq: usize, bounds: &Bounds) -> &[i32] {
        let (from, _) = self.page_range(seq, bounds);
        &self.pages[seq * bounds.pages_per_seq as usize..from]
    }

    fn page_range(&self, seq: usize, bounds: &Bounds) -> (usize, usize) {
        let first = seq * bounds.pages_per_seq as usize;
        let context = self.context[seq] as u64;
        let length = (self.seq_start[seq + 1] - self.seq_start[seq]) as u64;
        let from = first + (context / PAGE_TOKENS) as usize;
        let to = first + (context + length).div_ceil(PAGE_TOKENS) as usize;
        // The first page of padding is -1, and of nothing else.
        if self.pages[from] == -1 { (from, from) } else { (from, to) }
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
