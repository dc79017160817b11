//! Threads that do the same work at the same time, round after round, against a clock.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

/// Turns of a spin loop before a waiting thread gives its core away, as in the runtime's pool.
const SPINS: u32 = 500;

/// Rounds of every figure: an odd number, whose median is one of them.
const ROUNDS: usize = 9;

/// A meeting of all threads, made as the runtime's is: it is one of the things measured.
pub(super) struct Barrier {
    threads: u32,
    arrived: Line,
    meetings: Line,
}

/// A counter with cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

impl Barrier {
    fn new(threads: u32) -> Self {
        Self { threads, arrived: Line::default(), meetings: Line::default() }
    }

    /// Returns when every thread has come here.
    pub(super) fn wait(&self) {
        // Stable until this thread arrives: a meeting completes only when all have.
        let meeting = self.meetings.0.load(Ordering::Relaxed);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.meetings.0.store(meeting.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.meetings.0.load(Ordering::Acquire) == meeting {
            if spins < SPINS {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// What the rounds of one figure gave, sorted; not empty.
pub(super) struct Rounds(Vec<f64>);

impl Rounds {
    /// Turns the seconds of a round into a figure, to three digits: more would say nothing.
    pub(super) fn map(self, figure: impl Fn(f64) -> f64) -> Self {
        let mut figures: Vec<f64> = self.0.into_iter().map(|seconds| three_digits(figure(seconds))).collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    pub(super) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// For the file: what was done, how often, and how far apart the rounds were.
    pub(super) fn note(&self, what: &str) -> String {
        let Self(figures) = self;
        format!("{what}; {} rounds, {} to {}", figures.len(), figures[0], figures[figures.len() - 1])
    }
}

fn three_digits(figure: f64) -> f64 {
    // Written and read again, so that it is the number that its digits say.
    format!("{figure:.2e}").parse().unwrap_or(figure)
}

/// Seconds of each round, after one that only warms up. Every thread makes its own data first, so that
/// the memory is near it.
pub(super) fn rounds<T>(
    threads: u64,
    data: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, &Barrier) + Sync,
) -> std::io::Result<Rounds> {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    let barrier = Barrier::new(threads);
    let ready = Gate::default();
    let body = || {
        let mut data = data();
        (0..=ROUNDS)
            .map(|_| {
                barrier.wait();
                let begin = Instant::now();
                work(&mut data, &barrier);
                barrier.wait();
                begin.elapsed().as_secs_f64()
            })
            .collect::<Vec<f64>>()
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            let helper = || {
                if ready.opened() {
                    body();
                }
            };
            // Where one thread is missing, the others would wait for it for ever.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, helper) {
                ready.set(Gate::SHUT);
                return Err(error);
            }
        }
        ready.set(Gate::OPEN);
        // The clock is too coarse for no time at all, by which nothing can be divided.
        let seconds = body().into_iter().skip(1).map(|seconds| seconds.max(1e-9));
        Ok(Rounds(seconds.collect()))
    })
}

/// Says to the threads whether all of them are there.
#[derive(Default)]
struct Gate(AtomicU32);

impl Gate {
    const OPEN: u32 = 1;
    const SHUT: u32 = 2;

    fn set(&self, state: u32) {
        self.0.store(state, Ordering::Release);
    }

    fn opened(&self) -> bool {
        loop {
            match self.0.load(Ordering::Acquire) {
                Self::OPEN => return true,
                Self::SHUT => return false,
                _ => thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_works_in_every_round_and_nobody_runs_ahead() {
        for threads in [1, 2, 5] {
            let count = AtomicU32::new(0);
            let all = rounds(
                threads,
                || 0_u32,
                |own, barrier| {
                    *own += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                    barrier.wait();
                    assert_eq!(count.load(Ordering::Relaxed), *own * threads as u32);
                },
            );
            assert_eq!(count.into_inner(), (ROUNDS as u32 + 1) * threads as u32);
            assert!(all.is_ok_and(|all| all.0.len() == ROUNDS && all.0.iter().all(|seconds| *seconds > 0.0)));
        }
    }

    #[test]
    fn figures_are_sorted_and_have_three_digits() {
        let rounds = Rounds(vec![2.0, 1.0, 3.0]).map(|seconds| 1234.5 / seconds);
        assert_eq!(rounds.0, [412.0, 617.0, 1230.0]);
        assert_eq!(rounds.median(), 617.0);
        assert_eq!(rounds.note("x"), "x; 3 rounds, 412 to 1230");
    }
}
