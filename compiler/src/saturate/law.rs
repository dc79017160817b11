//! What a law is: two sides that are equal, how equal, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use egg::{ENodeOrVar, Id, PatternAst, Var};
use nemo_ir::graph::Node;
use nemo_ir::ops::Attr;
use nemo_ir::plan::Phase;
use serde::{Deserialize, Serialize};

use super::analysis::{Data, Kind};
use super::term::{Head, Term};

/// How equal the two sides of a law are; each class allows what those before it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The same bits.
    Exact,
    /// An intermediate is no longer rounded to its 16-bit dtype.
    Rounding,
    /// Sums are taken in another order.
    Reassociating,
    /// The result is another function, close enough for a purpose.
    Approximating,
}

impl Class {
    /// Its name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Rounding => "rounding",
            Self::Reassociating => "reassociating",
            Self::Approximating => "approximating",
        }
    }
}

/// A side condition of a law, on what its variables are bound to.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// The first attribute is the sum of the others.
    Sum(&'static str, &'static [&'static str]),
    /// The first attribute is the product of the others.
    Product(&'static str, &'static [&'static str]),
    /// The block defines these weights in this order; so each set of weights is taken once.
    InOrder(&'static [&'static str]),
    /// The program has one token a sequence.
    OneTokenASequence,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum(whole, parts) => write!(f, "{whole} is {}", parts.join(" + ")),
            Self::Product(whole, parts) => write!(f, "{whole} is {}", parts.join(" * ")),
            Self::InOrder(weights) => write!(f, "the block defines {} in this order", weights.join(", ")),
            Self::OneTokenASequence => f.write_str("every sequence has one token"),
        }
    }
}

/// One line of a table of laws.
#[derive(Debug, Clone, Copy)]
pub struct Law {
    /// Unique name.
    pub name: &'static str,
    /// How equal the sides are.
    pub class: Class,
    /// What is looked for: a pattern, or several as `?variable = pattern` with commas between them.
    pub left: &'static str,
    /// What it is equal to, in the same form. Variables of the left side that stand before a `=` here are
    /// made equal to what stands behind it; others are named by it.
    pub right: &'static str,
    /// What else must hold.
    pub when: &'static [When],
}

/// The patterns of one side.
pub type Equations = Vec<(Var, PatternAst<Term>)>;

/// The variable that a side without `=` is about.
pub const ROOT: &str = "?root";

/// Reads one side of a law.
///
/// # Errors
/// What is wrong with it.
pub fn equations(text: &str) -> Result<Equations, String> {
    let parse = |pattern: &str| {
        PatternAst::<Term>::from_str(pattern.trim()).map_err(|error| format!("`{pattern}`: {error}"))
    };
    let var = |name: &str| Var::from_str(name.trim()).map_err(|error| format!("`{name}`: {error:?}"));
    if !text.contains('=') {
        return Ok(vec![(var(ROOT)?, parse(text)?)]);
    }
    text.split(',')
        .map(|equation| {
            let (name, pattern) = equation
                .split_once('=')
                .ok_or_else(|| format!("`{equation}` is no `?variable = pattern`"))?;
            Ok((var(name)?, parse(pattern)?))
        })
        .collect()
}

/// How many ops a side has; projections, attributes and variables are none.
pub fn ops(equations: &Equations) -> usize {
    let nodes = equations.iter().flat_map(|(_, pattern)| pattern.iter());
    nodes.filter(|node| matches!(node, ENodeOrVar::ENode(Term { head: Head::Op(_), .. }))).count()
}

/// What a law was matched against.
pub struct Binding<'a> {
    /// What each variable stands for.
    pub vars: &'a dyn Fn(Var) -> Option<Id>,
    /// What is known of it.
    pub data: &'a dyn Fn(Id) -> Data,
    /// The block's leaves.
    pub leaves: &'a [Node],
    /// The program's phase.
    pub phase: Phase,
}

impl When {
    /// Whether the condition holds.
    pub fn holds(&self, binding: &Binding<'_>) -> bool {
        let data = |name: &str| {
            let var = Var::from_str(name).ok()?;
            Some((binding.data)((binding.vars)(var)?))
        };
        let int = |name: &str| match data(name)?.attr()? {
            Attr::Int(n) => Some(n),
            Attr::Float(_) | Attr::Dtype(_) => None,
        };
        match self {
            Self::Sum(whole, parts) => {
                let sum = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(int(part)?));
                sum.is_some() && sum == int(whole)
            }
            Self::Product(whole, parts) => {
                let product = parts.iter().try_fold(1_u64, |product, part| product.checked_mul(int(part)?));
                product.is_some() && product == int(whole)
            }
            Self::InOrder(weights) => {
                let leaf = |name: &&str| match data(name)?.value()?.kind {
                    Kind::Weight(leaf) => Some(leaf),
                    _ => None,
                };
                let leaves: Option<Vec<usize>> = weights.iter().map(leaf).collect();
                leaves.is_some_and(|leaves| leaves.is_sorted_by(|a, b| a < b))
            }
            Self::OneTokenASequence => binding.phase == Phase::Decode,
        }
    }
}

/// A law with its sides read.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The line of the table.
    pub law: Law,
    /// Its left side.
    pub left: Equations,
    /// Its right side.
    pub right: Equations,
}

impl Parsed {
    /// Reads both sides.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(law: Law) -> Result<Self, String> {
        let side = |text: &str| equations(text).map_err(|what| format!("law `{}`: {what}", law.name));
        let (left, right) = (side(law.left)?, side(law.right)?);
        let mut known: Vec<Var> = Vec::new();
        for (var, pattern) in &left {
            known.push(*var);
            known.extend(variables(pattern));
        }
        for (var, pattern) in &right {
            if let Some(unknown) = variables(pattern).into_iter().find(|used| !known.contains(used)) {
                return Err(format!("law `{}`: nothing binds {unknown}", law.name));
            }
            known.push(*var);
        }
        Ok(Self { law, left, right })
    }
}

fn variables(pattern: &PatternAst<Term>) -> Vec<Var> {
    let nodes = pattern.iter();
    nodes
        .filter_map(|node| match node {
            ENodeOrVar::Var(var) => Some(*var),
            ENodeOrVar::ENode(_) => None,
        })
        .collect()
}

/// Puts what the variables stand for into a pattern; `add` makes each term, or refuses it.
pub fn instantiate(
    pattern: &PatternAst<Term>,
    vars: &BTreeMap<Var, Id>,
    mut add: impl FnMut(Term) -> Option<Id>,
) -> Option<Id> {
    let mut ids: Vec<Id> = Vec::with_capacity(pattern.len());
    for node in pattern.iter() {
        let id = match node {
            ENodeOrVar::Var(var) => *vars.get(var)?,
            ENodeOrVar::ENode(term) => {
                let children = term.children.iter().map(|child| ids[usize::from(*child)]).collect();
                add(Term { head: term.head, children })?
            }
        };
        ids.push(id);
    }
    ids.last().copied()
}
