//! Rules of blocks.

use std::collections::HashSet;

use petgraph::algo::has_path_connecting;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use super::error::VerifyError;
use crate::graph::{Block, Node, Value, state_unit};
use crate::ops::{Attr, Effect, Op, OpArgs, OperandKind};
use crate::rope::RopeTable;
use crate::text::{Names, is_identifier, is_weight_name};
use crate::types::{Dim, Symbol, Type};

pub(super) const WEIGHT_IS: &str = "of letters, digits and `_`, `.`, `-`";
const IDENTIFIER_IS: &str = "a lower-case letter, then lower-case letters, digits and `_`";

/// Everything wrong with a block.
pub(super) fn all(block: &Block) -> Vec<VerifyError> {
    let names = Names::new(block);
    let mut errors = check_structure(block, &names);
    errors.extend(check_names(block, &names));
    errors.extend(check_uses(block, &names));
    errors
}

/// What has to hold before a block can be executed: edges, kinds, types, one writer for each state.
pub(crate) fn structure(block: &Block) -> Vec<VerifyError> {
    check_structure(block, &Names::new(block))
}

fn check_structure(block: &Block, names: &Names) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    let order = block.order();
    if order.len() < block.graph.node_count() {
        let reached: HashSet<_> = order.into_iter().collect();
        let first = block.graph.node_indices().find(|node| !reached.contains(node));
        let node = first.map_or_else(String::new, |node| names.node(block, node));
        errors.push(VerifyError::Cycle { block: block.name.clone(), node });
    }
    for node in block.graph.node_indices() {
        match check_edges(block, names, node) {
            Some(error) => errors.push(error),
            None => match &block.graph[node] {
                Node::Op { op, attrs, results } => {
                    errors.extend(check_op(block, names, node, op, attrs, results));
                }
                leaf => errors.extend(check_leaf(block, names, node, leaf)),
            },
        }
    }
    errors.extend(check_states(block, names));
    errors.extend(check_outputs(block, names));
    errors
}

/// Operands are numbered from 0 without gaps and refer to results that exist; leaves have none.
fn check_edges(block: &Block, names: &Names, node: NodeIndex) -> Option<VerifyError> {
    let incoming = block.graph.edges_directed(node, petgraph::Direction::Incoming);
    let mut operands = Vec::new();
    let error = |wanted: &str, found: String| VerifyError::Edge {
        block: block.name.clone(),
        node: names.node(block, node),
        wanted: wanted.to_owned(),
        found,
    };
    for edge in incoming {
        let (result, count) = (edge.weight().result, block.result_count(edge.source()));
        if result >= count {
            let found = format!("result {result} of {}", names.node(block, edge.source()));
            return Some(error("operands that exist", found));
        }
        operands.push(edge.weight().operand);
    }
    operands.sort_unstable();
    if !matches!(block.graph[node], Node::Op { .. }) && !operands.is_empty() {
        return Some(error("no operands", operands.len().to_string()));
    }
    if operands.iter().enumerate().any(|(index, operand)| index != *operand) {
        return Some(error("its operands numbered from 0, each once", format!("{operands:?}")));
    }
    None
}

fn check_op(
    block: &Block,
    names: &Names,
    node: NodeIndex,
    op: Op,
    attrs: &[Attr],
    results: &[Type],
) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    let operands = block.operands(node);
    let (in_block, this) = (|| block.name.clone(), || names.node(block, node));
    for (value, place) in operands.iter().zip(op.places(operands.len()).unwrap_or_default()) {
        let spec = &op.operands[place];
        if !has_kind(block, *value, spec.kind) {
            errors.push(VerifyError::OperandKind {
                block: in_block(),
                node: this(),
                operand: spec.name,
                wanted: kind_name(spec.kind),
                found: format!("`{}`", names.value(*value)),
            });
        }
    }
    for (spec, attr) in op.attrs.iter().zip(attrs) {
        if matches!(attr, Attr::Float(x) if x.is_nan()) {
            errors.push(VerifyError::NotANumber { block: in_block(), node: this(), attr: spec.name });
        }
    }
    let types: Vec<Type> = operands.iter().map(|value| block.ty(*value)).collect();
    let inferred =
        OpArgs::new(op, &types.iter().collect::<Vec<_>>(), attrs).and_then(|args| (op.infer)(&args));
    match inferred {
        Err(error) => errors.push(VerifyError::Type { block: in_block(), node: this(), error }),
        Ok(inferred) if inferred != results => errors.push(VerifyError::Results {
            block: in_block(),
            node: this(),
            wanted: list(&inferred),
            found: list(results),
        }),
        Ok(_) => {}
    }
    errors
}

