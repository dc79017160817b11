//! Fused ops: what each is made of.
//!
//! A fused op is declared by its recipe, a few lines in the names of its own operands and attributes:
//!
//! ```text
//! n = rms_norm(x, norm) {eps, group, normed}
//! p = linear(n, weight) {product}
//! y = relu2(p) {dtype}
//! ```
//!
//! Result types and reference semantics follow from it: the steps are inferred and executed one after the
//! other, and each intermediate is rounded to the dtype that its step declares. Step inputs are not written;
//! an optional weight that is absent is absent in the step that takes it, too.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::{Attr, AttrKind, Op, OpArgs, OperandKind, TypeError};
use crate::interp::{EvalArgs, EvalError, Numerics, Tensor};
use crate::types::Type;

/// The steps of a fused op.
#[derive(Debug, PartialEq)]
pub struct Recipe {
    /// In the order of execution.
    pub steps: Vec<Step>,
    /// Where each result comes from.
    pub results: Vec<Source>,
}

/// One op of a recipe.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// What is computed.
    pub op: Op,
    /// For each operand in the step's entry, where it comes from; `None` for the optional weights that the
    /// fused op does not have.
    pub operands: Vec<Option<Source>>,
    /// For each attribute in the step's entry, its value.
    pub attrs: Vec<AttrSource>,
}

/// Where a value of a recipe comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An operand of the fused op, by its index in the table.
    Operand(usize),
    /// A result of an earlier step.
    Step {
        /// Index of the step.
        step: usize,
        /// Which of its results.
        result: usize,
    },
}

/// Where an attribute of a step comes from: a sum of attributes of the fused op (one of them, but for
/// offsets), or a constant where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct AttrSource {
    /// Indices of the fused op's attributes.
    terms: Vec<usize>,
    /// Added to them.
    constant: Option<Attr>,
}

impl AttrSource {
    /// The value, given those of the fused op's attributes.
    pub fn value(&self, attrs: &[Attr]) -> Attr {
        match (&self.terms[..], self.constant) {
            ([one], None) => attrs[*one],
            ([], Some(constant)) => constant,
            (terms, constant) => {
                let sum = terms.iter().map(|index| attrs[*index]).chain(constant);
                Attr::Int(sum.fold(0, |sum, term| match term {
                    Attr::Int(n) => n.saturating_add(sum),
                    other => unreachable!("only integers are added: {other}"),
                }))
            }
        }
    }
}

impl Recipe {
    /// The recipe of an op; `None` for an op that is not fused.
    ///
    /// # Panics
    /// When the op's entry is wrong, which a test of this module rules out.
    pub fn of(op: Op) -> Option<&'static Self> {
        static RECIPES: OnceLock<HashMap<&'static str, Recipe>> = OnceLock::new();
        let recipes = RECIPES.get_or_init(|| {
            let fused = super::table().filter(|op| !op.recipe.is_empty());
            let parsed = |op: Op| parse(op).unwrap_or_else(|what| panic!("recipe of `{}`: {what}", op.name));
            fused.map(|op| (op.name, parsed(op))).collect()
        });
        if op.recipe.is_empty() { None } else { recipes.get(op.name) }
    }

    /// The first step of that name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.op.name == name)
    }
}

impl Step {
    /// The values of its attributes, given those of the fused op.
    pub fn attrs(&self, attrs: &[Attr]) -> Vec<Attr> {
        self.attrs.iter().map(|source| source.value(attrs)).collect()
    }

    /// Where the operand of that name comes from.
    ///
    /// # Panics
    /// When the step's op declares no such operand.
    pub fn operand(&self, name: &str) -> Option<Source> {
        let index = self.op.operands.iter().position(|operand| operand.name == name);
        self.operands[index.expect("the table declares the operand")]
    }
}

/// The result types of a fused op.
pub(super) fn infer(args: &OpArgs<'_>) -> Result<Vec<Type>, TypeError> {
    let recipe = Recipe::of(args.op()).expect("only fused ops are inferred from a recipe");
    let types = step_types(recipe, |operand| args.by_index(operand), args.attrs())?;
    Ok(recipe.results.iter().map(|source| of_source(source, &types, |n| args.by_index(n)).clone()).collect())
}

