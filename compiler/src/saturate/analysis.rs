//! What is known of each class of equal terms: the types of its values, what kind of thing they are, and the
//! law that made each fused term.

use egg::{Analysis, DidMerge, EGraph, Id};
use nemo_ir::graph::Node;
use nemo_ir::ops::{Attr, Op, OpArgs, OperandKind};
use nemo_ir::types::Type;

use super::term::{Head, Term, written};

/// What is known of a class.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// One value.
    Value(Fact),
    /// The results of an op that has several.
    Tuple(Vec<Fact>),
    /// A constant attribute.
    Attr(Attr),
    /// An optional weight that is not there.
    Absent,
    /// Something that the op table does not admit; no law makes one.
    Ill,
}

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Its type.
    pub ty: Type,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An activation.
    Value,
    /// A checkpoint tensor, by its leaf.
    Weight(usize),
    /// A state, or a successor of one, by the leaf that is its first value.
    State(usize),
    /// A table, by its leaf.
    Table(usize),
}

impl Data {
    /// The one value.
    pub fn value(&self) -> Option<&Fact> {
        match self {
            Self::Value(fact) => Some(fact),
            _ => None,
        }
    }

    /// The attribute.
    pub fn attr(&self) -> Option<Attr> {
        match self {
            Self::Attr(attr) => Some(*attr),
            _ => None,
        }
    }
}

/// The e-graph of a block.
pub type Graph = EGraph<Term, Facts>;

/// A law that fired: what it matched, and what it made.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    /// Index of the law in the table.
    pub law: usize,
    /// The ops that its left side matched.
    pub matched: Vec<Signature>,
    /// The op that its right side made.
    pub made: Signature,
}

/// An op with its attributes: what is left of a term when the graph around it has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Its name in the table.
    pub op: &'static str,
    /// Its attributes, in the table's order.
    pub attrs: Vec<Attr>,
}

impl Signature {
    /// Of a term; `None` where it is no op.
    pub fn of<'a>(term: &Term, data: impl Fn(Id) -> &'a Data) -> Option<Self> {
        let op = term.op()?;
        let attrs = term.children[written(op)..].iter().filter_map(|child| data(*child).attr());
        Some(Self { op: op.name, attrs: attrs.collect() })
    }
}

/// What the analysis needs to know of the block, and what it remembers.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The block's leaves.
    pub leaves: Vec<Node>,
    /// Every firing that made something new.
    pub firings: Vec<Firing>,
}

impl Analysis<Term> for Facts {
    type Data = Data;

    fn make(egraph: &mut Graph, term: &Term, _: Id) -> Data {
        data_of(&egraph.analysis.leaves, term, |child| &egraph[child].data)
    }

    fn merge(&mut self, a: &mut Data, b: Data) -> DidMerge {
        // Equal terms are of one type and kind: a law that says otherwise is wrong, and firing it is refused
        // before anything is merged.
        assert_eq!(*a, b, "terms of different types were made equal");
        DidMerge(false, false)
    }
}

/// What is known of a term whose children are known.
pub fn data_of<'a>(leaves: &[Node], term: &Term, child: impl Fn(Id) -> &'a Data) -> Data {
    match term.head {
        Head::Absent => Data::Absent,
        Head::Int(_) | Head::Float(_) | Head::Dtype(_) => term.as_attr().map_or(Data::Ill, Data::Attr),
        Head::Leaf(leaf) => match leaves.get(leaf) {
            Some(Node::Input { ty, .. }) => Data::Value(Fact { ty: ty.clone(), kind: Kind::Value }),
            Some(Node::Weight { ty, .. }) => Data::Value(Fact { ty: ty.clone(), kind: Kind::Weight(leaf) }),
            Some(Node::State { ty, .. }) => Data::Value(Fact { ty: ty.clone(), kind: Kind::State(leaf) }),
            Some(Node::Table(table)) => Data::Value(Fact { ty: table.ty(), kind: Kind::Table(leaf) }),
            Some(Node::Step(_) | Node::Op { .. }) | None => Data::Ill,
        },
        Head::Get(result) => match child(term.children[0]) {
            Data::Tuple(facts) => facts.get(result).map_or(Data::Ill, |fact| Data::Value(fact.clone())),
            _ => Data::Ill,
        },
        Head::Op(_) => term.op().map_or(Data::Ill, |op| {
            let children: Vec<&Data> = term.children.iter().map(|id| child(*id)).collect();
            results(op, &children).unwrap_or(Data::Ill)
        }),
    }
}

/// The results of an op; `None` where the table does not admit its operands.
fn results(op: Op, children: &[&Data]) -> Option<Data> {
    let (operands, attrs) = children.split_at_checked(written(op))?;
    let attrs: Vec<Attr> = attrs.iter().map(|data| data.attr()).collect::<Option<_>>()?;
    let steps: Vec<Option<Type>> = op
        .operands
        .iter()
        .map(|operand| match operand.kind {
            OperandKind::Step(input) => Some(input.ty()),
            _ => None,
        })
        .collect();
    let mut types: Vec<&Type> = Vec::with_capacity(op.operands.len());
    for (place, operand) in op.operands.iter().enumerate() {
        match (operand.kind, operands.get(place)) {
            (OperandKind::Step(_), _) => types.extend(steps[place].as_ref()),
            (OperandKind::OptionalWeight, Some(Data::Absent)) => {}
            (kind, Some(Data::Value(fact))) if takes(kind, fact.kind) => types.push(&fact.ty),
            _ => return None,
        }
    }
    let types = (op.infer)(&OpArgs::new(op, &types, &attrs).ok()?).ok()?;
    let fact = |(result, ty): (usize, Type)| {
        let kind = match op.superseded(result).and_then(|place| operands[place].value()) {
            Some(state) => state.kind,
            None => Kind::Value,
        };
        Fact { ty, kind }
    };
    let mut facts: Vec<Fact> = types.into_iter().enumerate().map(fact).collect();
    Some(if facts.len() == 1 { Data::Value(facts.remove(0)) } else { Data::Tuple(facts) })
}

fn takes(operand: OperandKind, kind: Kind) -> bool {
    match operand {
        OperandKind::Value => kind == Kind::Value,
        OperandKind::Weight | OperandKind::OptionalWeight => matches!(kind, Kind::Weight(_)),
        OperandKind::State => matches!(kind, Kind::State(_)),
        OperandKind::Table => matches!(kind, Kind::Table(_)),
        OperandKind::Step(_) => false,
    }
}
