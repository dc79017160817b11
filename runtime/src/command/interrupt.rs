//! Ctrl-C stops an answer, and ends the program where there is none. A script, which goes on with its next line, is
//! also ended by a second one within an answer.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::chat::Writer;
use crate::session::{Grown, Hook, Verdict};

/// What shells say of a program that Ctrl-C has ended.
const ENDED: i32 = 130;

/// What the signal finds, and leaves.
#[derive(Debug, Clone)]
pub(super) struct Interrupt {
    /// No answer is being given: the signal ends the program.
    idle: Arc<AtomicBool>,
    /// The signal has come.
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// What a hook of it stops an answer for.
    pub(super) const REASON: &'static str = "interrupt";

    /// Listens from now on.
    pub(super) fn new(writer: Writer) -> io::Result<Self> {
        let interrupt = Self { idle: Arc::new(true.into()), raised: Arc::new(false.into()) };
        // In this order: a signal that is the first finds its own flag still down.
        match writer {
            Writer::Person => {
                flag::register_conditional_default(SIGINT, Arc::clone(&interrupt.idle))?;
            }
            Writer::Script => {
                flag::register_conditional_shutdown(SIGINT, ENDED, Arc::clone(&interrupt.idle))?;
                flag::register_conditional_shutdown(SIGINT, ENDED, Arc::clone(&interrupt.raised))?;
            }
        }
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
    use std::process::{Command, Output};

    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn the_signal_stops_an_answer_and_not_the_program() {
        let interrupt = Interrupt::new(Writer::Person).unwrap();
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
        // Impatience does no harm to a person's chat.
        interrupt.during(|| (0..3).for_each(|_| raise(SIGINT).unwrap()));
    }

    /// Names what a process of its own is to do in place of the test that has started it.
    const TRIAL: &str = "NEMORT_TEST_INTERRUPT";

    #[test]
    fn a_script_is_ended_by_a_signal_that_has_nothing_to_stop() {
        let test = "command::interrupt::tests::a_script_is_ended_by_a_signal_that_has_nothing_to_stop";
        if let Ok(trial) = std::env::var(TRIAL) {
            return try_out(&trial);
        }
        let run = |trial: &str| -> Output {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", test, "--nocapture"]).env(TRIAL, trial).output().unwrap()
        };
        for (trial, code) in [("twice", ENDED), ("idle", ENDED), ("before", ENDED), ("each", 0)] {
            let output = run(trial);
            assert_eq!(output.status.code(), Some(code), "{trial}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("begun"), "{trial}: {output:?}");
        }
    }

    fn try_out(trial: &str) {
        let interrupt = Interrupt::new(Writer::Script).unwrap();
        let answer = |signals: u32| {
            interrupt.during(|| (0..signals).for_each(|_| raise(SIGINT).unwrap()));
            assert_eq!(interrupt.hook().before().is_break(), signals > 0);
        };
        eprintln!("begun");
        match trial {
            "twice" => answer(2),
            "before" => raise(SIGINT).unwrap(),
            "idle" => {
                answer(0);
                raise(SIGINT).unwrap();
            }
            // One for every answer stops each of them.
            _ => [1, 0, 1, 1].into_iter().for_each(answer),
        }
    }
}
