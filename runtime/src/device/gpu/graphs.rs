//! Recorded decode steps.
//!
//! A decode step is hundreds of short launches, whose cost on the CPU a recording saves. Grids depend on the number of
//! sequences and never on the context, and inputs have fixed places, so what was recorded for a number of
//! sequences stays valid. Steps of other numbers are filled up with sequences that write nothing.

use std::collections::HashMap;

use nemo_ir::plan::{self, Phase};

use super::driver::GraphId;
use crate::step::Bounds;

/// Sizes of steps that are recorded of a program, ascending: powers of two that the program serves, as far as
/// the engine's steps go.
pub(super) fn buckets(program: &plan::Program, bounds: &Bounds) -> Vec<u64> {
    let most = program.max_tokens.min(program.max_seqs).min(bounds.seqs.next_power_of_two());
    let powers = (0..63).map(|power| 1_u64 << power).take_while(|bucket| *bucket <= most);
    match program.phase {
        Phase::Decode => powers.filter(|bucket| *bucket >= program.min_tokens).collect(),
        Phase::Prefill => Vec::new(),
    }
}

/// The recorded steps: by program, and by bucket.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    recorded: HashMap<(usize, u64), GraphId>,
}

impl Graphs {
    /// The recording of a program's steps of so many sequences.
    pub(super) fn get(&self, program: usize, bucket: u64) -> Option<GraphId> {
        self.recorded.get(&(program, bucket)).copied()
    }

    /// Keeps a recording.
    pub(super) fn insert(&mut self, program: usize, bucket: u64, graph: GraphId) {
        self.recorded.insert((program, bucket), graph);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(phase: Phase, (min_tokens, max_tokens): (u64, u64), seqs: u64) -> Vec<u64> {
        let (blocks, calls) = (Vec::new(), Vec::new());
        let max_seqs = max_tokens;
        let program =
            plan::Program { phase, min_tokens, max_tokens, max_seqs, arena_bytes: 0, blocks, calls };
        let bounds = Bounds {
            vocab: 1,
            max_context: 1,
            tokens: 1,
            seqs,
            decode_seqs: 1,
            slots: 1,
            pages: 1,
            pages_per_seq: 1,
        };
        buckets(&program, &bounds)
    }

    #[test]
    fn buckets_stay_in_their_range() {
        assert_eq!(of(Phase::Decode, (1, 1), 64), [1]);
        assert_eq!(of(Phase::Decode, (2, 8), 64), [2, 4, 8]);
        assert_eq!(of(Phase::Decode, (9, 64), 64), [16, 32, 64]);
        assert_eq!(of(Phase::Decode, (9, 64), 20), [16, 32]);
        assert!(of(Phase::Decode, (9, 12), 64).is_empty());
        assert_eq!(of(Phase::Decode, (1, 3), 3), [1, 2]);
        assert!(of(Phase::Prefill, (1, 512), 64).is_empty());
    }
}
