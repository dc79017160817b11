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

/// Most nodes of one block's e-graph. The shipped blocks end below a hundred; a block that reaches the limit keeps what
/// was found up to there, and its report says so.
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
    saturate_by(laws::parsed(), terms, phase, most)
}

fn saturate_by(laws: &'static [Parsed], terms: &Terms, phase: Phase, most: Class) -> Saturated {
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
    let rules: Vec<Rewrite<Term, Facts>> = laws
        .iter()
        .enumerate()
        .filter(|(_, parsed)| parsed.law.class <= most)
        .map(|(index, parsed)| rewrite(index, parsed, phase))
        .collect();
    // No law is held back, and the limits that can be reached are counts: the same block gives the same graph on every
    // machine. An hour is out of reach of so many nodes.
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

#[cfg(test)]
mod tests {
    use nemo_ir::text::parse_block;

    use super::*;
    use crate::saturate::law::Law;

    /// A block in which `add` takes what the laws below match.
    const BLOCK: &str = "block b(%x: bf16[T,4]) {
        weight @w: bf16[4,4]
        %0 = linear(%x, @w) {dtype: bf16} : bf16[T,4]
        %1 = add(%x, %0) {dtype: f32} : f32[T,4]
        return x = %1
    }";

    /// How many nodes were merged into a class that had one, and how often the law fired.
    fn after(left: &'static str, right: &'static str) -> (usize, usize) {
        let terms = Terms::of(&parse_block(BLOCK).expect("it parses"));
        let law = Law { name: "planted", class: Class::Exact, left, right, when: &[] };
        let laws = Box::leak(Box::new([Parsed::of(law).expect("it reads")]));
        let saturated = saturate_by(laws, &terms, Phase::Decode, Class::Exact);
        assert!(!saturated.limited);
        let merged = saturated.graph.total_number_of_nodes() - saturated.graph.number_of_classes();
        (merged, saturated.graph.analysis.firings.len())
    }

    #[test]
    fn a_law_that_holds_fires_once() {
        assert_eq!(after("(add ?a (linear ?x ?w ?p) ?d)", "(linear_add ?x ?w ?a ?p ?d)"), (1, 1));
    }

    #[test]
    fn terms_of_different_types_are_never_made_equal() {
        // The dtypes of product and sum are swapped: the op table admits the right side, as another type.
        let (merged, _) = after("(add ?a (linear ?x ?w ?p) ?d)", "(linear_add ?x ?w ?a ?d ?p)");
        assert_eq!(merged, 0);
        // A value is no weight, whatever their shapes.
        assert_eq!(after("(linear ?x ?w ?p)", "(add ?w ?w ?p)"), (0, 0));
        // Nor is an attribute a value.
        assert_eq!(after("(add ?a ?b ?d)", "?d").0, 0);
    }

    #[test]
    fn what_the_op_table_does_not_admit_is_not_added() {
        assert_eq!(after("(add ?a ?b ?d)", "(linear ?a ?b ?d)"), (0, 0));
    }

    #[test]
    fn only_the_allowed_classes_of_laws_are_applied() {
        let terms = Terms::of(&parse_block(BLOCK).expect("it parses"));
        let nodes = |most| saturate(&terms, Phase::Decode, most).graph.total_number_of_nodes();
        assert!(nodes(Class::Exact) < nodes(Class::Rounding));
        assert_eq!(nodes(Class::Rounding), nodes(Class::Reassociating));
    }
}
