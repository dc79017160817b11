//! Where the steps of a chain find what they take, and where results go.

use nemo_ir::ops::Source;

use super::emit::Emit;
use crate::chain::{Chain, Link};
use crate::emit::Ptr;
use crate::spec::{KernelSpec, Layout};

impl<'c, 'm> Emit<'c, 'm> {
    /// The op as a chain.
    pub fn chain(&self) -> Chain {
        Chain::of(self.spec())
    }

    /// The tensor that a step takes from outside; `None` where another step gives it, or where it is an
    /// optional weight and absent.
    pub fn given(&self, source: Option<Source>) -> Option<(Ptr<'c>, &'m Layout)> {
        let place = self.spec().given(source)?;
        Some((self.arg(place), &self.spec().operands[place]))
    }

    /// As [`Emit::given`], with a reason where it is not.
    pub fn taken(&self, link: &Link, name: &str) -> Result<(Ptr<'c>, &'m Layout), String> {
        let what =
            || format!("`{name}` of `{}` inside `{}` is no operand", link.op.name, self.spec().op.name);
        self.given(link.source(name)).ok_or_else(what)
    }
}

impl KernelSpec {
    /// The place among the operands present of what a step takes from outside.
    pub(crate) fn given(&self, source: Option<Source>) -> Option<usize> {
        match source? {
            Source::Operand(index) => self.present(index),
            Source::Step { .. } => None,
        }
    }

    /// As [`KernelSpec::given`], the layout of a step's operand.
    pub(crate) fn layout_of(&self, link: &Link, name: &str) -> Result<&Layout, String> {
        let what = || format!("`{name}` of `{}` inside `{}` is no operand", link.op.name, self.op.name);
        self.given(link.source(name)).map(|place| &self.operands[place]).ok_or_else(what)
    }

    /// The place among [`KernelSpec::results`] of the table's result at `index`, which is no state.
    pub(crate) fn result_place(&self, index: usize) -> usize {
        (0..index).filter(|index| self.op.superseded(*index).is_none()).count()
    }
}
