//! Sessions: requests become sequences, sequences become steps.
//!
//! Sequences join and leave between steps. A step takes the newest token of every sequence that has
//! its prompt behind it, and as much of the waiting prompts as its chunk holds.

mod batch;
mod cache;
mod hook;
mod sampling;
mod sequence;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use nemo_ir::step::TILE_TOKENS;
use thiserror::Error;

use self::batch::Batch;
use self::cache::Cache;
use self::sequence::{Sequence, stopped_before};
use crate::engine::Engine;
use crate::step::StepError;

pub use hook::{Deadline, Grown, Hook, TotalTokens, Verdict};
pub use sampling::{Sampling, SamplingError};

/// What is asked of a session.
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// New tokens, at most.
    pub max_new_tokens: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Tokens that end the sequence; they are part of it.
    pub end: Vec<u32>,
    /// Asked in order when the sequence begins, before each step and after each token; one that stops decides,
    /// and else the first that forces.
    pub hooks: Vec<Box<dyn Hook>>,
}

impl Request {
    /// A greedy request that nothing but its length ends.
    pub fn new(prompt: Vec<u32>, max_new_tokens: usize) -> Self {
        Self { prompt, max_new_tokens, sampling: Sampling::default(), end: Vec::new(), hooks: Vec::new() }
    }

    /// Checks that an engine with this vocabulary and context can run it.
    ///
    /// # Errors
    /// [`SessionError`] when it never can.
    pub fn check(&self, vocab: u64, context: u64) -> Result<(), SessionError> {
        let (prompt, new) = (self.prompt.len(), self.max_new_tokens);
        if prompt == 0 {
            return Err(SessionError::EmptyPrompt);
        }
        if new == 0 {
            return Err(SessionError::NoNewTokens);
        }
        check_tokens(&self.prompt, vocab)?;
        if positions(prompt, new) > context {
            return Err(SessionError::Context { prompt, new, context });
        }
        Ok(self.sampling.check()?)
    }
}

/// Why a session refuses a request or a step.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SessionError {
    /// Nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// Nothing to do.
    #[error("at least one new token must be asked for")]
    NoNewTokens,
    /// A token that the model does not have.
    #[error("the prompt's token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// Its id.
        token: u32,
        /// Ids are below it.
        vocab: u64,
    },
    /// More than fits.
    #[error("{} do not fit the context of {context}", counted(*prompt, *new))]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// New tokens asked for.
        new: usize,
        /// Positions of a sequence.
        context: u64,
    },
    /// A parameter out of its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A step that the engine refused.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Sequences wait, and nothing can run.
    #[error("no KV page is free, and no sequence can go on")]
    Pages,
    /// A request that runs alone, beside others.
    #[error("the session has other sequences, whose tokens would be lost")]
    Busy,
    /// A step that gave a sequence no token.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// Why a sequence got no token where it was to get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SampleError {
    /// A NaN among the logits.
    #[error("the model's logits are not numbers: its weights are damaged, or are not those of the artifact")]
    NotANumber,
    /// Anything else that is not a token, which no correct artifact gives.
    #[error("the artifact's program is wrong: it gave {0} as the next token")]
    NoToken(i32),
}

/// "3 prompt tokens and 1 new one".
fn counted(prompt: usize, new: usize) -> String {
    let tokens = if prompt == 1 { "token" } else { "tokens" };
    let ones = if new == 1 { "one" } else { "ones" };
    format!("{prompt} prompt {tokens} and {new} new {ones}")
}

/// Checks that token ids are of a vocabulary.
///
/// # Errors
/// [`SessionError::Token`] with the first that is not.
pub fn check_tokens(tokens: &[u32], vocab: u64) -> Result<(), SessionError> {
    match tokens.iter().find(|token| u64::from(**token) >= vocab) {
        Some(token) => Err(SessionError::Token { token: *token, vocab }),
        None => Ok(()),
    }
}

/// Positions that a prompt and its new tokens take: the last new token is never read.
pub fn positions(prompt: usize, new: usize) -> u64 {
    prompt.saturating_add(new).saturating_sub(1) as u64
}

