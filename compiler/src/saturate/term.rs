//! The language of the e-graph, one node type for the whole op table, and the way from a block to terms and
//! back.
//!
//! A term's children are the op's operands in the table's order, step inputs left out (the table implies
//! them) and absent optional weights spelled `none`, then its attributes as leaves. An op with several
//! results is a tuple; `get.N` takes one of them. So laws can be written down as patterns.

use std::collections::HashMap;
use std::fmt;

use egg::{FromOp, Id, Language, RecExpr};
use nemo_ir::graph::{Block, BlockBuilder, BuildError, Node, Value};
use nemo_ir::ops::{self, Attr, Op, OperandKind};
use nemo_ir::types::Dtype;

/// What a node of the e-graph is, but for its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Head {
    /// An op, by its name in the table.
    Op(&'static str),
    /// One result of a tuple.
    Get(usize),
    /// A leaf of the block, by its place among the block's leaves: input, weight, state or table.
    Leaf(usize),
    /// An integer attribute.
    Int(u64),
    /// A real attribute, by its bits.
    Float(u64),
    /// A dtype attribute.
    Dtype(Dtype),
    /// An optional weight that the model does not have.
    Absent,
}

/// A node of the e-graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// What it is.
    pub head: Head,
    /// Operands, then attributes.
    pub children: Vec<Id>,
}

impl Term {
    /// A node without children.
    pub fn leaf(head: Head) -> Self {
        Self { head, children: Vec::new() }
    }

    /// The op, where the node is one.
    pub fn op(&self) -> Option<Op> {
        match self.head {
            Head::Op(name) => ops::op(name),
            _ => None,
        }
    }

    /// The leaf of an attribute's value.
    pub fn attr(attr: Attr) -> Self {
        Self::leaf(match attr {
            Attr::Int(n) => Head::Int(n),
            Attr::Float(x) => Head::Float(x.to_bits()),
            Attr::Dtype(dtype) => Head::Dtype(dtype),
        })
    }

    /// The attribute's value, where the node is one.
    pub fn as_attr(&self) -> Option<Attr> {
        match self.head {
            Head::Int(n) => Some(Attr::Int(n)),
            Head::Float(bits) => Some(Attr::Float(f64::from_bits(bits))),
            Head::Dtype(dtype) => Some(Attr::Dtype(dtype)),
            _ => None,
        }
    }
}

/// The operands of an op that are written: all but step inputs, which come last in the table.
pub fn written(op: Op) -> usize {
    op.operands.iter().filter(|operand| !matches!(operand.kind, OperandKind::Step(_))).count()
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(name) => f.write_str(name),
            Self::Get(n) => write!(f, "get.{n}"),
            Self::Leaf(n) => write!(f, "leaf.{n}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Dtype(dtype) => write!(f, "{dtype}"),
            Self::Absent => f.write_str("none"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.head)
    }
}

impl Language for Term {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl FromOp for Term {
    type Error = String;

    fn from_op(word: &str, children: Vec<Id>) -> Result<Self, String> {
        if let Some(op) = ops::op(word) {
            let wanted = written(op) + op.attrs.len();
            if children.len() != wanted {
                return Err(format!("`{word}` takes {wanted} children, found {}", children.len()));
            }
            return Ok(Self { head: Head::Op(op.name), children });
        }
        if let Some(result) = word.strip_prefix("get.").and_then(|n| n.parse().ok()) {
            return if children.len() == 1 {
                Ok(Self { head: Head::Get(result), children })
            } else {
                Err(format!("`{word}` takes one tuple"))
            };
        }
        let head = if word == "none" {
            Head::Absent
        } else if let Ok(dtype) = word.parse() {
            Head::Dtype(dtype)
        } else if let Ok(n) = word.parse() {
            Head::Int(n)
        } else {
            return Err(format!("`{word}` is no op, dtype, number, `get.N` or `none`"));
        };
        if children.is_empty() { Ok(Self::leaf(head)) } else { Err(format!("`{word}` has no children")) }
    }
}

/// A block as terms.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The block's name.
    pub name: String,
    /// Inputs, states, weights and tables in order of definition.
    pub leaves: Vec<Node>,
    /// The terms, each once.
    pub expr: RecExpr<Term>,
    /// What the block gives.
    pub roots: Vec<(Root, Id)>,
}

/// Something that a block must compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// An output, by its name.
    Output(String),
    /// The last value of a state, by the leaf that is its first.
    State(usize),
}

/// Builds expressions in which equal terms are one.
#[derive(Debug, Default, Clone)]
pub struct Interned {
    /// The terms.
    pub expr: RecExpr<Term>,
    known: HashMap<Term, Id>,
}

impl Interned {
    /// The term's id, new or not.
    pub fn add(&mut self, term: Term) -> Id {
        if let Some(id) = self.known.get(&term) {
            return *id;
        }
        let id = self.expr.add(term.clone());
        self.known.insert(term, id);
        id
    }
}

