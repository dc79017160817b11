//! Which of the equal forms is built: one node per class that is needed, each kernel paid for once.
//!
//! Cost is that of a DAG: a value that two kernels read is computed once, and all results of a tuple come of one
//! kernel. Choices whose terms depend on themselves, in which two kernels write one state, or in which a kernel computes
//! a value for nobody, cost infinitely much.

mod oracle;
mod rejected;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use egg::{Id, Language};
use nemo_ir::ops::Effect;

use super::analysis::{Data, Graph, Kind};
use super::egraph::Saturated;
use super::term::{Head, Interned, Term, Terms, written};
use crate::cost::{Cost, Situation};

/// The forms that a block can take, with their costs.
#[derive(Debug)]
pub struct Forms {
    classes: Vec<Class>,
    roots: Vec<usize>,
    /// The original block's choice, where it has one.
    original: Choice,
}

#[derive(Debug, Default)]
struct Class {
    nodes: Vec<Form>,
    /// Of a tuple, the results that are values: each must be taken, or the kernel computes it for nobody.
    values: Vec<usize>,
}

/// One node of a class.
#[derive(Debug, Clone)]
struct Form {
    term: Term,
    /// Classes of its children.
    children: Vec<usize>,
    seconds: f64,
    /// The class of the state that it overwrites, for each it does.
    writes: Vec<usize>,
    /// The class of the state that it reads.
    reads: Vec<usize>,
}

/// For each class, which of its nodes.
pub type Choice = Vec<usize>;

impl Forms {
    /// The forms in a saturated block, costed for a situation.
    pub fn of(saturated: &Saturated, terms: &Terms, at: &Situation<'_>) -> Self {
        let graph = &saturated.graph;
        let mut ids: Vec<Id> = graph.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let index: HashMap<Id, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
        let place = |id: Id| index[&graph.find(id)];
        let mut classes = Vec::with_capacity(ids.len());
        for id in &ids {
            let mut nodes: Vec<Term> =
                graph[*id].nodes.iter().map(|node| node.clone().map_children(|id| graph.find(id))).collect();
            nodes.sort_unstable();
            nodes.dedup();
            let nodes = nodes.iter().map(|term| form(graph, term, at, &place)).collect();
            classes.push(Class { nodes, values: values_of(&graph[*id].data) });
        }
        let mut original = vec![0; classes.len()];
        // Later terms first: where two terms of the original fell into one class, the first one stands.
        for (n, id) in saturated.original.iter().enumerate().rev() {
            let term = terms.expr.as_ref()[n].clone();
            let term = term.map_children(|child| graph.find(saturated.original[usize::from(child)]));
            let class = place(*id);
            if let Some(node) = classes[class].nodes.iter().position(|form| form.term == term) {
                original[class] = node;
            }
        }
        Self { classes, roots: saturated.roots.iter().map(|id| place(*id)).collect(), original }
    }

    /// The choice that the original block is.
    pub fn original(&self) -> &Choice {
        &self.original
    }

    /// Seconds of everything that a choice computes; infinite where it cannot be built.
    pub fn seconds(&self, choice: &Choice) -> f64 {
        let mut walk = Walk { mark: vec![Mark::New; self.classes.len()], order: Vec::new() };
        if !self.roots.iter().all(|root| self.visit(choice, *root, &mut walk)) {
            return f64::INFINITY;
        }
        let mut total = 0.0;
        let mut written: BTreeMap<usize, usize> = BTreeMap::new();
        let mut taken: BTreeSet<(usize, usize)> = BTreeSet::new();
        for class in &walk.order {
            let form = &self.classes[*class].nodes[choice[*class]];
            if let Head::Get(result) = form.term.head {
                taken.insert((form.children[0], result));
            }
            total += form.seconds;
            for state in &form.writes {
                *written.entry(*state).or_default() += 1;
            }
        }
        let read_again = walk.order.iter().any(|class| {
            let form = &self.classes[*class].nodes[choice[*class]];
            form.reads.iter().any(|state| written.contains_key(state))
        });
        let in_vain = walk.order.iter().any(|class| {
            self.classes[*class].values.iter().any(|result| !taken.contains(&(*class, *result)))
        });
        if in_vain || read_again || written.values().any(|writers| *writers > 1) {
            f64::INFINITY
        } else {
            total
        }
    }

    /// Visits a class and what it needs; whether nothing depends on itself.
    fn visit(&self, choice: &Choice, class: usize, walk: &mut Walk) -> bool {
        match walk.mark[class] {
            Mark::Done => return true,
            Mark::Open => return false,
            Mark::New => walk.mark[class] = Mark::Open,
        }
        let children = &self.classes[class].nodes[choice[class]].children;
        if !children.iter().all(|child| self.visit(choice, *child, walk)) {
            return false;
        }
        walk.mark[class] = Mark::Done;
        walk.order.push(class);
        true
    }

    /// The block that a choice is.
    pub fn terms(&self, choice: &Choice, of: &Terms) -> Terms {
        let mut interned = Interned::default();
        let mut ids: HashMap<usize, Id> = HashMap::new();
        let mut roots = Vec::with_capacity(of.roots.len());
        for ((root, _), class) in of.roots.iter().zip(&self.roots) {
            roots.push((root.clone(), self.build(choice, *class, &mut interned, &mut ids)));
        }
        Terms { name: of.name.clone(), leaves: of.leaves.clone(), expr: interned.expr, roots }
    }

    fn build(
        &self,
        choice: &Choice,
        class: usize,
        interned: &mut Interned,
        ids: &mut HashMap<usize, Id>,
    ) -> Id {
        if let Some(id) = ids.get(&class) {
            return *id;
        }
        let form = &self.classes[class].nodes[choice[class]];
        let children = form.children.iter().map(|child| self.build(choice, *child, interned, ids)).collect();
        let id = interned.add(Term { head: form.term.head, children });
        ids.insert(class, id);
        id
    }
}

fn values_of(data: &Data) -> Vec<usize> {
    let Data::Tuple(facts) = data else { return Vec::new() };
    let values = facts.iter().enumerate().filter(|(_, fact)| fact.kind == Kind::Value);
    values.map(|(result, _)| result).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

struct Walk {
    mark: Vec<Mark>,
    order: Vec<usize>,
}

fn form(graph: &Graph, term: &Term, at: &Situation<'_>, place: &impl Fn(Id) -> usize) -> Form {
    let mut form = Form {
        term: term.clone(),
        children: term.children.iter().map(|child| place(*child)).collect(),
        seconds: 0.0,
        writes: Vec::new(),
        reads: Vec::new(),
    };
    let Some(op) = term.op() else { return form };
    form.seconds = cost(graph, term, at).seconds;
    for child in &term.children[..written(op)] {
        let is_state = graph[*child].data.value().is_some_and(|fact| matches!(fact.kind, Kind::State(_)));
        if is_state {
            let list = if op.effect == Effect::WritesState { &mut form.writes } else { &mut form.reads };
            list.push(place(*child));
        }
    }
    form
}

/// The cost of one node of the graph.
pub fn cost(graph: &Graph, term: &Term, at: &Situation<'_>) -> Cost {
    super::kernel_cost(term, |id| graph[id].data.clone(), at)
}

/// What is known of each term of an expression.
pub fn facts(terms: &Terms) -> Vec<Data> {
    let mut data: Vec<Data> = Vec::with_capacity(terms.expr.len());
    for term in terms.expr.as_ref() {
        let of = super::analysis::data_of(&terms.leaves, term, |id| &data[usize::from(id)]);
        data.push(of);
    }
    data
}