fn list(types: &[Type]) -> String {
    if types.is_empty() {
        return "nothing".to_owned();
    }
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a value is a state: a state node, or the result of an op that supersedes one.
fn is_state(block: &Block, value: Value) -> bool {
    match &block.graph[value.node] {
        Node::State { .. } => true,
        Node::Op { op, .. } => op.superseded(value.result).is_some(),
        _ => false,
    }
}

fn has_kind(block: &Block, value: Value, kind: OperandKind) -> bool {
    let node = &block.graph[value.node];
    match kind {
        OperandKind::Value => matches!(node, Node::Input { .. } | Node::Op { .. }) && !is_state(block, value),
        OperandKind::Weight | OperandKind::OptionalWeight => matches!(node, Node::Weight { .. }),
        OperandKind::State => is_state(block, value),
        OperandKind::Table => matches!(node, Node::Table(_)),
        OperandKind::Step(input) => *node == Node::Step(input),
    }
}

fn kind_name(kind: OperandKind) -> String {
    match kind {
        OperandKind::Value => "a value".to_owned(),
        OperandKind::Weight | OperandKind::OptionalWeight => "a weight".to_owned(),
        OperandKind::State => "a state".to_owned(),
        OperandKind::Table => "a table".to_owned(),
        OperandKind::Step(input) => format!("`${}`", input.name()),
    }
}

fn check_leaf(block: &Block, names: &Names, node: NodeIndex, leaf: &Node) -> Option<VerifyError> {
    let constant = |dim: &Dim| dim.constant().is_some();
    let unit_of_state = |dim: &Dim| matches!(dim, Dim::Symbolic { symbol: Symbol::S | Symbol::N, .. });
    let (legal, wanted, found) = match leaf {
        Node::Input { ty, .. } => {
            (!ty.shape.iter().any(unit_of_state), "of a type without S and N", ty.to_string())
        }
        Node::Weight { ty, .. } => (ty.shape.iter().all(constant), "of a constant shape", ty.to_string()),
        Node::State { ty, .. } => (
            state_unit(ty).is_some() && ty.dtype.is_float() && ty.shape[1..].iter().all(constant),
            "a float tensor of S or N units of a constant shape",
            ty.to_string(),
        ),
        Node::Table(table) => (
            legal_table(table),
            "a rope table with an even head_dim, some positions, theta > 1, a factor >= 1 and 0 < low < high",
            format!("{table:?}"),
        ),
        Node::Step(_) | Node::Op { .. } => return None,
    };
    let node = names.node(block, node);
    (!legal).then(|| VerifyError::Leaf { block: block.name.clone(), node, wanted, found })
}

fn legal_table(table: &RopeTable) -> bool {
    let scaling = table.scaling.is_none_or(|s| {
        let finite = s.factor.is_finite() && s.high_freq_factor.is_finite();
        finite && s.factor >= 1.0 && 0.0 < s.low_freq_factor && s.low_freq_factor < s.high_freq_factor
    });
    let even = table.head_dim > 0 && table.head_dim.is_multiple_of(2);
    even && table.positions > 0 && table.theta.is_finite() && table.theta > 1.0 && scaling
}

/// At most one writer for each state value, and no read that is not ordered before it.
fn check_states(block: &Block, names: &Names) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    let values = block
        .graph
        .node_indices()
        .flat_map(|node| (0..block.result_count(node)).map(move |result| Value { node, result }));
    for state in values.filter(|value| is_state(block, *value)) {
        let mut writers: Vec<NodeIndex> = block.successors(state).map(|next| next.node).collect();
        writers.sort_unstable();
        if let [first, second, ..] = writers[..] {
            errors.push(VerifyError::TwoWriters {
                block: block.name.clone(),
                state: names.value(state).to_owned(),
                first: names.node(block, first),
                second: names.node(block, second),
            });
        }
        let [writer] = writers[..] else { continue };
        let mut readers: Vec<NodeIndex> = block.users(state).map(|(node, _)| node).collect();
        readers.sort_unstable();
        for reader in readers.into_iter().filter(|reader| *reader != writer) {
            let reads =
                matches!(&block.graph[reader], Node::Op { op, .. } if op.effect == Effect::ReadsState);
            if reads && !has_path_connecting(&block.graph, reader, writer, None) {
                errors.push(VerifyError::UnorderedRead {
                    block: block.name.clone(),
                    reader: names.node(block, reader),
                    state: names.value(state).to_owned(),
                    writer: names.node(block, writer),
                });
            }
        }
    }
    errors
}

