//! The graph IR: a program is a list of calls to blocks; a block is a DAG of ops over typed values.

use std::collections::BTreeSet;

use petgraph::Direction::Incoming;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use thiserror::Error;

use crate::ops::{self, Attrs, Op, OpArgs, TypeError};
use crate::plan::{Phase, StateUnit};
use crate::rope::RopeTable;
use crate::step::StepInput;
use crate::types::{Dim, Dtype, Symbol, Type};

/// One phase of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Which phase.
    pub phase: Phase,
    /// Distinct blocks; names are unique.
    pub blocks: Vec<Block>,
    /// The blocks in the order in which they run. A call's inputs are the previous call's outputs of
    /// the same names.
    pub calls: Vec<Call>,
}

/// One run of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Index into [`Program::blocks`].
    pub block: usize,
    /// Slot in the layer list, where the block is a layer.
    pub layer: Option<u32>,
    /// Put before the name of each weight of the block: `backbone.layers.3.`, or nothing.
    pub prefix: String,
}

/// A DAG of ops.
#[derive(Debug, Clone)]
pub struct Block {
    /// Unique in its program; `[a-z][a-z0-9_]*`.
    pub name: String,
    /// Nodes in order of definition; an edge goes from a value's node to each op that takes it.
    pub graph: DiGraph<Node, Edge>,
    /// What the block gives, by name (`x`; `logits` and `next` for the head).
    pub outputs: Vec<(String, Value)>,
}

/// A node of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A value that the previous call gives.
    Input {
        /// Name, as among the previous call's outputs.
        name: String,
        /// Its type.
        ty: Type,
    },
    /// A checkpoint tensor. Matrices have the stored dtype; small ones are f32, widened at load.
    Weight {
        /// Name below the call's prefix.
        name: String,
        /// Its type.
        ty: Type,
    },
    /// State as it is when the block starts.
    State {
        /// Name below the layer: `ssm`, `conv`, `kv`.
        name: String,
        /// Its type; the first dim is `S` (slots) or `N` (pages).
        ty: Type,
    },
    /// An input of the step.
    Step(StepInput),
    /// A constant table.
    Table(RopeTable),
    /// An op.
    Op {
        /// Its entry in the op table.
        op: Op,
        /// Attribute values in the table's order.
        attrs: Attrs,
        /// Types of its results.
        results: Vec<Type>,
    },
}

/// Where a value goes: the n-th result of the source is the m-th operand of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Result of the source; 0 unless the source is an op with several.
    pub result: usize,
    /// Operand of the target.
    pub operand: usize,
}

/// A value: one result of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that gives it.
    pub node: NodeIndex,
    /// Which of its results.
    pub result: usize,
}

impl Block {
    /// The values that a node takes, in operand order.
    pub fn operands(&self, node: NodeIndex) -> Vec<Value> {
        let mut operands: Vec<_> = self
            .graph
            .edges_directed(node, Incoming)
            .map(|edge| (edge.weight().operand, Value { node: edge.source(), result: edge.weight().result }))
            .collect();
        operands.sort_unstable_by_key(|(operand, _)| *operand);
        operands.into_iter().map(|(_, value)| value).collect()
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> Type {
        match &self.graph[value.node] {
            Node::Input { ty, .. } | Node::Weight { ty, .. } | Node::State { ty, .. } => ty.clone(),
            Node::Step(input) => input.ty(),
            Node::Table(table) => table.ty(),
            Node::Op { results, .. } => results[value.result].clone(),
        }
    }

    /// Nodes with every operand before its user, otherwise in order of definition. In a cyclic graph (which
    /// the verifier refuses) the nodes on and behind a cycle are left out.
    pub fn order(&self) -> Vec<NodeIndex> {
        let mut missing: Vec<usize> =
            self.graph.node_indices().map(|node| self.graph.edges_directed(node, Incoming).count()).collect();
        let mut ready: BTreeSet<NodeIndex> =
            self.graph.node_indices().filter(|node| missing[node.index()] == 0).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for edge in self.graph.edges(node) {
                let left = &mut missing[edge.target().index()];
                *left -= 1;
                if *left == 0 {
                    ready.insert(edge.target());
                }
            }
        }
        order
    }

