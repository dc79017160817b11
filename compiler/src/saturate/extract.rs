//! Which of the equal forms is built: one node per class that is needed, each kernel paid for once.
//!
//! Cost is that of a DAG: a value that two kernels read is computed once, and all results of a tuple come of one
//! kernel. Choices whose terms depend on themselves, or in which two kernels write one state, cost infinitely much.
//! The search climbs from several starts by moves that change one class, or one tuple with everything that can be
//! taken from it; it draws nothing by chance.

use std::collections::{BTreeMap, HashMap};

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
}

/// One node of a class.
#[derive(Debug, Clone)]
struct Form {
    term: Term,
    /// Classes of its children, attributes and absent weights left out.
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
            classes.push(Class { nodes: nodes.iter().map(|term| form(graph, term, at, &place)).collect() });
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

    /// Nodes of all classes.
    pub fn nodes(&self) -> usize {
        self.classes.iter().map(|class| class.nodes.len()).sum()
    }

    /// Seconds of everything that a choice computes; infinite where it cannot be built.
    pub fn seconds(&self, choice: &Choice) -> f64 {
        let mut walk = Walk { mark: vec![Mark::New; self.classes.len()], order: Vec::new() };
        if !self.roots.iter().all(|root| self.visit(choice, *root, &mut walk)) {
            return f64::INFINITY;
        }
        let mut total = 0.0;
        let mut written: BTreeMap<usize, usize> = BTreeMap::new();
        for class in &walk.order {
            let form = &self.classes[*class].nodes[choice[*class]];
            total += form.seconds;
            for state in &form.writes {
                *written.entry(*state).or_default() += 1;
            }
        }
        let read_again = walk.order.iter().any(|class| {
            let form = &self.classes[*class].nodes[choice[*class]];
            form.reads.iter().any(|state| written.contains_key(state))
        });
        if read_again || written.values().any(|writers| *writers > 1) { f64::INFINITY } else { total }
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

    /// The best choice that the search finds, and its seconds.
    pub fn best(&self) -> (Choice, f64) {
        let moves = self.moves();
        let starts = [self.original.clone(), self.bottom_up()];
        let mut best = (self.original.clone(), f64::INFINITY);
        for start in starts {
            let climbed = self.climb(start, &moves);
            if climbed.1 < best.1 {
                best = climbed;
            }
        }
        best
    }

    /// The cheapest choice found that has other kernels than this one: each move away from it, and the best that can be
    /// had without taking that move back.
    pub fn runner_up(&self, choice: &Choice) -> Option<(Choice, f64)> {
        let kernels = self.kernels(choice);
        let moves = self.moves();
        let mut best: Option<(Choice, f64)> = None;
        for changes in &moves {
            if changes.iter().all(|(class, node)| choice[*class] == *node) {
                continue;
            }
            let mut start = choice.clone();
            for (class, node) in changes {
                start[*class] = *node;
            }
            let pinned = |other: &&Vec<(usize, usize)>| {
                other.iter().all(|(class, _)| changes.iter().all(|(pinned, _)| pinned != class))
            };
            let free: Vec<_> = moves.iter().filter(pinned).cloned().collect();
            let (found, seconds) = self.climb(start, &free);
            let better = best.as_ref().is_none_or(|(_, least)| seconds < *least);
            if seconds.is_finite() && better && self.kernels(&found) != kernels {
                best = Some((found, seconds));
            }
        }
        best
    }

    /// The ops that a choice computes, views left out, in alphabetical order.
    fn kernels(&self, choice: &Choice) -> Vec<&'static str> {
        let mut walk = Walk { mark: vec![Mark::New; self.classes.len()], order: Vec::new() };
        for root in &self.roots {
            self.visit(choice, *root, &mut walk);
        }
        let heads = walk.order.iter().map(|class| self.classes[*class].nodes[choice[*class]].term.head);
        let mut ops: Vec<_> = heads
            .filter_map(|head| match head {
                Head::Op(name) if name != "slice" => Some(name),
                _ => None,
            })
            .collect();
        ops.sort_unstable();
        ops
    }

