//! A block as boxes and edges, with what is written on them.

use std::collections::HashMap;

use nemo_ir::graph::{Block, Node, Value};
use nemo_ir::ops::{Attr, Op, Recipe};
use petgraph::graph::NodeIndex;

use super::words::runs;

/// A block to be drawn.
#[derive(Debug)]
pub(super) struct Drawing {
    /// Every box before those that take what it gives.
    pub boxes: Vec<Box>,
    pub edges: Vec<Edge>,
}

/// A box.
#[derive(Debug)]
pub(super) struct Box {
    /// The op that it stands for, if any.
    pub node: Option<NodeIndex>,
    /// Its look: the name of a family, `view`, `input` or `output`.
    pub class: &'static str,
    /// What it is.
    pub title: String,
    /// Result types.
    pub types: String,
    /// What it stands for, one a line.
    pub parts: Vec<String>,
    /// Weights, states and tables that it takes.
    pub tags: Vec<Tag>,
}

/// A leaf that an op takes.
#[derive(Debug)]
pub(super) struct Tag {
    pub class: &'static str,
    pub text: String,
}

/// A value on its way from a box to another.
#[derive(Debug)]
pub(super) struct Edge {
    pub from: usize,
    pub to: usize,
    /// Its type.
    pub ty: String,
    /// Whether it is a state.
    pub state: bool,
}

/// What a block looks like. Step inputs are left out: nearly every op takes some.
pub(super) fn drawing(block: &Block) -> Drawing {
    let mut boxes: Vec<Box> = Vec::new();
    let mut edges = Vec::new();
    let mut place: HashMap<NodeIndex, usize> = HashMap::new();
    for node in block.graph.node_indices() {
        if let Node::Input { name, ty } = &block.graph[node] {
            place.insert(node, boxes.len());
            boxes.push(end("input", name, ty.to_string()));
        }
    }
    for node in block.order() {
        let Node::Op { op, attrs, results } = &block.graph[node] else { continue };
        let operands = block.operands(node);
        for value in &operands {
            if let Some(from) = place.get(&value.node) {
                edges.push(edge(block, *value, *from, boxes.len()));
            }
        }
        let types = results.iter().enumerate().filter(|(result, _)| op.superseded(*result).is_none());
        let types: Vec<String> = types.map(|(_, ty)| ty.to_string()).collect();
        place.insert(node, boxes.len());
        boxes.push(Box {
            node: Some(node),
            class: if op.name == "slice" { "view" } else { op.family.name() },
            title: title(op, attrs),
            types: types.join(" "),
            parts: parts(op),
            tags: operands.iter().filter_map(|value| tag(block, op, *value, &operands)).collect(),
        });
    }
    for (name, value) in &block.outputs {
        if let Some(from) = place.get(&value.node) {
            edges.push(edge(block, *value, *from, boxes.len()));
        }
        boxes.push(end("output", name, String::new()));
    }
    Drawing { boxes, edges }
}

fn end(class: &'static str, name: &str, types: String) -> Box {
    Box { node: None, class, title: name.to_owned(), types, parts: Vec::new(), tags: Vec::new() }
}

fn edge(block: &Block, value: Value, from: usize, to: usize) -> Edge {
    let state = match &block.graph[value.node] {
        Node::Op { op, .. } => op.superseded(value.result).is_some(),
        _ => false,
    };
    Edge { from, to, ty: block.ty(value).to_string(), state }
}

/// The op's name; of a view also the columns.
fn title(op: Op, attrs: &[Attr]) -> String {
    match (op.name, attrs) {
        ("slice", [Attr::Int(offset), Attr::Int(width)]) => {
            format!("slice {offset}..{}", offset.saturating_add(*width))
        }
        _ => op.name.to_owned(),
    }
}

fn parts(op: Op) -> Vec<String> {
    let steps = |recipe: &Recipe| recipe.steps.iter().map(|step| step.op.name.to_owned()).collect();
    let steps: Vec<String> = Recipe::of(op).map(steps).unwrap_or_default();
    runs(&steps)
}

fn tag(block: &Block, op: Op, value: Value, operands: &[Value]) -> Option<Tag> {
    let named = |class, text| Some(Tag { class, text });
    match &block.graph[value.node] {
        Node::Weight { name, .. } => named("weight", format!("@{name}")),
        Node::State { name, .. } => {
            let given = operands.iter().position(|operand| *operand == value)?;
            let place = *op.places(operands.len())?.get(given)?;
            let writes = op.state_result(place).is_some();
            named("state", format!("&{name}{}", if writes { " ⟳" } else { "" }))
        }
        Node::Table(_) => named("table", "#rope".to_owned()),
        Node::Op { .. } => named("state", format!("&{}", state_name(block, value)?)),
        Node::Input { .. } | Node::Step(_) => None,
    }
}

/// The state that a value is a later version of; `None` for a value that is no state.
fn state_name(block: &Block, mut value: Value) -> Option<&str> {
    loop {
        match &block.graph[value.node] {
            Node::State { name, .. } => return Some(name),
            Node::Op { op, .. } => {
                let place = op.superseded(value.result)?;
                let operands = block.operands(value.node);
                let given = op.places(operands.len())?.iter().position(|other| *other == place)?;
                value = operands[given];
            }
            _ => return None,
        }
    }
}