/// The result types of every step.
fn step_types<'a>(
    recipe: &Recipe,
    operand: impl Fn(usize) -> Option<&'a Type>,
    attrs: &[Attr],
) -> Result<Vec<Vec<Type>>, TypeError> {
    let mut types: Vec<Vec<Type>> = Vec::with_capacity(recipe.steps.len());
    for step in &recipe.steps {
        let given: Vec<&Type> = step
            .operands
            .iter()
            .flatten()
            .filter_map(|source| match *source {
                Source::Operand(index) => operand(index),
                Source::Step { step, result } => Some(&types[step][result]),
            })
            .collect();
        let attrs = step.attrs(attrs);
        let inferred = (step.op.infer)(&OpArgs::new(step.op, &given, &attrs)?)?;
        types.push(inferred);
    }
    Ok(types)
}

fn of_source<'a, T>(source: &Source, steps: &'a [Vec<T>], operand: impl Fn(usize) -> Option<&'a T>) -> &'a T {
    match *source {
        Source::Operand(index) => operand(index).expect("a result is no absent weight"),
        Source::Step { step, result } => &steps[step][result],
    }
}

/// The reference semantics of a fused op.
pub(super) fn eval(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let recipe = Recipe::of(args.op()).expect("only fused ops are executed from a recipe");
    let types = step_types(recipe, |operand| args.ty_by_index(operand), args.attrs())
        .expect("the types were checked before");
    let mut values: Vec<Vec<Tensor>> = Vec::with_capacity(recipe.steps.len());
    for (index, step) in recipe.steps.iter().enumerate() {
        let operand = |source: &Option<Source>| match *source {
            Some(Source::Operand(index)) => args.by_index(index),
            Some(Source::Step { step, result }) => Some((&values[step][result], &types[step][result])),
            None => None,
        };
        let operands = step.operands.iter().map(operand).collect();
        let attrs = step.attrs(args.attrs());
        let results = (step.op.eval)(&EvalArgs::new(step.op, operands, &attrs, args.numerics()))?;
        let rounded = results.into_iter().zip(&types[index]).map(|(tensor, ty)| match args.numerics() {
            Numerics::F64 => tensor,
            Numerics::F32 => tensor.rounded(crate::types::Dtype::F32),
            Numerics::Declared => tensor.rounded(ty.dtype),
        });
        values.push(rounded.collect());
    }
    let operand = |index| args.by_index(index).map(|(tensor, _)| tensor);
    Ok(recipe.results.iter().map(|source| of_source(source, &values, operand).clone()).collect())
}

/// Reads the recipe of an op: one step a line, `results = op(operands) {attributes}`.
fn parse(op: Op) -> Result<Recipe, String> {
    let mut names: HashMap<&str, Source> =
        op.operands.iter().enumerate().map(|(n, operand)| (operand.name, Source::Operand(n))).collect();
    let mut steps = Vec::new();
    for line in op.recipe.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let malformed = || format!("`{line}` is not `results = op(operands) {{attributes}}`");
        let (results, rest) = line.split_once(" = ").ok_or_else(malformed)?;
        let (name, rest) = rest.split_once('(').ok_or_else(malformed)?;
        let (operands, attrs) = rest.split_once(')').ok_or_else(malformed)?;
        let attrs = attrs.trim().trim_start_matches('{').trim_end_matches('}');
        let step = super::op(name).ok_or_else(|| format!("there is no op `{name}`"))?;
        steps.push(Step {
            op: step,
            operands: operand_sources(op, step, &words(operands), &names)?,
            attrs: attr_sources(op, step, &words(attrs))?,
        });
        for (result, name) in words(results).into_iter().enumerate() {
            names.insert(name, Source::Step { step: steps.len() - 1, result });
        }
    }
    let results = op.results.iter().map(|(name, _)| {
        names.get(name).copied().ok_or_else(|| format!("nothing gives the result `{name}`"))
    });
    Ok(Recipe { results: results.collect::<Result<_, _>>()?, steps })
}

