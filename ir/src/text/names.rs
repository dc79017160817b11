//! What the values of a block are called in the text form and in messages.

use std::collections::HashMap;

use petgraph::graph::NodeIndex;

use crate::graph::{Block, Node, Value};

/// Names of the values of one block.
#[derive(Debug)]
pub(crate) struct Names {
    values: HashMap<Value, String>,
    /// Nodes in the order in which they are written.
    pub order: Vec<NodeIndex>,
}

impl Names {
    /// Names every value of any graph, legal or not; no two values of a legal block share a name.
    pub fn new(block: &Block) -> Self {
        let mut order = block.order();
        if order.len() < block.graph.node_count() {
            // Cyclic: not legal, but messages still have to name it.
            order = block.graph.node_indices().collect();
        }
        let mut names = Self { values: HashMap::new(), order: Vec::new() };
        let mut roots: HashMap<Value, String> = HashMap::new();
        let mut versions: HashMap<String, usize> = HashMap::new();
        let (mut tables, mut results) = (0.., 0..);
        for node in order.iter().copied() {
            let value = Value { node, result: 0 };
            match &block.graph[node] {
                Node::Input { name, .. } => names.set(value, format!("%{name}")),
                Node::Weight { name, .. } => names.set(value, format!("@{name}")),
                Node::Step(input) => names.set(value, format!("${}", input.name())),
                Node::Table(_) => names.set(value, format!("#{}", tables.next().unwrap_or(0))),
                Node::State { name, .. } => {
                    roots.insert(value, name.clone());
                    names.set(value, format!("&{name}"));
                }
                Node::Op { results: types, .. } => {
                    for result in 0..types.len() {
                        let value = Value { node, result };
                        let before = superseded(block, value).and_then(|state| roots.get(&state).cloned());
                        let name = if let Some(root) = before {
                            let version = versions.entry(root.clone()).or_insert(0);
                            *version += 1;
                            let name = format!("&{root}.{version}");
                            roots.insert(value, root);
                            name
                        } else {
                            format!("%{}", results.next().unwrap_or(0))
                        };
                        names.set(value, name);
                    }
                }
            }
        }
        names.order = order;
        names
    }

    fn set(&mut self, value: Value, name: String) {
        self.values.insert(value, name);
    }

    /// The name of a value, or `?` where there is no such value.
    pub fn value(&self, value: Value) -> &str {
        self.values.get(&value).map_or("?", String::as_str)
    }

    /// A node in messages: a leaf by its name, an op by its results and its name.
    pub fn node(&self, block: &Block, node: NodeIndex) -> String {
        let results = (0..block.result_count(node)).map(|result| self.value(Value { node, result }));
        let results = results.collect::<Vec<_>>().join(", ");
        match &block.graph[node] {
            Node::Op { op, .. } => format!("`{results} = {}`", op.name),
            _ => format!("`{results}`"),
        }
    }
}

/// The state value that an op's result supersedes.
pub(crate) fn superseded(block: &Block, value: Value) -> Option<Value> {
    let Node::Op { op, .. } = &block.graph[value.node] else { return None };
    let place = op.superseded(value.result)?;
    let operands = block.operands(value.node);
    let given = op.places(operands.len())?.into_iter().position(|other| other == place)?;
    operands.get(given).copied()
}
