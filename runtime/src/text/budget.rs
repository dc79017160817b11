//! The thinking budget: a hook that closes thoughts which have become too long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::closing::Closing;
use super::sentence::ends_sentence;
use super::thoughts::{Origin, Thoughts, Usage};
use super::{Text, TextError, TextStream};
use crate::session::{Grown, Hook, Verdict};

/// How many tokens a model may think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of thoughts in the turn, over all of its blocks.
    pub tokens: usize,
    /// How far thoughts may go beyond, to end with a sentence or a line.
    pub grace: Grace,
}

/// How far thoughts may go beyond their budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// This many tokens.
    Tokens(usize),
    /// This part of the budget, in hundredths, rounded down.
    Percent(u8),
}

impl Default for Grace {
    /// A tenth of the budget.
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl Budget {
    /// The tokens of thoughts that are never exceeded.
    pub fn limit(self) -> usize {
        let grace = match self.grace {
            Grace::Tokens(tokens) => tokens,
            Grace::Percent(percent) => {
                let part = self.tokens as u128 * u128::from(percent) / 100;
                usize::try_from(part).unwrap_or(usize::MAX)
            }
        };
        self.tokens.saturating_add(grace)
    }
}

/// What became of a turn's tokens, to be read while the hook is at work and after.
#[derive(Debug, Clone, Default)]
pub struct UsageReader(Arc<Mutex<Usage>>);

impl UsageReader {
    /// The counts so far.
    pub fn get(&self) -> Usage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, usage: Usage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }
}

/// Counts the tokens that a model thinks, by their text, and closes the thoughts when a budget is used up.
///
/// From the budget on it waits for the end of a sentence or of a line; at the budget and the grace it waits no
/// longer. A block that is opened when nothing is left is closed at once. A part of a closing tag is completed then: what the
/// model has begun as `</th` may go on as a word. Tokens of the closing are not sampled, so the thoughts never exceed
/// [`Budget::limit`].
#[derive(Debug)]
pub struct ThinkingBudget {
    budget: Budget,
    text: Arc<Text>,
    stream: TextStream,
    thoughts: Thoughts,
    closing: Closing,
    /// What is still to come of a closing that is being forced.
    forcing: VecDeque<u32>,
    /// Whether a token of a closing has been forced.
    forced: bool,
    usage: UsageReader,
}

impl ThinkingBudget {
    /// A hook for one sequence.
    ///
    /// # Errors
    /// [`TextError::NoTag`] when the tokenizer cannot spell the closing tag.
    pub fn new(text: Arc<Text>, budget: Budget) -> Result<Self, TextError> {
        Ok(Self {
            budget,
            closing: Closing::new(&text)?,
            stream: TextStream::new(Arc::clone(&text)),
            text,
            thoughts: Thoughts::new(false),
            forcing: VecDeque::new(),
            forced: false,
            usage: UsageReader::default(),
        })
    }

    /// What is to be known of the sequence from outside.
    pub fn usage(&self) -> UsageReader {
        self.usage.clone()
    }

    /// Forces the rest of the closing, or begins one if it is time.
    fn verdict(&mut self) -> Verdict {
        if self.forcing.is_empty() && self.is_used_up() {
            self.forcing = self.closing.of(&self.thoughts).iter().copied().collect();
        }
        // All that is left, each time, so that no hook behind this one cuts in.
        if self.forcing.is_empty() {
            Verdict::Continue
        } else {
            Verdict::Force(self.forcing.iter().copied().collect())
        }
    }

    fn is_used_up(&self) -> bool {
        let spent = self.thoughts.spent();
        if !self.thoughts.inside() || spent < self.budget.tokens {
            return false;
        }
        let tail = self.thoughts.tail();
        let within = self.stream.holds_back() || self.thoughts.matched() > 0;
        let may_be_cut = !within && (tail.is_empty() || ends_sentence(tail));
        may_be_cut || spent >= self.budget.limit()
    }
}

impl Hook for ThinkingBudget {
    fn begin(&mut self, prompt: &[u32]) -> Verdict {
        // A prompt that is no text opens nothing.
        self.thoughts = Thoughts::new(self.text.opens_thinking(prompt).unwrap_or(false));
        self.verdict()
    }

    fn after(&mut self, token: u32, _grown: Grown<'_>) -> Verdict {
        let origin = if self.forcing.front() == Some(&token) {
            self.forcing.pop_front();
            self.forced = true;
            Origin::Closing
        } else {
            // Another hook has had its way; if thoughts are still open, the next closing begins anew.
            self.forcing.clear();
            Origin::Model
        };
        let piece = self.stream.push(token).unwrap_or_default();
        self.thoughts.push(&piece, origin);
        let mut usage = self.thoughts.usage();
        usage.budget_hit = self.forced && usage.thinking_tokens >= self.budget.tokens;
        self.usage.set(usage);
        self.verdict()
    }
}

#[cfg(test)]
mod tests;
