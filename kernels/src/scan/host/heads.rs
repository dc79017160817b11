//! What the forms of the scan share: shapes, and where a head's inputs and state lie.

use inkwell::IntPredicate;
use nemo_ir::types::{Dim, Dtype};

use super::steps::Steps;
use crate::host::{Chain, Emit, Float, Int, Lanes, Link, Ptr, Rows, Sequence};

const F32: Dtype = Dtype::F32;

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
    /// Elements of one head's state.
    pub(super) fn head_state(&self) -> u64 {
        self.state * self.head_dim
    }

    /// Heads that share b and c.
    pub(super) fn heads_per_group(&self) -> u64 {
        self.heads / self.groups
    }

    /// Columns of x that share b and c.
    pub(super) fn group_width(&self) -> u64 {
        self.heads_per_group() * self.head_dim
    }
}

/// A scan: its extents, and where its operands lie. Rows and columns are counted as in the whole tensors,
/// also where only a row or a group of them is there.
#[derive(Clone, Copy)]
pub(super) struct Scan<'c> {
    pub shape: Shape,
    pub x: Rows<'c>,
    pub b: Rows<'c>,
    pub c: Rows<'c>,
    pub y: Rows<'c>,
    pub steps: Steps<'c>,
    a_log: Ptr<'c>,
    skip: Ptr<'c>,
    ssm: Ptr<'c>,
    slot_in: Ptr<'c>,
    slot_out: Ptr<'c>,
}