impl Terms {
    /// A legal block as terms.
    pub fn of(block: &Block) -> Self {
        let mut leaves = Vec::new();
        let mut interned = Interned::default();
        let mut ids: HashMap<Value, Id> = HashMap::new();
        // Leaves first, in order of definition, so that laws can ask which weight comes first.
        for node in block.graph.node_indices() {
            if matches!(block.graph[node], Node::Op { .. } | Node::Step(_)) {
                continue;
            }
            let id = interned.add(Term::leaf(Head::Leaf(leaves.len())));
            ids.insert(Value { node, result: 0 }, id);
            leaves.push(block.graph[node].clone());
        }
        for node in block.order() {
            let Node::Op { op, attrs, results } = &block.graph[node] else { continue };
            let given = block.operands(node);
            let places = op.places(given.len()).unwrap_or_default();
            let mut children: Vec<Option<Id>> = vec![None; written(op)];
            for (value, place) in given.iter().zip(places) {
                if let Some(child) = children.get_mut(place) {
                    *child = ids.get(value).copied();
                }
            }
            let mut children: Vec<Id> = children
                .into_iter()
                .map(|id| id.unwrap_or_else(|| interned.add(Term::leaf(Head::Absent))))
                .collect();
            children.extend(attrs.iter().map(|attr| interned.add(Term::attr(*attr))));
            let term = interned.add(Term { head: Head::Op(op.name), children });
            for result in 0..results.len() {
                let id = if results.len() == 1 {
                    term
                } else {
                    interned.add(Term { head: Head::Get(result), children: vec![term] })
                };
                ids.insert(Value { node, result }, id);
            }
        }
        let mut roots: Vec<(Root, Id)> =
            block.outputs.iter().map(|(name, value)| (Root::Output(name.clone()), ids[value])).collect();
        for (node, ..) in block.states() {
            let place = Value { node, result: 0 };
            let leaf = match interned.expr[ids[&place]].head {
                Head::Leaf(leaf) => leaf,
                other => unreachable!("a state is a leaf, not {other}"),
            };
            roots.push((Root::State(leaf), ids[&block.final_state(node)]));
        }
        Self { name: block.name.clone(), leaves, expr: interned.expr, roots }
    }

    /// The block of these terms: leaves in their order, then ops, each after its operands.
    ///
    /// # Errors
    /// [`BuildError`] when a term does not fit the op table, which no law brings about.
    pub fn to_block(&self) -> Result<Block, BuildError> {
        let mut builder = BlockBuilder::new(&self.name);
        let order = self.order();
        let mut values: HashMap<Id, Vec<Value>> = HashMap::new();
        let mut leaves: Vec<(usize, Id)> = Vec::new();
        for id in &order {
            if let Head::Leaf(leaf) = self.expr[*id].head {
                leaves.push((leaf, *id));
            }
        }
        leaves.sort_unstable();
        for (leaf, id) in leaves {
            let value = match self.leaves[leaf].clone() {
                Node::Input { name, ty } => builder.input(name, ty),
                Node::State { name, ty } => builder.state(name, ty),
                Node::Weight { name, ty } => builder.weight(name, ty),
                Node::Table(table) => builder.table(table),
                Node::Step(input) => builder.step(input),
                Node::Op { .. } => unreachable!("ops are no leaves"),
            };
            values.insert(id, vec![value]);
        }
        for id in &order {
            let term = &self.expr[*id];
            match term.head {
                Head::Get(result) => {
                    let value = values[&term.children[0]][result];
                    values.insert(*id, vec![value]);
                }
                Head::Op(name) => {
                    let op = ops::op(name).ok_or_else(|| BuildError::UnknownOp(name.to_owned()))?;
                    let (operands, attrs) = term.children.split_at(written(op));
                    let operands: Vec<Value> =
                        operands.iter().filter_map(|child| values.get(child)).map(|v| v[0]).collect();
                    let attrs = attrs.iter().filter_map(|child| self.expr[*child].as_attr()).collect();
                    values.insert(*id, builder.results(name, &operands, attrs)?);
                }
                Head::Leaf(_) | Head::Int(_) | Head::Float(_) | Head::Dtype(_) | Head::Absent => {}
            }
        }
        for (root, id) in &self.roots {
            if let Root::Output(name) = root {
                builder.output(name, values[id][0]);
            }
        }
        Ok(builder.finish())
    }

    /// The terms that the roots need, as the expression has them: each after its children.
    pub fn order(&self) -> Vec<Id> {
        let mut needed = vec![false; self.expr.len()];
        for (_, root) in &self.roots {
            needed[usize::from(*root)] = true;
        }
        // Children stand before what is made of them.
        for (place, term) in self.expr.as_ref().iter().enumerate().rev() {
            if needed[place] {
                term.children.iter().for_each(|child| needed[usize::from(*child)] = true);
            }
        }
        (0..self.expr.len()).filter(|place| needed[*place]).map(Id::from).collect()
    }
}
