//! Which values of a block share memory, and from when to when they need it.

use std::collections::HashMap;

use nemo_ir::graph::{Block, Node, Value};
use nemo_ir::ops::{Attr, Attrs, Op};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dim, Type};
use petgraph::graph::NodeIndex;

use super::{Extents, PlanError, in_place_operand};

/// A piece of memory that one value has, or several one after the other.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// Size; `None` when it does not fit 64 bits.
    pub(super) bytes: Option<u64>,
    /// Place in the order of the node that first writes it.
    pub(super) first: usize,
    /// Place in the order of the last node that reads or writes it; past the end where the block gives it on.
    pub(super) last: usize,
    /// The name under which it comes from the call before, or goes to the next one.
    pub(super) crossing: Option<String>,
}

/// Where in a storage a value lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) storage: usize,
    /// Elements before its first column.
    pub(super) column: u64,
    /// Elements from row to row.
    pub(super) row_stride: u64,
}

/// Where a value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In the arena.
    Arena(Home),
    /// In the step's logits.
    Logits,
    /// In the step's next tokens.
    Next,
    /// In the state whose first value is this node.
    State(Value),
}

/// The storages of a block and the place of each value that an op or the call before gives.
#[derive(Debug, Clone, Default)]
pub(super) struct Storages {
    pub(super) list: Vec<Storage>,
    pub(super) places: HashMap<Value, Place>,
}

/// Gives every value of a block a place. Nodes run in the block's order.
pub(super) fn assign(phase: Phase, block: &Block, extents: Extents) -> Result<Storages, PlanError> {
    let order = block.order();
    let last_uses = last_uses(block, &order);
    let last_use = |value: &Value, at: usize| last_uses.get(value).copied().unwrap_or(at);
    let mut storages = Storages::default();
    for (at, index) in order.into_iter().enumerate() {
        let only = Value { node: index, result: 0 };
        match &block.graph[index] {
            Node::Input { name, ty } => {
                let last = last_use(&only, at);
                // What the call before gave is there from the start.
                let storage =
                    Storage { bytes: bytes(ty, extents), first: 0, last, crossing: Some(name.clone()) };
                storages.add(only, storage, ty);
            }
            Node::State { .. } => {
                storages.places.insert(only, Place::State(only));
            }
            Node::Op { op, attrs, results } => {
                let operands = block.operands(index);
                if op.name == "slice" {
                    storages.view(block, only, operands[0], attrs)?;
                    continue;
                }
                for (result, ty) in results.iter().enumerate() {
                    let value = Value { node: index, result };
                    if let Some(state) = op.superseded(result) {
                        storages.advance(block, op, value, &operands, state)?;
                    } else if let Some(place) = step_result(block, value) {
                        storages.places.insert(value, place);
                    } else if let Some(home) = storages.reusable(block, (op, result), &operands, ty, at) {
                        storages.list[home.storage].last = last_use(&value, at);
                        storages.places.insert(value, Place::Arena(home));
                    } else {
                        let last = last_use(&value, at);
                        let storage = Storage { bytes: bytes(ty, extents), first: at, last, crossing: None };
                        storages.add(value, storage, ty);
                    }
                }
            }
            Node::Weight { .. } | Node::Step(_) | Node::Table(_) => {}
        }
    }
    storages.cross(phase, block)?;
    Ok(storages)
}

impl Storages {
    fn add(&mut self, value: Value, storage: Storage, ty: &Type) {
        let home = Home { storage: self.list.len(), column: 0, row_stride: ty.width().unwrap_or(1) };
        self.list.push(storage);
        self.places.insert(value, Place::Arena(home));
    }

    /// The home of a value in the arena.
    pub(super) fn home(&self, value: Value) -> Option<Home> {
        match self.places.get(&value) {
            Some(Place::Arena(home)) => Some(*home),
            _ => None,
        }
    }

    /// A slice lies inside the value it is cut from.
    fn view(&mut self, block: &Block, value: Value, of: Value, attrs: &Attrs) -> Result<(), PlanError> {
        let why = "takes columns of something that is not in the arena";
        let error = || PlanError::Op { op: "slice", block: block.name.clone(), why };
        let home = self.home(of).ok_or_else(error)?;
        let Some(Attr::Int(offset)) = attrs.first() else { return Err(error()) };
        self.places.insert(value, Place::Arena(Home { column: home.column + offset, ..home }));
        Ok(())
    }

