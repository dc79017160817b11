//! Walks over columns, a register at a time.

use super::emit::Emit;
use crate::emit::{Any, Int};

impl<'c> Emit<'c, '_> {
    /// Covers `0 .. width` by whole registers and at most one shorter piece: `body` gets the first
    /// column and the number of lanes in use.
    pub fn columns(&self, width: u64, body: impl Fn(Int<'c>, u32)) {
        self.fold_columns(width, &[], |column, lanes, _| {
            body(column, lanes);
            Vec::new()
        });
    }

    /// As [`Emit::columns`], carrying values along.
    pub fn fold_columns(
        &self,
        width: u64,
        initial: &[Any<'c>],
        body: impl Fn(Int<'c>, u32, &[Any<'c>]) -> Vec<Any<'c>>,
    ) -> Vec<Any<'c>> {
        let lanes = u64::from(self.width());
        let whole = width / lanes * lanes;
        let mut carried = initial.to_vec();
        if whole > 0 {
            let range = (self.int(0), self.int(whole), lanes);
            carried = self.fold(range, &carried, |column, values| body(column, self.width(), values));
        }
        if whole < width {
            carried = body(self.int(whole), (width - whole) as u32, &carried);
        }
        carried
    }
}