fn words(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn operand_sources(
    op: Op,
    step: Op,
    given: &[&str],
    names: &HashMap<&str, Source>,
) -> Result<Vec<Option<Source>>, String> {
    let written = |kind| !matches!(kind, OperandKind::Step(_));
    let count = step.operands.iter().filter(|operand| written(operand.kind)).count();
    let optional = step.operands.iter().filter(|o| o.kind == OperandKind::OptionalWeight).count();
    let absent = given.len() + optional == count && optional > 0;
    if given.len() != count && !absent {
        return Err(format!("`{}` takes {count} operands, found {given:?}", step.name));
    }
    let mut given = given.iter();
    let sources = step.operands.iter().map(|operand| match operand.kind {
        OperandKind::Step(input) => {
            let place = op.operands.iter().position(|own| own.kind == OperandKind::Step(input));
            let place = place.ok_or_else(|| format!("`{}` needs ${}", step.name, input.name()))?;
            Ok(Some(Source::Operand(place)))
        }
        OperandKind::OptionalWeight if absent => Ok(None),
        _ => {
            let name = given.next().ok_or_else(|| format!("`{}` lacks `{}`", step.name, operand.name))?;
            let source = names.get(name).copied().ok_or_else(|| format!("there is no `{name}`"))?;
            Ok(Some(source))
        }
    });
    sources.collect()
}

fn attr_sources(op: Op, step: Op, given: &[&str]) -> Result<Vec<AttrSource>, String> {
    if given.len() != step.attrs.len() {
        return Err(format!("`{}` takes {} attributes, found {given:?}", step.name, step.attrs.len()));
    }
    let source = |(text, spec): (&&str, &super::AttrSpec)| {
        let mut source = AttrSource { terms: Vec::new(), constant: None };
        for term in text.split('+').map(str::trim) {
            if let Ok(number) = term.parse::<u64>() {
                source.constant = Some(Attr::Int(number));
                continue;
            }
            let place = op.attrs.iter().position(|own| own.name == term);
            let place = place.ok_or_else(|| format!("there is no attribute `{term}`"))?;
            if op.attrs[place].kind != spec.kind {
                return Err(format!(
                    "`{term}` is no {:?}, as `{}` of `{}` is",
                    spec.kind, spec.name, step.name
                ));
            }
            source.terms.push(place);
        }
        if source.terms.len() > 1 && spec.kind != AttrKind::Int {
            return Err(format!("only integers are added, not `{text}`"));
        }
        Ok(source)
    };
    given.iter().zip(step.attrs).map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Effect, table};

    #[test]
    fn every_recipe_reads_and_uses_every_operand_and_attribute() {
        for op in table().filter(|op| !op.recipe.is_empty()) {
            let recipe = Recipe::of(op).expect("it is fused");
            let sources = || recipe.steps.iter().flat_map(|step| step.operands.iter().flatten());
            for (index, operand) in op.operands.iter().enumerate() {
                assert!(
                    sources().any(|source| *source == Source::Operand(index)),
                    "`{}` of `{}` is not used",
                    operand.name,
                    op.name
                );
            }
            for (index, attr) in op.attrs.iter().enumerate() {
                let mut attrs = recipe.steps.iter().flat_map(|step| &step.attrs);
                assert!(
                    attrs.any(|a| a.terms.contains(&index)),
                    "attribute `{}` of `{}` is not used",
                    attr.name,
                    op.name
                );
            }
        }
    }

    #[test]
    fn a_fused_op_has_the_effect_of_its_steps() {
        let rank = |effect| match effect {
            Effect::Pure => 0,
            Effect::ReadsState => 1,
            Effect::WritesState => 2,
        };
        for op in table().filter(|op| !op.recipe.is_empty()) {
            let steps = &Recipe::of(op).expect("it is fused").steps;
            let strongest = steps.iter().map(|step| rank(step.op.effect)).max();
            assert_eq!(strongest, Some(rank(op.effect)), "{}", op.name);
            assert!(steps.len() > 1, "{}", op.name);
            assert!(steps.iter().all(|step| step.op.recipe.is_empty()), "{} is made of fused ops", op.name);
        }
    }
}
