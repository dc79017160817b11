//! The launches of a block: one per op, with the places of its operands and results as arguments.

use std::collections::HashMap;

use nemo_ir::graph::{Block, Node, Value};
use nemo_ir::ops::{Effect, Op};
use nemo_ir::plan::{self, Arg, Launch};
use nemo_kernels::spec::{KernelSpec, Layout};
use petgraph::graph::NodeIndex;

use super::bind::Bindings;
use super::place::Offsets;
use super::storage::{Place, Storages};
use super::{Kernels, PlanError};
use crate::cost::Situation;

/// Turns the ops of a block into launches, in the block's order.
pub(super) fn launches(
    block: &Block,
    storages: &Storages,
    offsets: &Offsets,
    at: &Situation<'_>,
    kernels: &mut Kernels<'_>,
    bindings: &mut Bindings<'_>,
) -> Result<plan::Block, PlanError> {
    let steps = kernels.gpu.map(|_| at.steps);
    let weights = block.weights().enumerate().map(|(n, (node, ..))| (node, n)).collect();
    let states = block.states().enumerate().map(|(n, (node, ..))| (node, n)).collect();
    let places = Places { block, storages, offsets, weights, states, gpu: steps.is_some() };
    let mut current: HashMap<Value, Value> = HashMap::new();
    let mut list = Vec::new();
    for index in block.order() {
        let Node::Op { op, attrs, results } = &block.graph[index] else { continue };
        if op.name == "slice" {
            continue;
        }
        let operands = block.operands(index);
        let mut args = Vec::with_capacity(operands.len() + results.len());
        let mut operand_layouts = Vec::with_capacity(operands.len());
        for operand in &operands {
            places.expect_current(&current, *operand)?;
            args.push(places.arg(op, *operand, bindings)?);
            operand_layouts.push(places.layout(*operand));
        }
        let mut result_layouts = Vec::with_capacity(results.len());
        for result in 0..results.len() {
            let value = Value { node: index, result };
            if op.superseded(result).is_some() {
                places.advance(&mut current, op, value)?;
            } else {
                args.push(places.arg(op, value, bindings)?);
                result_layouts.push(places.layout(value));
            }
        }
        let (attrs, operands, results) = (attrs.clone(), operand_layouts, result_layouts);
        let spec = KernelSpec { op, attrs, operands, results, steps, form: None };
        list.push(Launch { kernel: kernels.intern(spec, at)?, op: op.name.to_owned(), args });
    }
    Ok(plan::Block { name: block.name.clone(), launches: list })
}

struct Places<'a> {
    block: &'a Block,
    storages: &'a Storages,
    offsets: &'a Offsets,
    weights: HashMap<NodeIndex, usize>,
    states: HashMap<NodeIndex, usize>,
    /// Whether a GPU holds them.
    gpu: bool,
}

impl Places<'_> {
    fn arg(&self, op: Op, value: Value, bindings: &mut Bindings<'_>) -> Result<Arg, PlanError> {
        let missing = |why| PlanError::Op { op: op.name, block: self.block.name.clone(), why };
        match &self.block.graph[value.node] {
            Node::Weight { .. } => self
                .weights
                .get(&value.node)
                .map(|n| Arg::Weight(*n))
                .ok_or_else(|| missing("takes an unknown weight")),
            Node::Step(input) => Ok(Arg::Step(*input)),
            Node::Table(table) => Ok(Arg::Table(bindings.table(*table))),
            Node::Input { .. } | Node::State { .. } | Node::Op { .. } => {
                match self.storages.places.get(&value) {
                    Some(Place::Arena(home)) => {
                        let bytes = home.column * self.block.ty(value).dtype.bytes();
                        Ok(Arg::Arena(self.offsets.of[home.storage] + bytes))
                    }
                    Some(Place::Logits) => Ok(Arg::Logits),
                    Some(Place::Next) => Ok(Arg::Next),
                    Some(Place::State(root)) => self
                        .states
                        .get(&root.node)
                        .map(|n| Arg::State(*n))
                        .ok_or_else(|| missing("takes an unknown state")),
                    None => Err(missing("takes a value that has no place")),
                }
            }
        }
    }

    fn layout(&self, value: Value) -> Layout {
        let dense = Layout::dense(self.block.ty(value));
        if !self.gpu {
            return self
                .storages
                .home(value)
                .map_or(dense.clone(), |home| Layout { row_stride: home.row_stride, ..dense });
        }
        // Whatever a GPU holds begins at a multiple of 256 bytes, and buffers in its arena at one of the arena's alignment.
        match self.storages.home(value) {
            Some(home) => {
                let column = home.column * dense.dtype().bytes();
                let align = if column == 0 { Layout::ALIGNED } else { 1 << column.trailing_zeros().min(4) };
                Layout { row_stride: home.row_stride, ..dense }.aligned(align)
            }
            None => dense.aligned(Layout::ALIGNED),
        }
    }

    /// The value of a state is overwritten in place, so an op may only take the latest one.
    fn expect_current(&self, current: &HashMap<Value, Value>, value: Value) -> Result<(), PlanError> {
        let Some(Place::State(root)) = self.storages.places.get(&value) else { return Ok(()) };
        if *current.get(root).unwrap_or(root) == value {
            return Ok(());
        }
        Err(PlanError::State {
            name: self.state_name(*root),
            why: "is used after another op has overwritten it",
        })
    }

    fn advance(&self, current: &mut HashMap<Value, Value>, op: Op, value: Value) -> Result<(), PlanError> {
        match self.storages.places.get(&value) {
            Some(Place::State(root)) if op.effect == Effect::WritesState => {
                current.insert(*root, value);
                Ok(())
            }
            Some(Place::State(root)) => Err(PlanError::State {
                name: self.state_name(*root),
                why: "is given by an op that writes none",
            }),
            _ => Err(PlanError::Op {
                op: op.name,
                block: self.block.name.clone(),
                why: "gives a state that has no place",
            }),
        }
    }

    fn state_name(&self, root: Value) -> String {
        match &self.block.graph[root.node] {
            Node::State { name, .. } => format!("{} in block {}", name, self.block.name),
            _ => self.block.name.clone(),
        }
    }
}
