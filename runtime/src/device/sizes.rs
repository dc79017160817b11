//! Bytes of everything that a plan needs under some options: one computation for all devices.

use nemo_ir::plan::{Placement, Plan, StateUnit};
use nemo_ir::step::StepInput;
use nemo_ir::types::{Dtype, Symbol};

use crate::step::Bounds;

/// Bytes of everything that a plan needs under some options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizes {
    /// By weight, as kernels read it.
    pub weights: Vec<u64>,
    /// By state: all slots or pages of it.
    pub states: Vec<u64>,
    /// The arena of the largest program.
    pub arena: u64,
    /// Counters of the workspace.
    pub counters: u64,
    /// Partial results of the workspace.
    pub partials: u64,
    /// By input, in the order of the contract.
    pub inputs: Vec<u64>,
    /// By table.
    pub tables: Vec<u64>,
    /// `[L, V]` of the largest step.
    pub logits: u64,
    /// `[R]`.
    pub next: u64,
}

impl Sizes {
    /// For steps of up to `seqs` sequences; a device that fills steps up to a number of its own needs more room than
    /// the bounds say. No sum or product wraps, whatever the plan says: what is too much is refused for its size.
    pub(super) fn of(plan: &Plan, bounds: &Bounds, seqs: u64) -> Self {
        let tokens = plan.programs.iter().map(|program| program.max_tokens).max().unwrap_or(1);
        let value = |symbol| match symbol {
            // A row is a token of the step, so there are never more.
            Symbol::T | Symbol::L => tokens,
            Symbol::R => seqs,
            Symbol::S => bounds.slots,
            Symbol::P => bounds.pages_per_seq,
            Symbol::N => bounds.pages,
        };
        let units = |per| match per {
            StateUnit::Slot => value(Symbol::S),
            StateUnit::Page => value(Symbol::N),
        };
        // One more element everywhere is what `seq_start` wants, and harms nobody.
        let input = |input: &StepInput| input.ty().bytes(value).saturating_add(4);
        let weight = |placement| match placement {
            Placement::InPlace(dtype) => dtype,
            Placement::WidenedToF32 => Dtype::F32,
        };
        let weights = plan.weights.iter();
        let workspace = plan.workspace.unwrap_or_default();
        Self {
            weights: weights.map(|w| product(&[product(&w.shape), weight(w.placement).bytes()])).collect(),
            states: plan
                .states
                .iter()
                .map(|state| product(&[state.unit_bytes(), units(state.per)]))
                .collect(),
            arena: plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0),
            counters: product(&[workspace.counters, 4]),
            partials: workspace.partials,
            inputs: StepInput::ALL.iter().map(input).collect(),
            tables: plan
                .tables
                .iter()
                .map(|table| product(&[bounds.max_context, table.head_dim, 4]))
                .collect(),
            logits: product(&[value(Symbol::L), bounds.vocab, 4]),
            next: product(&[seqs, 4]),
        }
    }

    /// Everything but weights, states and the workspace.
    pub(super) fn buffers(&self) -> u64 {
        total(&[self.arena, total(&self.inputs), total(&self.tables), self.logits, self.next])
    }
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, n| product.saturating_mul(*n))
}

/// The sum, or as much as there is.
pub(super) fn total(bytes: &[u64]) -> u64 {
    bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Place of an input among the inputs: its place in the contract.
pub(super) fn place(input: StepInput) -> usize {
    input as usize
}

#[cfg(test)]
mod tests {
    use nemo_ir::plan::{Limits, Phase, Program, State, Weight, Workspace};
    use nemo_ir::rope::RopeTable;

    use super::*;

    fn plan(most: u64) -> Plan {
        let program = Program {
            phase: Phase::Prefill,
            min_tokens: 1,
            max_tokens: most,
            max_seqs: most,
            arena_bytes: 1 << 46,
            blocks: Vec::new(),
            calls: Vec::new(),
        };
        let state = |per| State { name: "s".to_owned(), per, dtype: Dtype::F32, shape: vec![1 << 44] };
        let weight = |placement| Weight { names: vec!["w".to_owned()], shape: vec![3, 5], placement };
        Plan {
            target: "t".to_owned(),
            limits: Limits { vocab: most, max_context: most, max_seqs: most, chunk: most },
            kernels: Vec::new(),
            weights: vec![weight(Placement::InPlace(Dtype::Bf16)), weight(Placement::WidenedToF32)],
            states: vec![state(StateUnit::Slot), state(StateUnit::Page), state(StateUnit::Page)],
            tables: vec![RopeTable { theta: 1e4, head_dim: 8192, positions: most, scaling: None }; 3],
            workspace: Some(Workspace { counters: 7, partials: 100 }),
            programs: vec![program],
        }
    }

    #[test]
    fn no_size_wraps() {
        let most = i32::MAX as u64;
        let mut plan = plan(most);
        let bounds = Bounds::of(&plan, most, most);
        assert_eq!(bounds.pages, most);
        let sizes = Sizes::of(&plan, &bounds, bounds.seqs);
        assert_eq!(total(&sizes.states), u64::MAX);
        assert_eq!(sizes.logits, most * most * 4);
        assert!(sizes.buffers() > sizes.logits);
        assert_eq!((sizes.weights, sizes.counters, sizes.partials), (vec![30, 60], 28, 100));
        plan.programs[0].max_tokens = u64::MAX;
        assert_eq!(Sizes::of(&plan, &bounds, bounds.seqs).buffers(), u64::MAX);
    }

    #[test]
    fn inputs_have_their_places() {
        assert!(StepInput::ALL.iter().enumerate().all(|(n, input)| place(*input) == n));
    }
}
