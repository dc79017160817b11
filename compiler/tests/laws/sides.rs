//! Both sides of a law as blocks over the same leaves.

use std::collections::BTreeMap;

use egg::{Id, Var};
use nemo_ir::graph::{Block, Node, state_unit};
use nemo_ir::verify::verify_block;
use nemoc::saturate::analysis::{Data, Fact, Kind};
use nemoc::saturate::extract::facts;
use nemoc::saturate::law::{Binding, Equations, Parsed, instantiate};
use nemoc::saturate::term::{Head, Interned, Root, Term, Terms};

use crate::kit::Draw;

/// What is wrong with a law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The op table does not admit the right side, or its values have other types than the left side's.
    IllTyped(String),
    /// The right side is no legal block.
    Illegal(String),
    /// The sides give different numbers.
    Unequal(String),
    /// The sides give the same numbers but for rounding, and the law is marked as exact.
    Bits(String),
}

/// The two sides.
#[derive(Debug)]
pub struct Sides {
    pub left: Block,
    pub right: Block,
}

/// Builds both sides. Every variable that both define is an output of both, or the last value of its state.
///
/// # Errors
/// [`Fault::IllTyped`] and [`Fault::Illegal`] about the right side. What is wrong with the left side is a mistake of
/// the case, and a panic.
pub fn sides(parsed: &Parsed, draw: &Draw) -> Result<Sides, Fault> {
    let name = parsed.law.name;
    let mut terms = draw.terms.clone();
    let mut vars = draw.vars.clone();
    let left_ids = define(&parsed.left, &mut terms, &mut vars);
    let left_vars = vars.clone();
    let right_ids = define(&parsed.right, &mut terms, &mut vars);
    let all = Terms { name: "law".to_owned(), leaves: draw.leaves.clone(), expr: terms.expr, roots: vec![] };
    let data = facts(&all);
    holds(parsed, draw, &left_vars, &data);

    let mut roots = [Vec::new(), Vec::new()];
    let mut interned = Rest { known: all.expr };
    for (var, left) in &left_ids {
        let Some((_, right)) = right_ids.iter().find(|(other, _)| other == var) else { continue };
        let (of_left, of_right) = (&data[usize::from(*left)], &data[usize::from(*right)]);
        assert_ne!(*of_left, Data::Ill, "the case of `{name}` gives an ill-typed {var}");
        if of_left != of_right {
            return Err(Fault::IllTyped(format!(
                "{var} is {of_left:?} on the left and {of_right:?} on the right"
            )));
        }
        for (side, id) in roots.iter_mut().zip([*left, *right]) {
            side.extend(interned.roots(*var, id, of_left));
        }
    }
    assert!(!roots[0].is_empty(), "the sides of `{name}` have no variable in common");
    // What goes in comes out: so a block that only writes state has an output, too, and nothing is without use.
    for (place, leaf) in draw.leaves.iter().enumerate() {
        if let Node::Input { name, .. } = leaf {
            let id = interned.known.as_ref().iter().position(|term| term.head == Head::Leaf(place));
            let id = Id::from(id.expect("leaves are terms"));
            roots.iter_mut().for_each(|side| side.push((Root::Output(format!("given_{name}")), id)));
        }
    }
    let [left, right] = roots.map(|roots| Terms {
        name: "law".to_owned(),
        leaves: draw.leaves.clone(),
        expr: interned.known.clone(),
        roots,
    });
    let left = left.to_block().unwrap_or_else(|what| panic!("the case of `{name}`: {what}"));
    verify_block(&left).unwrap_or_else(|errors| panic!("the case of `{name}`: {errors:?}\n{left}"));
    let right = right.to_block().map_err(|what| Fault::IllTyped(what.to_string()))?;
    verify_block(&right).map_err(|errors| Fault::Illegal(format!("{errors:?}\n{right}")))?;
    Ok(Sides { left, right })
}

/// The terms of a side's variables, in order; later patterns see earlier variables.
fn define(side: &Equations, terms: &mut Interned, vars: &mut BTreeMap<Var, Id>) -> Vec<(Var, Id)> {
    let mut defined = Vec::with_capacity(side.len());
    for (var, pattern) in side {
        let id = instantiate(pattern, vars, |term| Some(terms.add(term)));
        let id = id.unwrap_or_else(|| panic!("the case leaves a variable of `{pattern}` out"));
        vars.insert(*var, id);
        defined.push((*var, id));
    }
    defined
}

/// The law applies to what was drawn.
fn holds(parsed: &Parsed, draw: &Draw, vars: &BTreeMap<Var, Id>, data: &[Data]) {
    let binding = Binding {
        vars: &|var| vars.get(&var).copied(),
        data: &|id| data[usize::from(id)].clone(),
        leaves: &draw.leaves,
        phase: draw.phase,
    };
    for when in parsed.law.when {
        assert!(when.holds(&binding), "the case of `{}` does not see to it that {when}", parsed.law.name);
    }
}

/// Terms to which projections are added.
struct Rest {
    known: egg::RecExpr<Term>,
}

impl Rest {
    /// What a block must give so that a variable can be compared: itself, or each of the tuple's values.
    fn roots(&mut self, var: Var, id: Id, data: &Data) -> Vec<(Root, Id)> {
        let name = var.to_string().trim_start_matches('?').to_owned();
        match data {
            Data::Value(fact) => vec![(root(name, fact), id)],
            Data::Tuple(facts) => {
                let taken = facts.iter().enumerate().map(|(result, fact)| {
                    let term = Term { head: Head::Get(result), children: vec![id] };
                    let place = self.known.as_ref().iter().position(|known| *known == term);
                    let id = place.map_or_else(|| self.known.add(term), Id::from);
                    (root(format!("{name}_{result}"), fact), id)
                });
                taken.collect()
            }
            other => panic!("{var} is {other:?}, which is no value"),
        }
    }
}

fn root(name: String, fact: &Fact) -> Root {
    match fact.kind {
        Kind::State(leaf) => {
            assert!(state_unit(&fact.ty).is_some());
            Root::State(leaf)
        }
        _ => Root::Output(name),
    }
}
