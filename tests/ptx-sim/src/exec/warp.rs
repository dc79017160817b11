//! The state of a warp.

use crate::check::ByteSet;
use crate::decode::Code;
use crate::decode::op::{L32, L64, NO_JOIN};

/// Lanes that execute together, until they reach their join.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strand {
    pub at: u32,
    pub join: u32,
    pub mask: u32,
    /// Made by a call: its lanes go on below when they return.
    pub call: bool,
}

/// Whether a warp can execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// A wait on an mbarrier failed; it may be tried again.
    Polling,
    AtBarrier(u32),
    Done,
}

/// A `cp.async` of one lane that was not waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingCopy {
    pub lane: u8,
    pub bytes: u8,
    /// Number of the lane's group.
    pub group: u32,
    /// Offset in shared memory.
    pub to: u32,
    pub data: [u8; 16],
}

/// A warp.
#[derive(Debug)]
pub(crate) struct Warp {
    pub id: u32,
    /// Lanes that exist.
    threads: u32,
    pub w: Vec<L32>,
    pub d: Vec<L64>,
    /// Predicates, a bit for each lane. The first is true.
    pub p: Vec<u32>,
    /// Carry flags.
    pub carry: u32,
    /// Lanes that have not exited.
    pub live: u32,
    /// The innermost strand executes.
    pub strands: Vec<Strand>,
    pub state: State,
    /// Local memory, lane after lane.
    pub frame: Vec<u8>,
    pub frame_bytes: usize,
    pub frame_written: ByteSet,
    pub copies: Vec<PendingCopy>,
    /// Number of the group that each lane fills.
    pub group: [u32; 32],
    /// The same for bulk stores.
    pub bulk_group: [u32; 32],
    /// Number of the group of `wgmma`s that the warp fills.
    pub product_group: u32,
    /// Instructions executed.
    pub executed: u64,
    /// The instruction that was executed last.
    pub current: Option<usize>,
}

impl Warp {
    pub(crate) fn new(id: u32, threads: u32, code: &Code) -> Self {
        let mine = (threads - id * 32).min(32);
        let frame_bytes = code.frame_bytes as usize;
        Self {
            id,
            threads: u32::MAX >> (32 - mine),
            w: vec![[0; 32]; code.w as usize],
            d: vec![[0; 32]; code.d as usize],
            p: vec![0; code.p as usize],
            carry: 0,
            live: 0,
            strands: Vec::with_capacity(16),
            state: State::Ready,
            frame: vec![0; frame_bytes * 32],
            frame_bytes,
            frame_written: ByteSet::new(frame_bytes * 32),
            copies: Vec::new(),
            group: [0; 32],
            bulk_group: [0; 32],
            product_group: 0,
            executed: 0,
            current: None,
        }
    }

    /// The state at the start of a CTA.
    pub(crate) fn restart(&mut self) {
        self.w.fill([0; 32]);
        self.d.fill([0; 32]);
        self.p.fill(0);
        self.p[0] = u32::MAX;
        self.carry = 0;
        self.live = self.threads;
        self.strands.clear();
        self.strands.push(Strand { at: 0, join: NO_JOIN, mask: self.threads, call: false });
        self.state = State::Ready;
        self.frame_written.clear();
        self.copies.clear();
        self.group = [0; 32];
        self.bulk_group = [0; 32];
        self.product_group = 0;
        self.executed = 0;
        self.current = None;
    }

    /// The instruction at which it stands.
    pub(crate) fn waits_at(&self) -> Option<usize> {
        self.current
    }
}
