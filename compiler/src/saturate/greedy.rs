//! The same laws without an e-graph: the first match that makes the block cheaper is taken, until none does.
//!
//! This is what a list of fusion passes would do. It cannot take a step that pays only together with the next one,
//! nor weigh two fusions that exclude each other; `nemoc explain` shows what that costs.

use std::collections::BTreeMap;

use egg::{ENodeOrVar, Id, PatternAst, RecExpr, Var};
use nemo_ir::plan::Phase;
use nemo_ir::verify::verify_block;

use super::analysis::{Data, Firing, Signature, data_of};
use super::extract::facts;
use super::law::{Binding, Class, Parsed, instantiate};
use super::laws;
use super::term::{Interned, Term, Terms};
use crate::cost::Situation;

/// Most laws that are applied to one block.
const MAX_STEPS: usize = 200;

/// The block after greedy rewriting, and what was applied.
pub fn rewrite(terms: &Terms, phase: Phase, most: Class, at: &Situation<'_>) -> (Terms, Vec<Firing>) {
    let mut now = terms.clone();
    let mut seconds = super::seconds(&now, at);
    let mut firings = Vec::new();
    for _ in 0..MAX_STEPS {
        let found = laws::parsed()
            .iter()
            .enumerate()
            .filter(|(_, parsed)| parsed.law.class <= most)
            .find_map(|(index, parsed)| first_gain(&now, index, parsed, phase, at, seconds));
        match found {
            Some((next, cost, firing)) => {
                (now, seconds) = (next, cost);
                firings.push(firing);
            }
            None => break,
        }
    }
    (now, firings)
}

/// The first match of a law that lowers the cost.
fn first_gain(
    terms: &Terms,
    index: usize,
    parsed: &Parsed,
    phase: Phase,
    at: &Situation<'_>,
    seconds: f64,
) -> Option<(Terms, f64, Firing)> {
    let data = facts(terms);
    let live = terms.order();
    let mut matches = Vec::new();
    search(&terms.expr, &live, &parsed.left, BTreeMap::new(), &mut matches);
    matches.into_iter().find_map(|vars| {
        let binding = Binding {
            vars: &|var| vars.get(&var).copied(),
            data: &|id| data[usize::from(id)].clone(),
            leaves: &terms.leaves,
            phase,
        };
        if !parsed.law.when.iter().all(|when| when.holds(&binding)) {
            return None;
        }
        let (next, firing) = apply(terms, &data, index, parsed, &vars)?;
        let cost = super::seconds(&next, at);
        (cost < seconds * (1.0 - 1e-9) && is_legal(&next)).then_some((next, cost, firing))
    })
}

/// Whether a form keeps the rules of the graph: one writer of a state, nothing computed for nobody.
fn is_legal(terms: &Terms) -> bool {
    terms.to_block().is_ok_and(|block| verify_block(&block).is_ok())
}

/// Every way to match the equations against live terms.
fn search(
    expr: &RecExpr<Term>,
    live: &[Id],
    equations: &[(Var, PatternAst<Term>)],
    vars: BTreeMap<Var, Id>,
    found: &mut Vec<BTreeMap<Var, Id>>,
) {
    let Some(((var, pattern), rest)) = equations.split_first() else {
        found.push(vars);
        return;
    };
    for id in live {
        if vars.get(var).is_some_and(|known| known != id) {
            continue;
        }
        let mut vars = vars.clone();
        vars.insert(*var, *id);
        let root = Id::from(pattern.len() - 1);
        if unify(expr, pattern, root, *id, &mut vars) {
            search(expr, live, rest, vars, found);
        }
    }
}

fn unify(
    expr: &RecExpr<Term>,
    pattern: &PatternAst<Term>,
    node: Id,
    id: Id,
    vars: &mut BTreeMap<Var, Id>,
) -> bool {
    match &pattern[node] {
        ENodeOrVar::Var(var) => *vars.entry(*var).or_insert(id) == id,
        ENodeOrVar::ENode(wanted) => {
            let term = &expr[id];
            term.head == wanted.head
                && term.children.len() == wanted.children.len()
                && wanted.children.iter().zip(&term.children).all(|(w, t)| unify(expr, pattern, *w, *t, vars))
        }
    }
}

/// The block with the right side in the place of the left; `None` where types do not allow it, or a value would
/// depend on itself.
fn apply(
    terms: &Terms,
    data: &[Data],
    index: usize,
    parsed: &Parsed,
    vars: &BTreeMap<Var, Id>,
) -> Option<(Terms, Firing)> {
    let mut matched = Vec::new();
    let mut expr = terms.expr.clone();
    let mut data = data.to_vec();
    let mut vars = vars.clone();
    for (_, pattern) in &parsed.left {
        instantiate(pattern, &vars, |term| {
            let at = expr.as_ref().iter().position(|known| *known == term)?;
            matched.extend(Signature::of(&term, |id| &data[usize::from(id)]));
            Some(Id::from(at))
        })?;
    }
    let mut replaced: BTreeMap<Id, Id> = BTreeMap::new();
    let mut made = None;
    for (var, pattern) in &parsed.right {
        let id = instantiate(pattern, &vars, |term| {
            let of = data_of(&terms.leaves, &term, |id| &data[usize::from(id)]);
            if of == Data::Ill {
                return None;
            }
            made = made.take().or_else(|| Signature::of(&term, |id| &data[usize::from(id)]));
            data.push(of);
            Some(expr.add(term))
        })?;
        match vars.get(var) {
            Some(known) if data[usize::from(*known)] == data[usize::from(id)] => {
                replaced.insert(*known, id);
            }
            Some(_) => return None,
            None => {
                vars.insert(*var, id);
            }
        }
    }
    let mut rebuilt = Rebuild {
        expr: &expr,
        replaced: &replaced,
        interned: Interned::default(),
        done: BTreeMap::new(),
        open: Vec::new(),
    };
    let mut roots = Vec::with_capacity(terms.roots.len());
    for (root, id) in &terms.roots {
        roots.push((root.clone(), rebuilt.id(*id)?));
    }
    let expr = rebuilt.interned.expr;
    let next = Terms { name: terms.name.clone(), leaves: terms.leaves.clone(), expr, roots };
    Some((next, Firing { law: index, matched, made: made? }))
}

/// Copies what the roots need, with the replaced terms in their new form.
struct Rebuild<'a> {
    expr: &'a RecExpr<Term>,
    replaced: &'a BTreeMap<Id, Id>,
    interned: Interned,
    done: BTreeMap<Id, Id>,
    open: Vec<Id>,
}

impl Rebuild<'_> {
    fn id(&mut self, id: Id) -> Option<Id> {
        let id = self.replaced.get(&id).copied().unwrap_or(id);
        if let Some(done) = self.done.get(&id) {
            return Some(*done);
        }
        if self.open.contains(&id) {
            return None;
        }
        self.open.push(id);
        let term = &self.expr[id];
        let children = term.children.iter().map(|child| self.id(*child)).collect::<Option<Vec<_>>>()?;
        self.open.pop();
        let new = self.interned.add(Term { head: term.head, children });
        self.done.insert(id, new);
        Some(new)
    }
}
