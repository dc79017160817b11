//! A pool of pinned threads that run one job together, with barriers inside it.
//!
//! The caller is thread 0. Workers spin for a little while between jobs, then park; at barriers they
//! spin, then yield, so that a machine with fewer free cores than threads still makes progress.

#![allow(unsafe_code, reason = "the job is shared with the workers by address; affinity is set by libc")]

use std::cell::{Cell, UnsafeCell};
use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

/// Stack of every worker: kernels may use a MiB of it.
const STACK: usize = 8 << 20;

/// Stack that the caller must have left to run a share of a job itself.
const STACK_NEEDED: usize = 3 << 19;

/// Turns of a spin loop before a thread at a barrier gives its core away: some 30 us, after which a
/// yield is cheap beside what is being waited for.
const BARRIER_SPINS: u32 = 500;

/// The same where threads outnumber cores: the one waited for needs the core.
const CROWDED_SPINS: u32 = 20;

/// Turns of a spin loop, and then yields, before an idle worker parks.
const IDLE_SPINS: u32 = 20_000;
const IDLE_YIELDS: u32 = 50;

/// Which threads are bound to a core each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Workers and the thread that made the pool: for a program whose business is the model.
    All,
    /// Workers only: for a library, which leaves its caller alone.
    #[default]
    Workers,
    /// None: for many pools at once.
    None,
}

/// A thread's part in a job.
#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    /// Which one, from 0.
    pub thread: u32,
    /// Of how many.
    pub threads: u32,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// Returns when every thread of the job has come here.
    pub fn barrier(&self) {
        self.barrier.wait(self.threads);
    }

    /// This thread's contiguous share of `count` items.
    pub fn share(&self, count: usize) -> std::ops::Range<usize> {
        let at = |thread: u32| (count as u128 * u128::from(thread) / u128::from(self.threads)) as usize;
        at(self.thread)..at(self.thread + 1)
    }
}

