//! Where the steps of a chain find what they take, and where results go.

use nemo_ir::ops::Source;

use super::emit::Emit;
use crate::chain::{Chain, Link};
use crate::emit::Ptr;
use crate::spec::Layout;

impl<'c, 'm> Emit<'c, 'm> {
    /// The op as a chain.
    pub fn chain(&self) -> Chain {
        Chain::of(self.spec())
    }

    /// The tensor that a step takes from outside; `None` where another step gives it, or where it is an
    /// optional weight and absent.
    pub fn given(&self, source: Option<Source>) -> Option<(Ptr<'c>, &'m Layout)> {
        match source? {
            Source::Operand(index) => {
                let place = self.spec().present(index)?;
                Some((self.arg(place), &self.spec().operands[place]))
            }
            Source::Step { .. } => None,
        }
    }

    /// As [`Emit::given`], with a reason where it is not.
    pub fn taken(&self, link: &Link, name: &str) -> Result<(Ptr<'c>, &'m Layout), String> {
        let what =
            || format!("`{name}` of `{}` inside `{}` is no operand", link.op.name, self.spec().op.name);
        self.given(link.source(name)).ok_or_else(what)
    }

    /// The result of that index in the table, which is no state.
    pub fn result_at(&self, index: usize) -> (Ptr<'c>, &'m Layout) {
        let spec = self.spec();
        let place = (0..index).filter(|index| spec.op.superseded(*index).is_none()).count();
        (self.arg(spec.operands.len() + place), &spec.results[place])
    }
}