    /// Takes the best move as long as one is an improvement.
    fn climb(&self, mut choice: Choice, moves: &[Vec<(usize, usize)>]) -> (Choice, f64) {
        let mut seconds = self.seconds(&choice);
        loop {
            let mut next: Option<(Choice, f64)> = None;
            for changes in moves {
                if changes.iter().all(|(class, node)| choice[*class] == *node) {
                    continue;
                }
                let mut moved = choice.clone();
                for (class, node) in changes {
                    moved[*class] = *node;
                }
                let cost = self.seconds(&moved);
                let least = next.as_ref().map_or(seconds, |(_, least)| *least);
                if cost < least * (1.0 - 1e-9) || (least.is_infinite() && cost.is_finite()) {
                    next = Some((moved, cost));
                }
            }
            match next {
                Some(better) => (choice, seconds) = better,
                None => return (choice, seconds),
            }
        }
    }

    /// Each class to each of its nodes; each tuple's node together with everything taken from the tuple.
    fn moves(&self) -> Vec<Vec<(usize, usize)>> {
        let mut taken: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let mut moves = Vec::new();
        for (class, forms) in self.classes.iter().enumerate() {
            for (node, form) in forms.nodes.iter().enumerate() {
                if forms.nodes.len() > 1 {
                    moves.push(vec![(class, node)]);
                }
                if matches!(form.term.head, Head::Get(_)) {
                    taken.entry(form.children[0]).or_default().push((class, node));
                }
            }
        }
        for (tuple, projections) in taken {
            for node in 0..self.classes[tuple].nodes.len() {
                moves.push(projections.iter().copied().chain([(tuple, node)]).collect());
            }
        }
        moves
    }

    /// For each class the node whose set of kernels is cheapest, from the leaves up.
    fn bottom_up(&self) -> Choice {
        let mut choice = self.original.clone();
        let mut sets: Vec<Option<(f64, BTreeMap<usize, f64>)>> = vec![None; self.classes.len()];
        loop {
            let mut changed = false;
            for (class, forms) in self.classes.iter().enumerate() {
                for (node, form) in forms.nodes.iter().enumerate() {
                    let Some(set) = self.set_of(class, form, &sets) else { continue };
                    let total: f64 = set.values().sum();
                    let better = sets[class].as_ref().is_none_or(|(known, _)| total < known * (1.0 - 1e-9));
                    if better {
                        sets[class] = Some((total, set));
                        choice[class] = node;
                        changed = true;
                    }
                }
            }
            if !changed {
                return choice;
            }
        }
    }

    /// The kernels that a node needs, itself included; `None` where a child has none yet or needs this class.
    fn set_of(
        &self,
        class: usize,
        form: &Form,
        sets: &[Option<(f64, BTreeMap<usize, f64>)>],
    ) -> Option<BTreeMap<usize, f64>> {
        let mut set = BTreeMap::new();
        for child in &form.children {
            let (_, of_child) = sets[*child].as_ref()?;
            set.extend(of_child.iter().map(|(class, seconds)| (*class, *seconds)));
        }
        if set.contains_key(&class) || form.seconds.is_infinite() {
            return None;
        }
        set.insert(class, form.seconds);
        Some(set)
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

    /// Every choice that can be built, by trying all: the oracle for small blocks. `None` past `limit` tries.
    pub fn exhaustive(&self, limit: usize) -> Option<f64> {
        let mut search = Exhaustive { forms: self, tries: 0, limit, best: f64::INFINITY };
        let mut choice = vec![None; self.classes.len()];
        search.go(&mut choice, self.roots.clone(), 0.0)?;
        Some(search.best)
    }
}

/// A search through all choices, class by class as they are needed.
struct Exhaustive<'a> {
    forms: &'a Forms,
    tries: usize,
    limit: usize,
    best: f64,
}

impl Exhaustive<'_> {
    /// `open` are the classes still to choose for; `None` when there are too many choices.
    fn go(&mut self, choice: &mut Vec<Option<usize>>, mut open: Vec<usize>, so_far: f64) -> Option<()> {
        self.tries += 1;
        if self.tries > self.limit {
            return None;
        }
        if so_far >= self.best {
            return Some(());
        }
        let next = loop {
            match open.pop() {
                Some(class) if choice[class].is_some() => {}
                other => break other,
            }
        };
        let Some(class) = next else {
            let whole: Choice = choice.iter().map(|node| node.unwrap_or(0)).collect();
            let seconds = self.forms.seconds(&whole);
            if seconds < self.best {
                self.best = seconds;
            }
            return Some(());
        };
        for (node, form) in self.forms.classes[class].nodes.iter().enumerate() {
            if form.seconds.is_infinite() {
                continue;
            }
            choice[class] = Some(node);
            let more = open.iter().chain(&form.children).copied().collect();
            self.go(choice, more, so_far + form.seconds)?;
            choice[class] = None;
        }
        Some(())
    }
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