    /// The next value of a state is where the state is.
    fn advance(
        &mut self,
        block: &Block,
        op: Op,
        value: Value,
        operands: &[Value],
        state: usize,
    ) -> Result<(), PlanError> {
        let given =
            op.places(operands.len()).and_then(|places| places.iter().position(|place| *place == state));
        match given.and_then(|n| self.places.get(&operands[n])) {
            Some(place @ Place::State(_)) => {
                self.places.insert(value, *place);
                Ok(())
            }
            _ => Err(PlanError::Op {
                op: op.name,
                block: block.name.clone(),
                why: "gives a state that it does not take",
            }),
        }
    }

    /// The home of an operand that the op reads for the last time and may overwrite.
    fn reusable(
        &self,
        block: &Block,
        (op, result): (Op, usize),
        operands: &[Value],
        ty: &Type,
        at: usize,
    ) -> Option<Home> {
        let reused = in_place_operand(op, result, operands.len())?;
        let home = self.home(operands[reused])?;
        let whole = home.column == 0 && Some(home.row_stride) == ty.width();
        let dies = self.list[home.storage].last == at;
        let others = operands.iter().enumerate().filter(|(n, _)| *n != reused);
        let alone = others.into_iter().all(|(_, v)| self.home(*v).is_none_or(|h| h.storage != home.storage));
        (whole && dies && alone && block.ty(operands[reused]) == *ty).then_some(home)
    }

    /// Marks the storages in which values leave the block.
    fn cross(&mut self, phase: Phase, block: &Block) -> Result<(), PlanError> {
        for (name, value) in &block.outputs {
            if step_result(block, *value).is_some() {
                continue;
            }
            let error = |why| {
                let (phase, block, name) = (phase.name(), block.name.clone(), name.clone());
                PlanError::Crossing { phase, block, name, why }
            };
            let home = self.home(*value).ok_or_else(|| error("it is not in the arena"))?;
            if home.column != 0 || Some(home.row_stride) != block.ty(*value).width() {
                return Err(error("it is a view of a wider value"));
            }
            let first = self.list[home.storage].first;
            let taken = self.list.iter().enumerate().any(|(index, other)| {
                index != home.storage && other.crossing.as_ref() == Some(name) && other.last >= first
            });
            let storage = &mut self.list[home.storage];
            match &storage.crossing {
                _ if taken => return Err(error("the value of that name that came in is still needed")),
                Some(other) if other != name => return Err(error("it came in under another name")),
                _ => storage.crossing = Some(name.clone()),
            }
        }
        Ok(())
    }
}

/// The place of a value that the step gives to the runtime.
fn step_result(block: &Block, value: Value) -> Option<Place> {
    block.outputs.iter().find(|(_, output)| *output == value).and_then(|(name, _)| match name.as_str() {
        "logits" => Some(Place::Logits),
        "next" => Some(Place::Next),
        _ => None,
    })
}

/// The last node that needs each value, itself or through a view of it.
fn last_uses(block: &Block, order: &[NodeIndex]) -> HashMap<Value, usize> {
    let mut uses: HashMap<Value, usize> = HashMap::new();
    uses.extend(block.outputs.iter().map(|(_, value)| (*value, order.len())));
    for (place, index) in order.iter().enumerate().rev() {
        let Node::Op { op, .. } = &block.graph[*index] else { continue };
        let at = match op.name {
            // Copying nothing, it needs its operand as long as it is needed itself.
            "slice" => uses.get(&Value { node: *index, result: 0 }).copied().unwrap_or(place),
            _ => place,
        };
        for operand in block.operands(*index) {
            let last = uses.entry(operand).or_insert(at);
            *last = (*last).max(at);
        }
    }
    uses
}

/// Bytes at the largest extents; `None` past 64 bits or for a dim that does not count rows.
fn bytes(ty: &Type, extents: Extents) -> Option<u64> {
    ty.shape.iter().try_fold(ty.dtype.bytes(), |product, dim| {
        let extent = match dim {
            Dim::Const(n) => *n,
            Dim::Symbolic { factor, symbol } => extents.of(*symbol)?.checked_mul(*factor)?,
        };
        product.checked_mul(extent)
    })
}
