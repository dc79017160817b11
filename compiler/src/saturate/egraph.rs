//! Saturation: every law applied wherever it matches, until nothing new comes of it.

use std::collections::BTreeMap;
use std::fmt;

use egg::{
    Applier, Id, MultiPattern, Rewrite, Runner, SearchMatches, SimpleScheduler, StopReason, Subst, Symbol,
    Var,
};
use nemo_ir::plan::Phase;

use super::analysis::{Data, Facts, Firing, Graph, Signature, data_of};
use super::law::{Binding, Class, Parsed, instantiate};
use super::laws;
use super::term::{Term, Terms};

/// Most nodes of one block's e-graph. The largest shipped block ends below a thousand; a block that reaches the
/// limit keeps what was found up to there.
pub const MAX_NODES: usize = 20_000;

/// Most rounds over all laws; shipped blocks are saturated after seven.
pub const MAX_ROUNDS: usize = 24;

/// A saturated block.
#[derive(Debug)]
pub struct Saturated {
    /// Every form of the block that the laws give.
    pub graph: Graph,
    /// The class of each root, in the order of the terms' roots.
    pub roots: Vec<Id>,
    /// The class of each term of the original block.
    pub original: Vec<Id>,
    /// Rounds until nothing new came.
    pub rounds: usize,
    /// Whether a limit ended it before that.
    pub limited: bool,
}

/// Applies the laws of the allowed classes to a block of a program of this phase.
pub fn saturate(terms: &Terms, phase: Phase, most: Class) -> Saturated {
    let facts = Facts { leaves: terms.leaves.clone(), firings: Vec::new() };
    let mut graph = Graph::new(facts);
    let mut original: Vec<Id> = Vec::with_capacity(terms.expr.len());
    for term in terms.expr.as_ref() {
        let term = Term {
            head: term.head,
            children: term.children.iter().map(|child| original[usize::from(*child)]).collect(),
        };
        original.push(graph.add(term));
    }
    graph.rebuild();
    let rules: Vec<Rewrite<Term, Facts>> = laws::parsed()
        .iter()
        .enumerate()
        .filter(|(_, parsed)| parsed.law.class <= most)
        .map(|(index, parsed)| rewrite(index, parsed, phase))
        .collect();
    // No law is held back, and the limits are counts: the same block gives the same graph on every machine.
    let runner = Runner::<Term, Facts, ()>::new(Facts::default())
        .with_egraph(graph)
        .with_iter_limit(MAX_ROUNDS)
        .with_node_limit(MAX_NODES)
        .with_time_limit(std::time::Duration::from_secs(3600))
        .with_scheduler(SimpleScheduler)
        .run(&rules);
    let rounds = runner.iterations.len();
    let limited = !matches!(runner.stop_reason, Some(StopReason::Saturated));
    let graph = runner.egraph;
    let roots = terms.roots.iter().map(|(_, id)| graph.find(original[usize::from(*id)])).collect();
    let original = original.iter().map(|id| graph.find(*id)).collect();
    Saturated { graph, roots, original, rounds, limited }
}

fn rewrite(index: usize, parsed: &'static Parsed, phase: Phase) -> Rewrite<Term, Facts> {
    let searcher = MultiPattern::new(parsed.left.clone());
    let applier = Apply { index, parsed, phase };
    Rewrite::new(parsed.law.name, searcher, applier).unwrap_or_else(|what| unreachable!("{what}"))
}

/// Applies one law: checks its conditions and types, adds its right side, and remembers that it did.
struct Apply {
    index: usize,
    parsed: &'static Parsed,
    phase: Phase,
}

impl fmt::Debug for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parsed.law.name)
    }
}

impl Applier<Term, Facts> for Apply {
    fn apply_matches(&self, graph: &mut Graph, matches: &[SearchMatches<'_, Term>], _: Symbol) -> Vec<Id> {
        let substs = matches.iter().flat_map(|found| &found.substs);
        substs.filter_map(|subst| self.fire(graph, subst)).flatten().collect()
    }

    fn apply_one(
        &self,
        graph: &mut Graph,
        _: Id,
        subst: &Subst,
        _: Option<&egg::PatternAst<Term>>,
        _: Symbol,
    ) -> Vec<Id> {
        self.fire(graph, subst).unwrap_or_default()
    }
}

impl Apply {
    /// The classes that changed; `None` where the law does not hold here.
    fn fire(&self, graph: &mut Graph, subst: &Subst) -> Option<Vec<Id>> {
        let binding = Binding {
            vars: &|var| subst.get(var).copied(),
            data: &|id| graph[id].data.clone(),
            leaves: &graph.analysis.leaves,
            phase: self.phase,
        };
        if !self.parsed.law.when.iter().all(|when| when.holds(&binding)) {
            return None;
        }
        let mut vars: BTreeMap<Var, Id> = BTreeMap::new();
        let sides = self.parsed.left.iter().chain(&self.parsed.right);
        for node in sides.clone().flat_map(|(_, pattern)| pattern.iter()) {
            if let egg::ENodeOrVar::Var(var) = node
                && let Some(id) = subst.get(*var)
            {
                vars.insert(*var, *id);
            }
        }
        for (var, _) in sides {
            if let Some(id) = subst.get(*var) {
                vars.insert(*var, *id);
            }
        }
        let mut matched = Vec::new();
        for (_, pattern) in &self.parsed.left {
            instantiate(pattern, &vars, |term| {
                matched.extend(Signature::of(&term, |id| &graph[id].data));
                graph.lookup(term)
            })?;
        }
        let mut changed = Vec::new();
        for (var, pattern) in &self.parsed.right {
            let (mut made, before) = (None, graph.total_size());
            let id = instantiate(pattern, &vars, |term| {
                if data_of(&graph.analysis.leaves, &term, |id| &graph[id].data) == Data::Ill {
                    return None;
                }
                if graph.lookup(term.clone()).is_none() {
                    made = made.take().or_else(|| Signature::of(&term, |id| &graph[id].data));
                }
                Some(graph.add(term))
            })?;
            if let Some(made) = made {
                graph.analysis.firings.push(Firing { law: self.index, matched: matched.clone(), made });
            }
            match vars.insert(*var, id) {
                Some(known) => {
                    // Equal values have one type; a law that is applied to others does not hold.
                    if graph[known].data != graph[id].data {
                        return Some(changed);
                    }
                    if graph.union(known, id) {
                        changed.push(id);
                    }
                }
                None if graph.total_size() > before => changed.push(id),
                None => {}
            }
        }
        Some(changed)
    }
}
