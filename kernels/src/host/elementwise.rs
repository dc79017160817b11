//! Kernels that compute each element from the elements at its place.

use super::emit::{Emit, Lanes};

impl<'c> Emit<'c, '_> {
    /// Writes `f` of the named operands at every place of the result; threads share the columns.
    pub fn map(&self, operands: &[&str], f: impl Fn(&[Lanes<'c>]) -> Lanes<'c>) {
        let sources: Vec<_> = operands.iter().map(|name| self.operand(name)).collect();
        let target = self.result();
        let rows = self.dim(target.1.ty.shape[0]);
        let width = target.1.ty.width().unwrap_or(0);
        self.share_columns(width, |column, lanes| {
            self.each(self.int(0), rows, |row| {
                let values: Vec<_> = sources
                    .iter()
                    .map(|source| {
                        let dtype = source.1.ty.dtype;
                        self.load(self.at(self.row(*source, row), dtype, column), dtype, lanes)
                    })
                    .collect();
                let dtype = target.1.ty.dtype;
                self.store(self.at(self.row(target, row), dtype, column), dtype, lanes, f(&values));
            });
        });
    }
}
