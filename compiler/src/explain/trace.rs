//! Which ops of the graph before a kernel of the graph after stands for.

use std::collections::{BTreeMap, HashMap};

use nemo_ir::graph::{Block, Node, Value};
use nemo_ir::ops::{Attr, Op, Recipe, Source};
use petgraph::graph::NodeIndex;

/// A value by how it is computed. Roundings are left out: laws may drop them, and nothing else about a value.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Leaf(String),
    Op { name: &'static str, attrs: Vec<String>, operands: Vec<Computed> },
}

/// Number of a key, and which of its results.
type Computed = (usize, usize);

#[derive(Default)]
struct Keys(HashMap<Key, usize>);

impl Keys {
    fn number(&mut self, key: Key) -> usize {
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }

    fn op(&mut self, op: Op, attrs: &[Attr], mut operands: Vec<Computed>) -> usize {
        // The maxima only tell where to look: by the law that brings them in, the token is that of all logits.
        if op.name == "sample_tiled" {
            operands.remove(1);
            return self.number(Key::Op { name: "sample", attrs: Vec::new(), operands });
        }
        let attrs = attrs.iter().filter(|attr| !matches!(attr, Attr::Dtype(_))).map(ToString::to_string);
        self.number(Key::Op { name: op.name, attrs: attrs.collect(), operands })
    }

    fn leaf(&mut self, node: &Node) -> usize {
        self.number(Key::Leaf(match node {
            Node::Input { name, .. } => format!("%{name}"),
            Node::Weight { name, .. } => format!("@{name}"),
            Node::State { name, .. } => format!("&{name}"),
            Node::Step(input) => format!("${}", input.name()),
            Node::Table(table) => format!("#{table:?}"),
            Node::Op { .. } => unreachable!("an op is no leaf"),
        }))
    }
}

/// For each op of `after`, in order, the ops of `before` whose results it computes, in order.
///
/// Both are forms of one block: a fused op computes what its recipe says, so each step of it that is an op of
/// `before` on the same values stands for that op.
pub fn replaced(before: &Block, after: &Block) -> Vec<(NodeIndex, Vec<NodeIndex>)> {
    let mut keys = Keys::default();
    let mut originals: BTreeMap<usize, NodeIndex> = BTreeMap::new();
    let mut numbers: HashMap<NodeIndex, usize> = HashMap::new();
    for node in before.order() {
        let number = match &before.graph[node] {
            Node::Op { op, attrs, .. } => {
                let operands = before.operands(node);
                let operands = operands.iter().map(|value| (numbers[&value.node], value.result)).collect();
                let number = keys.op(op, attrs, operands);
                originals.entry(number).or_insert(node);
                number
            }
            leaf => keys.leaf(leaf),
        };
        numbers.insert(node, number);
    }
    let mut values: HashMap<Value, Computed> = HashMap::new();
    let mut traced = Vec::new();
    for node in after.order() {
        let Node::Op { op, attrs, results } = &after.graph[node] else {
            values.insert(Value { node, result: 0 }, (keys.leaf(&after.graph[node]), 0));
            continue;
        };
        let operands: Vec<Computed> = after.operands(node).iter().map(|value| values[value]).collect();
        let (steps, computed) = steps(op, attrs, &operands, results.len(), &mut keys);
        for (result, value) in computed.into_iter().enumerate() {
            values.insert(Value { node, result }, value);
        }
        let mut made: Vec<NodeIndex> = steps.iter().filter_map(|step| originals.get(step)).copied().collect();
        made.sort_unstable();
        made.dedup();
        traced.push((node, made));
    }
    traced
}

/// The keys of the steps of an op, and where its results come from.
fn steps(
    op: Op,
    attrs: &[Attr],
    operands: &[Computed],
    results: usize,
    keys: &mut Keys,
) -> (Vec<usize>, Vec<Computed>) {
    let Some(recipe) = Recipe::of(op) else {
        let number = keys.op(op, attrs, operands.to_vec());
        return (vec![number], (0..results).map(|result| (number, result)).collect());
    };
    let places = op.places(operands.len()).unwrap_or_default();
    let mut made: Vec<usize> = Vec::with_capacity(recipe.steps.len());
    let value = |source: &Source, made: &[usize]| match *source {
        Source::Operand(operand) => {
            places.iter().position(|place| *place == operand).map(|given| operands[given])
        }
        Source::Step { step, result } => Some((made[step], result)),
    };
    for step in &recipe.steps {
        let taken = step.operands.iter().flatten().filter_map(|source| value(source, &made)).collect();
        let number = keys.op(step.op, &step.attrs(attrs), taken);
        made.push(number);
    }
    let computed = recipe.results.iter().filter_map(|source| value(source, &made)).collect();
    (made, computed)
}