fn check_outputs(block: &Block, names: &Names) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    if block.outputs.is_empty() {
        errors.push(VerifyError::NoOutputs(block.name.clone()));
    }
    for (output, value) in &block.outputs {
        let exists =
            block.graph.node_weight(value.node).is_some() && value.result < block.result_count(value.node);
        if !exists || !has_kind(block, *value, OperandKind::Value) {
            errors.push(VerifyError::Output {
                block: block.name.clone(),
                output: output.clone(),
                found: format!("`{}`", names.value(*value)),
            });
        }
    }
    errors
}

/// Names that the text form can read back, each once among its kind.
fn check_names(block: &Block, names: &Names) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    let mut check = |what: &'static str, name: &str, legal: bool, wanted: &'static str| {
        if !legal {
            let (block, name) = (block.name.clone(), name.to_owned());
            errors.push(VerifyError::Name { block, what, name, wanted });
        }
    };
    check("block", &block.name, is_identifier(&block.name), IDENTIFIER_IS);
    let mut seen: Vec<(&'static str, &str)> = Vec::new();
    for node in block.graph.node_weights() {
        match node {
            Node::Input { name, .. } => {
                check("input", name, is_identifier(name), IDENTIFIER_IS);
                seen.push(("input", name));
            }
            Node::State { name, .. } => {
                check("state", name, is_identifier(name), IDENTIFIER_IS);
                seen.push(("state", name));
            }
            Node::Weight { name, .. } => {
                check("weight", name, is_weight_name(name), WEIGHT_IS);
                seen.push(("weight", name));
            }
            Node::Step(input) => seen.push(("step input", input.name())),
            Node::Table(_) | Node::Op { .. } => {}
        }
    }
    for (name, _) in &block.outputs {
        check("output", name, is_identifier(name), IDENTIFIER_IS);
        seen.push(("output", name));
    }
    let tables = block.graph.node_indices().filter(|node| matches!(block.graph[*node], Node::Table(_)));
    for (index, node) in tables.clone().enumerate() {
        if tables.clone().take(index).any(|other| block.graph[other] == block.graph[node]) {
            seen.extend([("table", names.value(Value { node, result: 0 })); 2]);
        }
    }
    let mut once = HashSet::new();
    let repeated = seen.into_iter().filter(|name| !once.insert(*name));
    errors.extend(repeated.map(|(what, name)| VerifyError::Duplicate {
        block: block.name.clone(),
        what,
        name: name.to_owned(),
    }));
    errors
}

/// Everything is used, but for the last value of a state that something wrote.
fn check_uses(block: &Block, names: &Names) -> Vec<VerifyError> {
    let outputs: HashSet<Value> = block.outputs.iter().map(|(_, value)| *value).collect();
    let values = names
        .order
        .iter()
        .flat_map(|node| (0..block.result_count(*node)).map(|result| Value { node: *node, result }));
    let unused = values.filter(|value| {
        let final_state = is_state(block, *value) && matches!(block.graph[value.node], Node::Op { .. });
        !final_state && !outputs.contains(value) && block.users(*value).next().is_none()
    });
    unused
        .map(|value| VerifyError::Unused {
            block: block.name.clone(),
            value: format!("`{}`", names.value(value)),
        })
        .collect()
}
