//! The op under generation as a chain of simple ops: a fused op by its recipe, any other as itself alone.
//!
//! So a generator is written once, for the simple ops and for what their chains may leave out: the way
//! through memory.

use nemo_ir::ops::{Attr, Op, OperandKind, Recipe, Source};
use nemo_ir::types::Dtype;

use crate::spec::KernelSpec;

/// The steps, in order.
pub(crate) struct Chain {
    pub links: Vec<Link>,
    /// Where each result of the op comes from.
    pub results: Vec<Source>,
}

/// One step.
pub(crate) struct Link {
    pub op: Op,
    operands: Vec<Option<Source>>,
    attrs: Vec<Attr>,
}

impl Chain {
    pub fn of(spec: &KernelSpec) -> Self {
        let present = |source: Option<Source>| match source {
            Some(Source::Operand(index)) => spec.present(index).map(|_| Source::Operand(index)),
            other => other,
        };
        let link = |op: Op, operands: Vec<Option<Source>>, attrs| Link {
            op,
            operands: operands.into_iter().map(present).collect(),
            attrs,
        };
        if let Some(recipe) = Recipe::of(spec.op) {
            let links = recipe.steps.iter().map(|s| link(s.op, s.operands.clone(), s.attrs(&spec.attrs)));
            return Self { links: links.collect(), results: recipe.results.clone() };
        }
        let operands = (0..spec.op.operands.len()).map(|index| Some(Source::Operand(index))).collect();
        let results = (0..spec.op.results.len()).map(|result| Source::Step { step: 0, result }).collect();
        Self { links: vec![link(spec.op, operands, spec.attrs.clone())], results }
    }

    /// The first step of one of those ops.
    pub fn find(&self, ops: &[&str]) -> Option<&Link> {
        self.links.iter().find(|link| ops.contains(&link.op.name))
    }

    /// The step that gives a value; `None` for operands.
    pub fn giver(&self, source: Source) -> Option<&Link> {
        match source {
            Source::Step { step, .. } => Some(&self.links[step]),
            Source::Operand(_) => None,
        }
    }

    /// Which result of the op is that result of that step.
    pub fn result(&self, link: &Link, result: usize) -> Option<usize> {
        self.results.iter().position(|source| match *source {
            Source::Step { step, result: which } => {
                std::ptr::eq(&raw const self.links[step], link) && which == result
            }
            Source::Operand(_) => false,
        })
    }
}

impl Link {
    /// Where the operand of that name comes from; `None` for an optional weight that is absent.
    pub fn source(&self, name: &str) -> Option<Source> {
        let index = self.op.operands.iter().position(|operand| operand.name == name);
        self.operands[index.expect("the table declares the operand")]
    }

    /// Where the values come from that it computes with, in order.
    pub fn values(&self) -> impl Iterator<Item = Source> {
        let operands = self.op.operands.iter().zip(&self.operands);
        operands.filter(|(operand, _)| operand.kind == OperandKind::Value).filter_map(|(_, source)| *source)
    }

    fn attr(&self, name: &str) -> Attr {
        let index = self.op.attrs.iter().position(|spec| spec.name == name);
        self.attrs[index.expect("the table declares the attribute")]
    }

    pub fn int(&self, name: &str) -> u64 {
        match self.attr(name) {
            Attr::Int(n) => n,
            other => unreachable!("`{name}` of `{}` is {other}", self.op.name),
        }
    }

    pub fn float(&self, name: &str) -> f64 {
        match self.attr(name) {
            Attr::Float(x) => x,
            other => unreachable!("`{name}` of `{}` is {other}", self.op.name),
        }
    }

    /// What its result is rounded to.
    pub fn dtype(&self) -> Dtype {
        match self.attr("dtype") {
            Attr::Dtype(dtype) => dtype,
            other => unreachable!("`dtype` of `{}` is {other}", self.op.name),
        }
    }
}
