//! Ctrl-C stops an answer, and ends the program only where there is none.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::session::{Grown, Hook, Verdict};

/// What the signal finds, and leaves.
#[derive(Debug, Clone)]
pub(super) struct Interrupt {
    /// No answer is being given: the signal does what it does to every program.
    idle: Arc<AtomicBool>,
    /// The signal has come.
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// What a hook of it stops an answer for.
    pub(super) const REASON: &'static str = "interrupt";

    /// Listens from now on.
    pub(super) fn new() -> io::Result<Self> {
        let interrupt = Self { idle: Arc::new(true.into()), raised: Arc::new(false.into()) };
        flag::register_conditional_default(SIGINT, Arc::clone(&interrupt.idle))?;
        flag::register(SIGINT, Arc::clone(&interrupt.raised))?;
        Ok(interrupt)
    }

    /// Does what the signal may stop through [`Interrupt::hook`].
    pub(super) fn during<T>(&self, answer: impl FnOnce() -> T) -> T {
        self.raised.store(false, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        let answered = answer();
        self.idle.store(true, Ordering::SeqCst);
        answered
    }

    /// Stops a sequence once the signal has come.
    pub(super) fn hook(&self) -> Box<dyn Hook> {
        Box::new(self.clone())
    }
}

impl Hook for Interrupt {
    fn before(&mut self) -> ControlFlow<String> {
        if self.raised.load(Ordering::SeqCst) {
            ControlFlow::Break(Self::REASON.to_owned())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn after(&mut self, _token: u32, _grown: Grown<'_>) -> Verdict {
        // The token stands and is shown; the next step does not come.
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn the_signal_stops_an_answer_and_not_the_program() {
        let interrupt = Interrupt::new().unwrap();
        let mut hook = interrupt.hook();
        let before = interrupt.during(|| {
            let before = hook.before();
            raise(SIGINT).unwrap();
            before
        });
        assert_eq!(before, ControlFlow::Continue(()));
        assert_eq!(hook.before(), ControlFlow::Break("interrupt".to_owned()));
        // The next answer begins anew.
        interrupt.during(|| assert_eq!(hook.before(), ControlFlow::Continue(())));
    }
}
