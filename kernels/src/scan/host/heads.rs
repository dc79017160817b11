//! What the two forms of the scan share: shapes, and where a head's inputs and state lie.

use inkwell::IntPredicate;
use nemo_ir::types::{Dim, Dtype};

use crate::host::{Emit, Float, Int, Lanes, Ptr, Sequence};

/// Extents of a scan.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub heads: u64,
    pub groups: u64,
    pub head_dim: u64,
    pub state: u64,
}

/// The most f32 of one head's state that a kernel keeps on the stack.
const MAX_STATE: u64 = 1 << 16;

impl Shape {
    pub(super) fn of(e: &Emit<'_, '_>) -> Result<Self, String> {
        let (_, layout) = e.operand("ssm");
        let &[_, Dim::Const(heads), Dim::Const(state), Dim::Const(head_dim)] = &layout.ty.shape[..] else {
            return Err("the state's shape is not constant".to_owned());
        };
        if state * head_dim > MAX_STATE {
            return Err(format!("a head's state of {state} x {head_dim} exceeds {MAX_STATE} elements"));
        }
        Ok(Self { heads, groups: e.spec().int("groups"), head_dim, state })
    }

    /// Elements of one head's state.
    pub(super) fn head_state(&self) -> u64 {
        self.state * self.head_dim
    }

    /// Heads that share b and c.
    pub(super) fn heads_per_group(&self) -> u64 {
        self.heads / self.groups
    }
}

/// One head of the step.
#[derive(Clone, Copy)]
pub(super) struct Head<'c> {
    pub index: Int<'c>,
    /// -exp(a_log)
    pub decay: Float<'c>,
    /// Weight of the skip.
    pub skip: Float<'c>,
}

impl<'c> Head<'c> {
    pub(super) fn load(e: &Emit<'c, '_>, index: Int<'c>) -> Self {
        let scalar = |name: &str| e.load_scalar(e.at(e.operand(name).0, Dtype::F32, index), Dtype::F32);
        Self { index, decay: e.fneg(e.exp_scalar(scalar("a_log"))), skip: scalar("d") }
    }

    /// The step size of a row.
    pub(super) fn step_size(&self, e: &Emit<'c, '_>, row: Int<'c>) -> Float<'c> {
        e.load_scalar(e.at(e.row(e.operand("dt"), row), Dtype::F32, self.index), Dtype::F32)
    }

    /// Lanes of x at a row.
    pub(super) fn x(
        &self,
        e: &Emit<'c, '_>,
        shape: Shape,
        row: Int<'c>,
        (column, lanes): (Int<'c>, u32),
    ) -> Lanes<'c> {
        let x = e.operand("x");
        let at = e.add(e.times(self.index, shape.head_dim), column);
        e.load(e.at(e.row(x, row), x.1.ty.dtype, at), x.1.ty.dtype, lanes)
    }

    /// Where lanes of y at a row go.
    pub(super) fn store_y(
        &self,
        e: &Emit<'c, '_>,
        shape: Shape,
        row: Int<'c>,
        (column, lanes): (Int<'c>, u32),
        value: Lanes<'c>,
    ) {
        let y = e.result();
        let at = e.add(e.times(self.index, shape.head_dim), column);
        e.store(e.at(e.row(y, row), y.1.ty.dtype, at), y.1.ty.dtype, lanes, value);
    }

    /// The head's state to work on in place, as it is before the sequence's first row: in the slot
    /// that is written, or in `spare` where none is.
    pub(super) fn state(
        &self,
        e: &Emit<'c, '_>,
        shape: Shape,
        sequence: Sequence<'c>,
        spare: Ptr<'c>,
    ) -> Ptr<'c> {
        let slot = |name: &str| e.load_int(e.operand(name).0, sequence.index);
        let place = |slot| self.state_of_slot(e, shape, slot);
        let (from, to) = (slot("slot_in"), slot("slot_out"));
        let written = e.cmp(IntPredicate::SGE, to, e.int(0));
        let state = e.select(written, place(to), spare);
        e.when(e.cmp(IntPredicate::NE, from, to), || {
            e.columns(shape.head_state(), |at, lanes| {
                let old = e.choose(
                    e.cmp(IntPredicate::SGE, from, e.int(0)),
                    || vec![e.load(e.at(place(from), Dtype::F32, at), Dtype::F32, lanes).into()],
                    || vec![e.lanes(0.0).into()],
                );
                e.store(e.at(state, Dtype::F32, at), Dtype::F32, lanes, old[0].into_vector_value());
            });
        });
        // Neither slot: nothing was copied above, and the work space must still start from zeros.
        e.when(e.cmp(IntPredicate::SLT, e.max(from, to), e.int(0)), || {
            e.columns(shape.head_state(), |at, lanes| {
                e.store(e.at(state, Dtype::F32, at), Dtype::F32, lanes, e.lanes(0.0));
            });
        });
        state
    }

    /// The head's state in the slot that the sequence writes, which must be one.
    pub(super) fn written_state(&self, e: &Emit<'c, '_>, shape: Shape, sequence: Sequence<'c>) -> Ptr<'c> {
        let slot = e.load_int(e.operand("slot_out").0, sequence.index);
        self.state_of_slot(e, shape, slot)
    }

    fn state_of_slot(&self, e: &Emit<'c, '_>, shape: Shape, slot: Int<'c>) -> Ptr<'c> {
        let (states, _) = e.operand("ssm");
        let head = e.add(e.times(slot, shape.heads), self.index);
        e.at(states, Dtype::F32, e.times(head, shape.head_state()))
    }
}

/// The pieces of head_dim that fill registers: first column and lanes in use.
pub(super) fn pieces(e: &Emit<'_, '_>, head_dim: u64) -> Vec<(u64, u32)> {
    let width = u64::from(e.width());
    (0..head_dim).step_by(e.width() as usize).map(|at| (at, (head_dim - at).min(width) as u32)).collect()
}
