//! Hooks: what watches a sequence grow and governs what comes next.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What a hook may know when a token has been sampled.
#[derive(Debug, Clone, Copy)]
pub struct Grown<'a> {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Every new token so far, the one just sampled last.
    pub generated: &'a [u32],
}

/// A hook's answer. Where hooks disagree, one that stops decides, and else the first that forces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The next token is sampled.
    Continue,
    /// These tokens come next, in place of sampled ones.
    Force(Vec<u32>),
    /// The sequence ends here, for this reason.
    Stop(String),
}

impl Verdict {
    /// The answer of several hooks together; `self` is that of those before.
    pub(super) fn and(self, next: Self) -> Self {
        match (&self, &next) {
            (Self::Stop(_), _) | (Self::Force(_), Self::Continue | Self::Force(_)) => self,
            _ => next,
        }
    }
}

/// Sees each sampled token, which stands.
pub trait Hook: Send {
    /// What the first new token is to be, asked once, when the sequence gets its slot.
    fn begin(&mut self, prompt: &[u32]) -> Verdict {
        let _ = prompt;
        Verdict::Continue
    }

    /// Whether there is to be another step, asked before each: a long prompt is read in many. A break
    /// ends the sequence for that reason.
    fn before(&mut self) -> ControlFlow<String> {
        ControlFlow::Continue(())
    }

    /// What follows `token`.
    fn after(&mut self, token: u32, grown: Grown<'_>) -> Verdict;
}

/// Stops a sequence when its time is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    until: Option<Instant>,
}

impl Deadline {
    /// Reason that this hook gives.
    pub const REASON: &'static str = "deadline";

    /// A deadline this long from now.
    pub fn after(limit: Duration) -> Self {
        // A limit past the clock's end is no limit.
        Self { until: Instant::now().checked_add(limit) }
    }
}

impl Deadline {
    fn has_passed(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Hook for Deadline {
    fn before(&mut self) -> ControlFlow<String> {
        if self.has_passed() {
            ControlFlow::Break(Self::REASON.to_owned())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn after(&mut self, _token: u32, _grown: Grown<'_>) -> Verdict {
        if self.has_passed() { Verdict::Stop(Self::REASON.to_owned()) } else { Verdict::Continue }
    }
}

/// Stops a sequence when its prompt and its new tokens together are this many.
#[derive(Debug, Clone, Copy)]
pub struct TotalTokens {
    most: usize,
}

impl TotalTokens {
    /// Reason that this hook gives.
    pub const REASON: &'static str = "total-tokens";

    /// At most this many tokens; a prompt that has them already gets no new one.
    pub fn new(most: usize) -> Self {
        Self { most }
    }

    fn verdict(self, tokens: usize) -> Verdict {
        if tokens >= self.most { Verdict::Stop(Self::REASON.to_owned()) } else { Verdict::Continue }
    }
}

impl Hook for TotalTokens {
    fn begin(&mut self, prompt: &[u32]) -> Verdict {
        self.verdict(prompt.len())
    }

    fn after(&mut self, _token: u32, grown: Grown<'_>) -> Verdict {
        self.verdict(grown.prompt_tokens + grown.generated.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_decides_and_else_the_first_to_force() {
        let force = |token| Verdict::Force(vec![token]);
        let stop = || Verdict::Stop("a".to_owned());
        assert_eq!(Verdict::Continue.and(force(1)), force(1));
        assert_eq!(force(1).and(Verdict::Continue), force(1));
        assert_eq!(force(1).and(force(2)), force(1));
        assert_eq!(force(1).and(stop()), stop());
        assert_eq!(stop().and(force(1)), stop());
        assert_eq!(stop().and(Verdict::Stop("b".to_owned())), stop());
    }

    #[test]
    fn a_deadline_stops_when_it_has_passed() {
        let grown = Grown { prompt_tokens: 1, generated: &[1] };
        assert_eq!(
            Hook::after(&mut Deadline::after(Duration::ZERO), 1, grown),
            Verdict::Stop("deadline".to_owned())
        );
        assert_eq!(Hook::after(&mut Deadline::after(Duration::MAX), 1, grown), Verdict::Continue);
        assert_eq!(Deadline::after(Duration::ZERO).before(), ControlFlow::Break("deadline".to_owned()));
        assert_eq!(Deadline::after(Duration::MAX).before(), ControlFlow::Continue(()));
    }
}
