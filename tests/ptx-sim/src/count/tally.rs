//! Counting while running.

use super::{Counts, KindCounts};
use crate::decode::op::KINDS;

/// Counts by kind as arrays, and the rest as it will be reported.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub warp: [u64; KINDS + 1],
    pub thread: [u64; KINDS + 1],
    pub counts: Counts,
}

impl Tally {
    /// The report.
    pub(crate) fn finish(self) -> Counts {
        Counts {
            warp_instructions: by_kind(&self.warp),
            thread_instructions: by_kind(&self.thread),
            ..self.counts
        }
    }
}

fn by_kind(counts: &[u64; KINDS + 1]) -> KindCounts {
    let &[integer, float, fma, special, convert, memory, atomic, tensor, copy, shuffle, barrier, branch, _] =
        counts;
    KindCounts {
        integer,
        float,
        fma,
        special,
        convert,
        memory,
        atomic,
        tensor,
        copy,
        shuffle,
        barrier,
        branch,
    }
}