/// Names a sequence of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

/// A new token of a sequence, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sequence.
    pub sequence: SequenceId,
    /// The token; none where the sequence ended without a further one.
    pub token: Option<u32>,
    /// Why nothing follows, if nothing does.
    pub finish: Option<Finish>,
}

impl Event {
    /// Whether all is well.
    ///
    /// # Errors
    /// [`SampleError`] where the sequence ended because the model gave it no token.
    pub fn check(&self) -> Result<(), SampleError> {
        match self.finish {
            Some(Finish::Failed(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-text token.
    EndOfText,
    /// As many new tokens as asked for.
    Length,
    /// A hook, with its reason.
    Hook(String),
    /// Whoever asked wanted no more.
    Caller,
    /// The model gave no token.
    Failed(SampleError),
}

impl Finish {
    /// `eos`, `length`, `caller`, `failed`, or the hook's reason.
    pub fn name(&self) -> &str {
        match self {
            Self::EndOfText => "eos",
            Self::Length => "length",
            Self::Hook(reason) => reason,
            Self::Caller => "caller",
            Self::Failed(_) => "failed",
        }
    }
}

/// Runs sequences on an engine.
pub struct Session<'e> {
    engine: &'e mut Engine,
    cache: Cache,
    waiting: VecDeque<(SequenceId, Request)>,
    running: Vec<Sequence>,
    batch: Batch,
    /// Which sequences take part in the step, and with how many tokens.
    parts: Vec<(usize, usize)>,
    events: Vec<Event>,
    next_id: u64,
}

impl<'e> Session<'e> {
    /// A session with every slot free.
    pub fn new(engine: &'e mut Engine) -> Self {
        let cache = Cache::new(&engine.bounds());
        Self {
            engine,
            cache,
            waiting: VecDeque::new(),
            running: Vec::new(),
            batch: Batch::default(),
            parts: Vec::new(),
            events: Vec::new(),
            next_id: 0,
        }
    }

    /// The engine, to measure its device between steps.
    pub fn engine_mut(&mut self) -> &mut Engine {
        self.engine
    }

    /// Adds a sequence, which starts as soon as a slot is free.
    ///
    /// # Errors
    /// [`SessionError`] when the request can never run.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, SessionError> {
        let bounds = self.engine.bounds();
        request.check(bounds.vocab, bounds.max_context)?;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// Whether every sequence has ended.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Ends a sequence without a further event; whether it was still there.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let there = self.waiting.len() + self.running.len();
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.remove(id);
        self.waiting.len() + self.running.len() < there
    }

    /// Runs one step and gives the tokens that it sampled; none while prompts are being read.
    ///
    /// Where hooks stop sequences before the step, their ends are given, and the step is left to the next
    /// call.
    ///
    /// # Errors
    /// [`SessionError`] when the engine refuses the step; the session's sequences are as before.
    pub fn advance(&mut self) -> Result<&[Event], SessionError> {
        self.events.clear();
        self.stop_before();
        if !self.events.is_empty() {
            return Ok(&self.events);
        }
        self.admit();
        if !self.events.is_empty() {
            self.remove_finished();
            return Ok(&self.events);
        }
        self.gather()?;
        if self.parts.is_empty() {
            return Ok(&self.events);
        }
        let vocab = self.engine.bounds().vocab;
        let output = self.engine.step(&self.batch.step())?;
        for ((index, count), next) in self.parts.iter().zip(output.next) {
            let sequence = &mut self.running[*index];
            sequence.cached += count;
            if sequence.cached == sequence.tokens.len() {
                let (token, finish) = sequence.take(*next, vocab);
                self.events.push(Event { sequence: sequence.id, token, finish });
            }
        }
        self.remove_finished();
        Ok(&self.events)
    }

    /// Runs one request to its end; `each` sees its tokens as they come, and may want no more.
    ///
    /// # Errors
    /// As [`Session::submit`] and [`Session::advance`]; [`SessionError::Busy`] where the session has other
    /// sequences. The session is idle afterwards.
    pub fn generate(
        &mut self,
        request: Request,
        mut each: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<(Vec<u32>, Finish), SessionError> {
        if !self.is_idle() {
            return Err(SessionError::Busy);
        }
        let id = self.submit(request)?;
        let mut tokens = Vec::new();
        let finish = self.follow(|token| {
            tokens.push(token);
            each(token)
        });
        self.cancel(id);
        Ok((tokens, finish?))
    }

    /// Runs the only sequence until it ends or `each` wants no more of it.
    fn follow(&mut self, mut each: impl FnMut(u32) -> ControlFlow<()>) -> Result<Finish, SessionError> {
        loop {
            for event in self.advance()? {
                event.check()?;
                let flow = event.token.map_or(ControlFlow::Continue(()), &mut each);
                if let Some(finish) = &event.finish {
                    return Ok(finish.clone());
                }
                if flow.is_break() {
                    return Ok(Finish::Caller);
                }
            }
        }
    }

    /// Ends the sequences whose hooks want no further step, whether or not they have begun.
    fn stop_before(&mut self) {
        let Self { waiting, running, events, .. } = self;
        let mut stop = |sequence, hooks: &mut [Box<dyn Hook>]| {
            let finish = stopped_before(hooks);
            let stops = finish.is_some();
            if stops {
                events.push(Event { sequence, token: None, finish });
            }
            stops
        };
        for sequence in running {
            stop(sequence.id, &mut sequence.hooks);
        }
        waiting.retain_mut(|(id, request)| !stop(*id, &mut request.hooks));
        self.remove_finished();
    }

    /// Takes back the slots and pages of the sequences that have ended in this step.
    fn remove_finished(&mut self) {
        let ended = self.events.iter().filter(|event| event.finish.is_some());
        for id in ended.map(|event| event.sequence).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Takes back the slot and the pages of a sequence that has them.
    fn remove(&mut self, id: SequenceId) {
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            self.cache.give_back(self.running.remove(at).lease);
        }
    }

    /// Gives waiting requests the free slots, and ends those whose hooks want no token.
    fn admit(&mut self) {
        while self.running.len() < self.engine.bounds().seqs as usize && !self.waiting.is_empty() {
            let Some(lease) = self.cache.lease() else { return };
            let Some((id, request)) = self.waiting.pop_front() else { return };
            let mut sequence = Sequence::new(id, request, lease);
            let finish = sequence.begin();
            if finish.is_some() {
                self.events.push(Event { sequence: id, token: None, finish });
            }
            self.running.push(sequence);
        }
    }

    /// Fills the batch: sequences with one token to go first, then prompts, as far as the chunk goes.
    fn gather(&mut self) -> Result<(), SessionError> {
        let most = self.engine.bounds().tokens as usize;
        let Self { running, cache, batch, parts, .. } = self;
        batch.clear();
        parts.clear();
        for decoding in [true, false] {
            for (index, sequence) in running.iter_mut().enumerate() {
                let left = sequence.tokens.len() - sequence.cached;
                let count = part(left, most - batch.tokens(), most);
                if (left == 1) != decoding || count == 0 {
                    continue;
                }
                if cache.grow(&mut sequence.lease, sequence.cached + count) {
                    batch.push(sequence, count);
                    parts.push((index, count));
                }
            }
        }
        if parts.is_empty() && !running.is_empty() { Err(SessionError::Pages) } else { Ok(()) }
    }
}

/// How many of a sequence's `left` tokens a step takes that has `room` for so many of its `most`.
///
/// A part that is not the last ends at a tile of the scan, so that neighbours, which decide the room, do not
/// decide the bits. Where steps are shorter than a tile, a prompt waits for a whole step.
fn part(left: usize, room: usize, most: usize) -> usize {
    if left <= room {
        return left;
    }
    let tile = (TILE_TOKENS as usize).min(most);
    room / tile * tile
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_end_at_tiles() {
        assert_eq!(part(10, 512, 512), 10);
        assert_eq!(part(600, 512, 512), 512);
        assert_eq!(part(600, 509, 512), 448);
        assert_eq!(part(600, 60, 512), 0);
        assert_eq!((part(600, 32, 32), part(600, 31, 32)), (32, 0));
    }
}
