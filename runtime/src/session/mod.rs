//! Sessions: requests become sequences, sequences become steps.
//!
//! Sequences join and leave between steps. A step takes the newest token of every sequence that has
//! its prompt behind it, and as much of the waiting prompts as its chunk holds.

mod batch;
mod cache;
mod hook;
mod sampling;

use std::collections::VecDeque;

use thiserror::Error;

use self::batch::Batch;
use self::cache::{Cache, Lease};
use crate::engine::Engine;
use crate::step::StepError;

pub use hook::{Deadline, Grown, Hook, Verdict};
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
    /// Asked in order after each token; the first that does not continue decides.
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

/// A new token of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sequence.
    pub sequence: SequenceId,
    /// The token.
    pub token: u32,
    /// Why it was the last one, if it was.
    pub finish: Option<Finish>,
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
}

impl Finish {
    /// `eos`, `length`, or the hook's reason.
    pub fn name(&self) -> &str {
        match self {
            Self::EndOfText => "eos",
            Self::Length => "length",
            Self::Hook(reason) => reason,
        }
    }
}

/// A sequence that has a slot.
pub(crate) struct Sequence {
    id: SequenceId,
    /// The prompt, then the new tokens.
    tokens: Vec<u32>,
    prompt: usize,
    /// Tokens that the engine's state has seen.
    cached: usize,
    lease: Lease,
    forced: VecDeque<u32>,
    max_new_tokens: usize,
    sampling: Sampling,
    end: Vec<u32>,
    hooks: Vec<Box<dyn Hook>>,
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
    /// The engine, to measure its device between steps.
    pub fn engine_mut(&mut self) -> &mut Engine {
        self.engine
    }

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

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
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

    /// Runs one step and gives the tokens that it sampled; none while prompts are being read.
    ///
    /// # Errors
    /// [`SessionError`] when the engine refuses the step; the session's sequences are as before.
    pub fn advance(&mut self) -> Result<&[Event], SessionError> {
        self.events.clear();
        self.admit();
        self.gather()?;
        if self.parts.is_empty() {
            return Ok(&self.events);
        }
        let output = self.engine.step(&self.batch.step())?;
        for ((index, count), next) in self.parts.iter().zip(output.next) {
            let sequence = &mut self.running[*index];
            sequence.cached += count;
            if sequence.cached == sequence.tokens.len() {
                // Sampled ids are below the vocabulary; -1 would mean that no row wanted logits.
                let token = u32::try_from(*next).unwrap_or(0);
                let finish = sequence.grow(token);
                self.events.push(Event { sequence: sequence.id, token, finish });
            }
        }
        let Self { running, events, cache, .. } = self;
        for event in events.iter().filter(|event| event.finish.is_some()) {
            if let Some(at) = running.iter().position(|sequence| sequence.id == event.sequence) {
                cache.give_back(running.remove(at).lease);
            }
        }
        Ok(events)
    }

    /// Runs one request to its end; `each` sees its tokens as they come.
    ///
    /// # Errors
    /// As [`Session::submit`] and [`Session::advance`].
    pub fn generate(
        &mut self,
        request: Request,
        mut each: impl FnMut(u32),
    ) -> Result<(Vec<u32>, Finish), SessionError> {
        let id = self.submit(request)?;
        let mut tokens = Vec::new();
        loop {
            for event in self.advance()?.iter().filter(|event| event.sequence == id) {
                tokens.push(event.token);
                each(event.token);
                if let Some(finish) = &event.finish {
                    return Ok((tokens, finish.clone()));
                }
            }
        }
    }

    /// Gives waiting requests the free slots.
    fn admit(&mut self) {
        while self.running.len() < self.engine.bounds().seqs as usize && !self.waiting.is_empty() {
            let Some(lease) = self.cache.lease() else { return };
            let Some((id, request)) = self.waiting.pop_front() else { return };
            let prompt = request.prompt.len();
            let mut tokens = request.prompt;
            tokens.reserve(request.max_new_tokens);
            self.running.push(Sequence {
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
            });
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
                let count = left.min(most - batch.tokens());
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

impl Sequence {
    /// Takes a sampled token; why it is the last one, if it is.
    fn grow(&mut self, token: u32) -> Option<Finish> {
        self.forced.pop_front();
        self.tokens.push(token);
        let generated = &self.tokens[self.prompt..];
        let grown = Grown { prompt_tokens: self.prompt, generated };
        let mut decided = None;
        // Every hook sees every token, whatever another has decided.
        for hook in &mut self.hooks {
            match hook.after(token, grown) {
                Verdict::Continue => {}
                verdict => decided = decided.or(Some(verdict)),
            }
        }
        match decided {
            Some(Verdict::Stop(reason)) => return Some(Finish::Hook(reason)),
            Some(Verdict::Force(tokens)) => self.forced = tokens.into(),
            Some(Verdict::Continue) | None => {}
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