    /// How many results a node has.
    pub fn result_count(&self, node: NodeIndex) -> usize {
        match &self.graph[node] {
            Node::Op { results, .. } => results.len(),
            _ => 1,
        }
    }

    /// Who takes a value: the op, and which of its operands as given.
    pub fn users(&self, value: Value) -> impl Iterator<Item = (NodeIndex, usize)> {
        self.graph
            .edges(value.node)
            .filter(move |edge| edge.weight().result == value.result)
            .map(|edge| (edge.target(), edge.weight().operand))
    }

    /// The values that supersede a state value: one a writing consumer, so at most one in a legal block.
    pub fn successors(&self, state: Value) -> impl Iterator<Item = Value> {
        self.users(state).filter_map(|(node, operand)| {
            let Node::Op { op, .. } = &self.graph[node] else { return None };
            let place = *op.places(self.operands(node).len())?.get(operand)?;
            Some(Value { node, result: op.state_result(place)? })
        })
    }

    /// The last value of a state: what the block leaves.
    pub fn final_state(&self, state: NodeIndex) -> Value {
        let mut value = Value { node: state, result: 0 };
        // A chain is no longer than there are nodes, whatever the graph.
        for _ in 0..self.graph.node_count() {
            match self.successors(value).next() {
                Some(next) => value = next,
                None => break,
            }
        }
        value
    }

    /// The weights in order of definition: name and type.
    pub fn weights(&self) -> impl Iterator<Item = (NodeIndex, &str, &Type)> {
        self.graph.node_indices().filter_map(|index| match &self.graph[index] {
            Node::Weight { name, ty } => Some((index, name.as_str(), ty)),
            _ => None,
        })
    }

    /// The states in order of definition: name and type.
    pub fn states(&self) -> impl Iterator<Item = (NodeIndex, &str, &Type)> {
        self.graph.node_indices().filter_map(|index| match &self.graph[index] {
            Node::State { name, ty } => Some((index, name.as_str(), ty)),
            _ => None,
        })
    }
}

/// Two blocks are equal when they have equal inputs, states, weights and ops in the same order and
/// connect them alike. How the kinds of nodes are interleaved does not matter, nor when a step input or a
/// table was first mentioned.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        let canonical = |block: &Self| {
            let (order, place) = block.canonical_order();
            let nodes = order.into_iter().map(|node| {
                let operands: Vec<_> = block
                    .operands(node)
                    .iter()
                    .map(|value| (place[value.node.index()], value.result))
                    .collect();
                (block.graph[node].clone(), operands)
            });
            let outputs: Vec<_> = block
                .outputs
                .iter()
                .map(|(name, value)| (name.clone(), place.get(value.node.index()).copied(), value.result))
                .collect();
            (nodes.collect::<Vec<_>>(), outputs)
        };
        self.name == other.name && canonical(self) == canonical(other)
    }
}

impl Block {
    /// Nodes by kind and then in order of execution, and the place of each node in that list. Step
    /// inputs are in the order of the contract.
    fn canonical_order(&self) -> (Vec<NodeIndex>, Vec<usize>) {
        let mut order = self.order();
        order.sort_by_key(|node| match &self.graph[*node] {
            Node::Input { .. } => (0, None),
            Node::State { .. } => (1, None),
            Node::Weight { .. } => (2, None),
            Node::Table(_) => (3, None),
            Node::Step(input) => (4, Some(*input)),
            Node::Op { .. } => (5, None),
        });
        let mut place = vec![usize::MAX; self.graph.node_count()];
        for (index, node) in order.iter().enumerate() {
            place[node.index()] = index;
        }
        (order, place)
    }
}

/// Whether a state's units belong to slots or to pages; `None` when its first dim is neither.
pub fn state_unit(ty: &Type) -> Option<StateUnit> {
    match ty.shape.first() {
        Some(dim) if *dim == Dim::symbol(Symbol::S) => Some(StateUnit::Slot),
        Some(dim) if *dim == Dim::symbol(Symbol::N) => Some(StateUnit::Page),
        _ => None,
    }
}

