//! Data races on shared memory, by vector clocks.
//!
//! Every warp has a clock, and knows how far it has seen the clocks of the others. An access by one warp to
//! bytes that another wrote (or that another read, if it writes) is a race unless the warp has seen the clock
//! the other had then. A barrier, and an mbarrier between arrival and wait, let warps see each other's clocks.
//! Bulk copies have a clock of their own. Threads of one warp are taken to be in order.

use crate::error::Race;

/// A warp, or the engine of bulk copies, which comes after the last warp.
pub(crate) type Agent = usize;

/// What an agent has seen of all the others.
pub(crate) type Clocks = Vec<u32>;

/// Marks a write that was atomic.
const ATOMIC: u8 = 0x80;

/// The accesses to the shared memory of a CTA.
#[derive(Debug, Default)]
pub(crate) struct Races {
    agents: usize,
    /// Log2 of the bytes that are told apart.
    granule: u32,
    granules: usize,
    clocks: Vec<Clocks>,
    writer: Vec<u8>,
    written: Vec<u32>,
    /// For each agent and granule the clock of its last read.
    read: Vec<u32>,
    /// For each agent the clock of its last read of anything.
    last_read: Vec<u32>,
    highest: u32,
}

/// A race and who made the earlier access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub race: Race,
    pub other: Agent,
    /// Offset in shared memory.
    pub at: usize,
}

impl Races {
    pub(crate) fn new(warps: usize, bytes: usize, granule: u32) -> Self {
        let agents = warps + 1;
        let granules = (bytes >> granule) + 1;
        let mut races = Self {
            agents,
            granule,
            granules,
            clocks: vec![vec![0; agents]; agents],
            writer: vec![0; granules],
            written: vec![0; granules],
            read: vec![0; granules * agents],
            last_read: vec![0; agents],
            highest: 0,
        };
        races.restart();
        races
    }

    /// A new CTA: everything so far has been seen by all.
    pub(crate) fn restart(&mut self) {
        let seen = self.highest;
        for (agent, clocks) in self.clocks.iter_mut().enumerate() {
            clocks.fill(seen);
            clocks[agent] = seen + 1;
        }
        self.highest = seen + 1;
    }

    /// The engine of bulk copies.
    pub(crate) fn engine(&self) -> Agent {
        self.agents - 1
    }

    /// What an agent has seen, for others to see; its later accesses are not part of it.
    pub(crate) fn release(&mut self, agent: Agent) -> Clocks {
        let seen = self.clocks[agent].clone();
        self.clocks[agent][agent] += 1;
        self.highest = self.highest.max(self.clocks[agent][agent]);
        seen
    }

    /// An agent sees what others released.
    pub(crate) fn acquire(&mut self, agent: Agent, seen: &[u32]) {
        merge(&mut self.clocks[agent], seen);
    }

    fn range(&self, at: usize, bytes: usize) -> std::ops::Range<usize> {
        at >> self.granule..((at + bytes - 1) >> self.granule) + 1
    }

    /// A read.
    #[inline]
    pub(crate) fn read(&mut self, agent: Agent, at: usize, bytes: usize) -> Option<Found> {
        let range = self.range(at, bytes);
        let clocks = &self.clocks[agent];
        let now = clocks[agent];
        self.last_read[agent] = now;
        for granule in range.clone() {
            let writer = usize::from(self.writer[granule] & !ATOMIC);
            if writer != agent && self.written[granule] > clocks[writer] {
                return Some(self.found(Race::WriteThenRead, writer, granule));
            }
        }
        let first = agent * self.granules;
        self.read[first + range.start..first + range.end].fill(now);
        None
    }

    /// A write; two atomic ones don't race.
    #[inline]
    pub(crate) fn write(&mut self, agent: Agent, at: usize, bytes: usize, atomic: bool) -> Option<Found> {
        let range = self.range(at, bytes);
        let clocks = &self.clocks[agent];
        for granule in range.clone() {
            let writer = self.writer[granule];
            let other = usize::from(writer & !ATOMIC);
            let both_atomic = atomic && writer & ATOMIC != 0;
            if other != agent && self.written[granule] > clocks[other] && !both_atomic {
                return Some(self.found(Race::WriteThenWrite, other, granule));
            }
        }
        for other in (0..self.agents).filter(|&other| other != agent) {
            let seen = clocks[other];
            if self.last_read[other] > seen {
                let first = other * self.granules;
                let reads = &self.read[first + range.start..first + range.end];
                if let Some(step) = reads.iter().position(|&clock| clock > seen) {
                    return Some(self.found(Race::ReadThenWrite, other, range.start + step));
                }
            }
        }
        let (now, mark) = (clocks[agent], agent as u8 | if atomic { ATOMIC } else { 0 });
        self.set(range, mark, now);
        None
    }

    /// A write that is known to be ordered, by an agent at some clock: a copy that lands.
    pub(crate) fn land(&mut self, agent: Agent, at: usize, bytes: usize, clock: u32) {
        self.set(self.range(at, bytes), agent as u8, clock);
    }

    /// The clock of an agent.
    pub(crate) fn now(&self, agent: Agent) -> u32 {
        self.clocks[agent][agent]
    }

    fn set(&mut self, range: std::ops::Range<usize>, mark: u8, clock: u32) {
        self.writer[range.clone()].fill(mark);
        self.written[range].fill(clock);
    }

    fn found(&self, race: Race, other: Agent, granule: usize) -> Found {
        Found { race, other, at: granule << self.granule }
    }
}

/// The later of two views of each clock.
pub(crate) fn merge(into: &mut [u32], seen: &[u32]) {
    for (mine, theirs) in into.iter_mut().zip(seen) {
        *mine = (*mine).max(*theirs);
    }
}