impl<'c> Scan<'c> {
    /// The scan of that step. What another step gives of x, b and c is a slice, of an operand or of what
    /// `inner` holds.
    pub(super) fn of(
        e: &Emit<'c, '_>,
        chain: &Chain,
        link: &Link,
        inner: Option<[Rows<'c>; 3]>,
        y: Rows<'c>,
    ) -> Result<Self, String> {
        let shape = Self::shape_of(e, link)?;
        let part = |index: usize, name: &str| match (inner, chain.giver(link.source(name).ok_or("no x")?)) {
            (Some(parts), _) => Ok(parts[index]),
            (None, None) => Ok(Rows::of(e, e.taken(link, name)?)),
            (None, Some(slice)) if slice.op.name == "slice" => {
                Ok(Rows::of(e, e.taken(slice, "x")?).columns(e, slice.int("offset")))
            }
            (None, Some(other)) => Err(format!("a scan of `{}` in one kernel", other.op.name)),
        };
        Ok(Self {
            shape,
            x: part(0, "x")?,
            b: part(1, "b")?,
            c: part(2, "c")?,
            y,
            steps: Steps::of(e, chain, link)?,
            a_log: e.taken(link, "a_log")?.0,
            skip: e.taken(link, "d")?.0,
            ssm: e.taken(link, "ssm")?.0,
            slot_in: e.taken(link, "slot_in")?.0,
            slot_out: e.taken(link, "slot_out")?.0,
        })
    }

    /// Its extents alone.
    pub(super) fn shape_of(e: &Emit<'c, '_>, link: &Link) -> Result<Shape, String> {
        let ssm = e.taken(link, "ssm")?;
        let &[_, Dim::Const(heads), Dim::Const(state), Dim::Const(head_dim)] = &ssm.1.ty.shape[..] else {
            return Err("the state's shape is not constant".to_owned());
        };
        if state * head_dim > MAX_STATE {
            return Err(format!("a head's state of {state} x {head_dim} exceeds {MAX_STATE} elements"));
        }
        Ok(Shape { heads, groups: link.int("groups"), head_dim, state })
    }

    /// The same scan of other x, b, c and step sizes into another y.
    pub(super) fn reading(self, [x, b, c, steps]: [Rows<'c>; 4], y: Rows<'c>) -> Self {
        Self { x, b, c, y, steps: Steps::Ready(steps), ..self }
    }

    /// Slot that a sequence writes; negative where it keeps no state.
    pub(super) fn slot_out(&self, e: &Emit<'c, '_>, sequence: Sequence<'c>) -> Int<'c> {
        e.load_int(self.slot_out, sequence.index)
    }

    /// The step size of a head at a row.
    pub(super) fn step_size(&self, e: &Emit<'c, '_>, head: Head<'c>, row: Int<'c>) -> Float<'c> {
        self.steps.size(e, row, head.index)
    }

    /// Lanes of x of a head at a row.
    pub(super) fn x(
        &self,
        e: &Emit<'c, '_>,
        head: Head<'c>,
        row: Int<'c>,
        (column, lanes): (u64, u32),
    ) -> Lanes<'c> {
        self.x.load(e, row, e.plus(e.times(head.index, self.shape.head_dim), column), lanes)
    }

    /// Where lanes of y of a head at a row go.
    pub(super) fn store_y(
        &self,
        e: &Emit<'c, '_>,
        head: Head<'c>,
        row: Int<'c>,
        (column, lanes): (u64, u32),
        value: Lanes<'c>,
    ) {
        let column = e.plus(e.times(head.index, self.shape.head_dim), column);
        self.y.store(e, row, column, lanes, value);
    }

    /// The head's state to work on in place, as it is before the sequence's first row: in the slot
    /// that is written, or in `spare` where none is.
    pub(super) fn state(
        &self,
        e: &Emit<'c, '_>,
        head: Head<'c>,
        sequence: Sequence<'c>,
        spare: Ptr<'c>,
    ) -> Ptr<'c> {
        let place = |slot| self.state_of_slot(e, head, slot);
        let (from, to) = (e.load_int(self.slot_in, sequence.index), self.slot_out(e, sequence));
        let written = e.cmp(IntPredicate::SGE, to, e.int(0));
        let state = e.select(written, place(to), spare);
        e.when(e.cmp(IntPredicate::NE, from, to), || {
            e.columns(self.shape.head_state(), |at, lanes| {
                let old = e.choose(
                    e.cmp(IntPredicate::SGE, from, e.int(0)),
                    || vec![e.load(e.at(place(from), F32, at), F32, lanes).into()],
                    || vec![e.lanes(0.0).into()],
                );
                e.store(e.at(state, F32, at), F32, lanes, old[0].into_vector_value());
            });
        });
        // Neither slot: nothing was copied above, and the work space must still start from zeros.
        e.when(e.cmp(IntPredicate::SLT, e.max(from, to), e.int(0)), || {
            e.columns(self.shape.head_state(), |at, lanes| {
                e.store(e.at(state, F32, at), F32, lanes, e.lanes(0.0));
            });
        });
        state
    }

    /// The head's state in the slot that the sequence writes, which must be one.
    pub(super) fn written_state(&self, e: &Emit<'c, '_>, head: Head<'c>, sequence: Sequence<'c>) -> Ptr<'c> {
        self.state_of_slot(e, head, self.slot_out(e, sequence))
    }

    fn state_of_slot(&self, e: &Emit<'c, '_>, head: Head<'c>, slot: Int<'c>) -> Ptr<'c> {
        let index = e.add(e.times(slot, self.shape.heads), head.index);
        e.at(self.ssm, F32, e.times(index, self.shape.head_state()))
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
    pub(super) fn load(e: &Emit<'c, '_>, scan: &Scan<'c>, index: Int<'c>) -> Self {
        let scalar = |base| e.load_scalar(e.at(base, F32, index), F32);
        Self { index, decay: e.fneg(e.exp_scalar(scalar(scan.a_log))), skip: scalar(scan.skip) }
    }
}

/// The pieces of head_dim that fill registers: first column and lanes in use.
pub(super) fn pieces(e: &Emit<'_, '_>, head_dim: u64) -> Vec<(u64, u32)> {
    let width = u64::from(e.width());
    (0..head_dim).step_by(e.width() as usize).map(|at| (at, (head_dim - at).min(width) as u32)).collect()
}