impl RopeTable {
    /// `f32[positions, head_dim]`.
    pub fn ty(&self) -> Type {
        Type::new(Dtype::F32, [self.positions.into(), self.head_dim.into()])
    }
}

/// Why an op could not be added to a block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError {
    /// No such op.
    #[error("there is no op `{0}`")]
    UnknownOp(String),
    /// Operands or attributes do not fit.
    #[error(transparent)]
    Type(#[from] TypeError),
}

/// Builds a block node by node.
#[derive(Debug)]
pub struct BlockBuilder {
    block: Block,
}

impl BlockBuilder {
    /// An empty block.
    pub fn new(name: impl Into<String>) -> Self {
        Self { block: Block { name: name.into(), graph: DiGraph::new(), outputs: Vec::new() } }
    }

    fn leaf(&mut self, node: Node) -> Value {
        // Leaves are shared: a step input or a table used twice is one node.
        let existing = self.block.graph.node_indices().find(|index| self.block.graph[*index] == node);
        Value { node: existing.unwrap_or_else(|| self.block.graph.add_node(node)), result: 0 }
    }

    /// A value from the previous call.
    pub fn input(&mut self, name: impl Into<String>, ty: Type) -> Value {
        self.leaf(Node::Input { name: name.into(), ty })
    }

    /// A checkpoint tensor.
    pub fn weight(&mut self, name: impl Into<String>, ty: Type) -> Value {
        self.leaf(Node::Weight { name: name.into(), ty })
    }

    /// State as it is when the block starts.
    pub fn state(&mut self, name: impl Into<String>, ty: Type) -> Value {
        self.leaf(Node::State { name: name.into(), ty })
    }

    /// An input of the step.
    pub fn step(&mut self, input: StepInput) -> Value {
        self.leaf(Node::Step(input))
    }

    /// A constant table.
    pub fn table(&mut self, table: RopeTable) -> Value {
        self.leaf(Node::Table(table))
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> Type {
        self.block.ty(value)
    }

    /// Whether a value is an input of the step.
    pub(crate) fn is_step(&self, value: Value) -> bool {
        matches!(self.block.graph[value.node], Node::Step(_))
    }

    /// An op with several results; the step inputs that the table declares need not be given.
    ///
    /// # Errors
    /// [`BuildError`] when there is no such op, or operands or attributes do not fit it.
    pub fn results(
        &mut self,
        name: &str,
        operands: &[Value],
        attrs: Attrs,
    ) -> Result<Vec<Value>, BuildError> {
        let op = ops::op(name).ok_or_else(|| BuildError::UnknownOp(name.to_owned()))?;
        let mut operands = operands.to_vec();
        let given_steps = operands.iter().any(|value| self.is_step(*value));
        if !given_steps {
            // The table puts step inputs last.
            for operand in op.operands {
                if let ops::OperandKind::Step(input) = operand.kind {
                    operands.push(self.step(input));
                }
            }
        }
        let types: Vec<Type> = operands.iter().map(|value| self.block.ty(*value)).collect();
        let results = (op.infer)(&OpArgs::new(op, &types.iter().collect::<Vec<_>>(), &attrs)?)?;
        let count = results.len();
        let node = self.block.graph.add_node(Node::Op { op, attrs, results });
        for (operand, value) in operands.into_iter().enumerate() {
            self.block.graph.add_edge(value.node, node, Edge { result: value.result, operand });
        }
        Ok((0..count).map(|result| Value { node, result }).collect())
    }

    /// An op with one result.
    ///
    /// # Errors
    /// As [`BlockBuilder::results`].
    pub fn op(&mut self, name: &str, operands: &[Value], attrs: Attrs) -> Result<Value, BuildError> {
        Ok(self.results(name, operands, attrs)?[0])
    }

    /// Names a value that the block gives.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.block.outputs.push((name.into(), value));
    }

    /// The block.
    pub fn finish(self) -> Block {
        self.block
    }
}
