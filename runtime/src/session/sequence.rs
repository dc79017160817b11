//! A sequence that has a slot, from its first chunk to its last token.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use nemo_ir::step::NOT_A_NUMBER;

use super::cache::Lease;
use super::hook::{Grown, Hook, Verdict};
use super::{Finish, Request, SampleError, Sampling, SequenceId};

pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// The prompt, then the new tokens.
    pub(super) tokens: Vec<u32>,
    prompt: usize,
    /// Tokens that the engine's state has seen.
    pub(super) cached: usize,
    pub(super) lease: Lease,
    pub(super) forced: VecDeque<u32>,
    max_new_tokens: usize,
    pub(super) sampling: Sampling,
    end: Vec<u32>,
    pub(super) hooks: Vec<Box<dyn Hook>>,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, request: Request, lease: Lease) -> Self {
        let prompt = request.prompt.len();
        let mut tokens = request.prompt;
        tokens.reserve(request.max_new_tokens);
        Self {
            id,
            tokens,
            prompt,
            cached: 0,
            lease,
            forced: VecDeque::new(),
            max_new_tokens: request.max_new_tokens,
            sampling: request.sampling,
            end: request.end,
            hooks: request.hooks,
        }
    }

    /// Asks the hooks for the first token; why there is to be none, if they want none.
    pub(super) fn begin(&mut self) -> Option<Finish> {
        let prompt = &self.tokens[..self.prompt];
        decide(self.hooks.iter_mut().map(|hook| hook.begin(prompt)), &mut self.forced)
    }

    /// Takes what the step gave for its newest token: the new token, and why it is the last one, if it is.
    pub(super) fn take(&mut self, next: i32, vocab: u64) -> (Option<u32>, Option<Finish>) {
        match u32::try_from(next).ok().filter(|token| u64::from(*token) < vocab) {
            Some(token) => (Some(token), self.grow(token)),
            None if next == NOT_A_NUMBER => (None, Some(Finish::Failed(SampleError::NotANumber))),
            None => (None, Some(Finish::Failed(SampleError::NoToken(next)))),
        }
    }

    fn grow(&mut self, token: u32) -> Option<Finish> {
        self.forced.pop_front();
        self.tokens.push(token);
        let generated = &self.tokens[self.prompt..];
        let grown = Grown { prompt_tokens: self.prompt, generated };
        // Every hook sees every token, whatever another has decided.
        let verdicts = self.hooks.iter_mut().map(|hook| hook.after(token, grown));
        if let Some(finish) = decide(verdicts, &mut self.forced) {
            return Some(finish);
        }
        if self.end.contains(&token) {
            Some(Finish::EndOfText)
        } else if generated.len() >= self.max_new_tokens {
            Some(Finish::Length)
        } else {
            None
        }
    }
}

/// Does what the hooks' answers together ask for.
fn decide(verdicts: impl Iterator<Item = Verdict>, forced: &mut VecDeque<u32>) -> Option<Finish> {
    match verdicts.fold(Verdict::Continue, Verdict::and) {
        Verdict::Continue => {}
        Verdict::Force(tokens) => *forced = tokens.into(),
        Verdict::Stop(reason) => return Some(Finish::Hook(reason)),
    }
    None
}

/// Why hooks want no further step, if one does not; all are asked.
pub(super) fn stopped_before(hooks: &mut [Box<dyn Hook>]) -> Option<Finish> {
    let reasons = hooks.iter_mut().map(|hook| match hook.before() {
        ControlFlow::Break(reason) => Some(Finish::Hook(reason)),
        ControlFlow::Continue(()) => None,
    });
    reasons.fold(None, Option::or)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_ends_the_sequence() {
        let failed = |next: i32| {
            let lease = Lease { slot: 0, pages: Vec::new() };
            let mut sequence = Sequence::new(SequenceId(0), Request::new(vec![1], 5), lease);
            let (token, finish) = sequence.take(next, 16);
            assert_eq!((token, sequence.tokens.len()), (None, 1));
            finish
        };
        assert_eq!(failed(NOT_A_NUMBER), Some(Finish::Failed(SampleError::NotANumber)));
        for next in [-1, 16, i32::MIN] {
            assert_eq!(failed(next), Some(Finish::Failed(SampleError::NoToken(next))));
        }
    }
}