/// A counter of arrivals and one of completed meetings, a cache line apart.
#[derive(Debug, Default)]
struct Barrier {
    arrived: Line<AtomicU32>,
    meetings: Line<AtomicU32>,
    /// Turns of the spin loop before yielding.
    spins: u32,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

impl Barrier {
    fn wait(&self, threads: u32) {
        // Stable until this thread arrives: a meeting completes only when all have.
        let meeting = self.meetings.0.load(Ordering::Relaxed);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.meetings.0.store(meeting.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.meetings.0.load(Ordering::Acquire) == meeting {
            if spins < self.spins {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

type Job = dyn Fn(Worker<'_>) + Sync;

/// What the caller and the workers share.
struct Shared {
    threads: u32,
    /// Counts jobs; a change wakes the workers.
    epoch: AtomicU64,
    /// The current job; valid from the change of `epoch` to the job's last barrier.
    job: UnsafeCell<Option<*const Job>>,
    stop: AtomicBool,
    barrier: Barrier,
    /// Which workers have parked, or are about to.
    parked: Vec<AtomicBool>,
}

// SAFETY: `job` is written by the caller only while every worker waits for `epoch` to change, and read
// by workers only after it has; the rest is atomic.
unsafe impl Sync for Shared {}
// SAFETY: the job's address is used only between those two points, during which the caller keeps the
// job alive.
unsafe impl Send for Shared {}

/// Threads that wait for jobs.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.shared.threads).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(threads: u32, pinning: Pinning) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let cores = allowed_cores();
        // With more threads than cores, two would be bound to one core.
        let pinned =
            |thread: u32| cores.get(thread as usize).copied().filter(|_| threads as usize <= cores.len());
        let shared = Arc::new(Shared {
            threads,
            epoch: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            barrier: Barrier {
                spins: if threads as usize <= cores.len() { BARRIER_SPINS } else { CROWDED_SPINS },
                ..Barrier::default()
            },
            parked: (0..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let core = pinned(thread).filter(|_| pinning != Pinning::None);
            let worker = thread::Builder::new()
                .name(format!("nemort-{thread}"))
                .stack_size(STACK)
                .spawn(move || work(&shared, thread, core))?;
            pool.workers.push(worker);
        }
        if let Some(core) = pinned(0).filter(|_| pinning == Pinning::All) {
            pin(core);
        }
        Ok(pool)
    }

    /// How many threads run a job.
    pub fn threads(&self) -> u32 {
        self.shared.threads
    }

    /// Runs `job` on every thread at once and returns when all have finished.
    ///
    /// A panic inside a job ends the process: the other threads would wait for ever. So does a caller deep
    /// in a small stack for whom the system has no thread with a larger one; [`Pool::try_run`] tells.
    pub fn run(&mut self, job: &(dyn Fn(Worker<'_>) + Sync)) {
        if let Err(error) = self.try_run(job) {
            eprintln!("error: cannot start a thread with the stack that a job needs: {error}");
            std::process::abort();
        }
    }

    /// As [`Pool::run`].
    ///
    /// # Errors
    /// When the caller's stack is too small and the system gives no thread with a larger one; no thread has
    /// begun then.
    pub fn try_run(&mut self, job: &(dyn Fn(Worker<'_>) + Sync)) -> std::io::Result<()> {
        if stack_left() >= STACK_NEEDED {
            lead(&self.shared, &self.workers, job);
            return Ok(());
        }
        // Rare (a library caller deep in a small stack), so a thread for one job is cheap enough.
        thread::scope(|scope| {
            let lead = || lead(&self.shared, &self.workers, job);
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, lead).map(|_| ())
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        wake(&self.shared, &self.workers);
        for worker in self.workers.drain(..) {
            // A worker that panicked has ended the process already.
            let _ = worker.join();
        }
    }
}

/// Ends the process when dropped by a panic.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Thread 0's side of a job.
fn lead(shared: &Shared, workers: &[JoinHandle<()>], job: &(dyn Fn(Worker<'_>) + Sync)) {
    let _guard = AbortOnPanic;
    // SAFETY: only the lifetime is erased; the last barrier below is passed after every worker has
    // returned from the job, so no worker uses it after this function returns.
    let job_address = unsafe { std::mem::transmute::<&(dyn Fn(Worker<'_>) + Sync), *const Job>(job) };
    // SAFETY: every worker waits for the epoch to change and reads no job until then.
    unsafe { *shared.job.get() = Some(job_address) };
    wake(shared, workers);
    job(Worker { thread: 0, threads: shared.threads, barrier: &shared.barrier });
    shared.barrier.wait(shared.threads);
}

fn wake(shared: &Shared, workers: &[JoinHandle<()>]) {
    // Sequentially consistent against the worker's "parked, then look again".
    shared.epoch.fetch_add(1, Ordering::SeqCst);
    for (worker, parked) in workers.iter().zip(&shared.parked[1..]) {
        if parked.swap(false, Ordering::SeqCst) {
            worker.thread().unpark();
        }
    }
}

fn work(shared: &Shared, thread: u32, core: Option<usize>) {
    if let Some(core) = core {
        pin(core);
    }
    let _guard = AbortOnPanic;
    let mut seen = 0;
    loop {
        seen = next_epoch(shared, thread, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the epoch has changed, so the caller has stored a job and keeps it alive until this
        // thread passes the barrier below.
        if let Some(job) = unsafe { *shared.job.get() } {
            // SAFETY: as above.
            let job = unsafe { &*job };
            job(Worker { thread, threads: shared.threads, barrier: &shared.barrier });
        }
        shared.barrier.wait(shared.threads);
    }
}

/// Waits until the epoch is no longer `seen`.
fn next_epoch(shared: &Shared, thread: u32, seen: u64) -> u64 {
    let look = || Some(shared.epoch.load(Ordering::SeqCst)).filter(|epoch| *epoch != seen);
    for turn in 0..IDLE_SPINS + IDLE_YIELDS {
        if let Some(epoch) = look() {
            return epoch;
        }
        if turn < IDLE_SPINS { hint::spin_loop() } else { thread::yield_now() }
    }
    let parked = &shared.parked[thread as usize];
    loop {
        parked.store(true, Ordering::SeqCst);
        if let Some(epoch) = look() {
            parked.store(false, Ordering::SeqCst);
            return epoch;
        }
        thread::park();
    }
}

/// Cores that this process may use, as it was started: a thread pinned later sees only its own.
pub fn allowed_cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        // SAFETY: a zeroed cpu_set_t is an empty set, and the call fills at most its size.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
                return Vec::new();
            }
            set
        };
        // SAFETY: the index is below the set's size.
        (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
    })
}

/// Threads that a pool has unless told otherwise: the cores, or the control group's share of them.
pub fn default_threads() -> u32 {
    static THREADS: OnceLock<u32> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let cores = allowed_cores().len().max(1);
        let parallelism = thread::available_parallelism().map_or(cores, |count| count.get());
        u32::try_from(parallelism.min(cores)).unwrap_or(1)
    })
}

/// Binds the calling thread to a core; a refusal changes nothing but speed.
fn pin(core: usize) {
    // SAFETY: the core came from a set of the same type, and the call only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Bytes of stack below the caller; plenty where the system does not say.
fn stack_left() -> usize {
    thread_local! {
        static LOWEST: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let marker = 0_u8;
    let here = &raw const marker as usize;
    LOWEST.with(|lowest| {
        let low = lowest.get().unwrap_or_else(|| {
            let low = lowest_stack_address().unwrap_or(0);
            lowest.set(Some(low));
            low
        });
        here.saturating_sub(low)
    })
}

fn lowest_stack_address() -> Option<usize> {
    // SAFETY: the attributes are initialised by the first call before they are read, and destroyed once.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let mut low = std::ptr::null_mut();
        let mut size = 0;
        let status = libc::pthread_attr_getstack(&attributes, &mut low, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        (status == 0).then_some(low as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_thread_runs_every_job_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads, Pinning::None).unwrap();
            for _ in 0..50 {
                let mask = AtomicUsize::new(0);
                pool.run(&|worker| {
                    mask.fetch_add(1 << (8 * worker.thread), Ordering::Relaxed);
                });
                let wanted: usize = (0..threads).map(|thread| 1_usize << (8 * thread)).sum();
                assert_eq!(mask.load(Ordering::Relaxed), wanted);
            }
        }
    }

    #[test]
    fn nobody_passes_a_barrier_early_on_an_oversubscribed_machine() {
        let mut pool = Pool::new(6, Pinning::Workers).unwrap();
        let count = AtomicUsize::new(0);
        pool.run(&|worker| {
            for round in 1..=200 {
                count.fetch_add(1, Ordering::Relaxed);
                worker.barrier();
                assert_eq!(count.load(Ordering::Relaxed), round * 6);
                worker.barrier();
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1200);
    }

    #[test]
    fn parked_workers_wake() {
        let mut pool = Pool::new(2, Pinning::None).unwrap();
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(30));
            let ran = AtomicUsize::new(0);
            pool.run(&|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        let barrier = Barrier::default();
        for (count, threads) in [(0, 3), (7, 3), (2, 5), (1000, 16)] {
            let mut next = 0;
            for thread in 0..threads {
                let share = Worker { thread, threads, barrier: &barrier }.share(count);
                assert_eq!(share.start, next);
                next = share.end;
            }
            assert_eq!(next, count);
        }
    }

    #[test]
    fn a_small_stack_gets_a_larger_one_for_the_job() {
        let caller = thread::Builder::new().stack_size(256 << 10).spawn(|| {
            let mut pool = Pool::new(2, Pinning::None).unwrap();
            let least = AtomicUsize::new(usize::MAX);
            pool.try_run(&|_| {
                least.fetch_min(stack_left(), Ordering::Relaxed);
            })
            .unwrap();
            least.load(Ordering::Relaxed)
        });
        assert!(caller.unwrap().join().unwrap() >= STACK_NEEDED);
    }
}
