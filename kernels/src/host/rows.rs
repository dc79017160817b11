//! Rows that a generator reads or writes without knowing whether they are a tensor's, some columns of it,
//! or the part of a matrix that lies on the stack.

use nemo_ir::types::Dtype;

use super::emit::Emit;
use crate::emit::{Float, Int, Lanes, Ptr};
use crate::spec::Layout;

/// Rows of elements in a tensor or in scratch, part of a larger matrix whose rows and columns are counted.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'c> {
    pub base: Ptr<'c>,
    pub dtype: Dtype,
    /// Elements from row to row; 0 where one row at a time is there.
    pub stride: u64,
    /// The row at `base`.
    pub row: Int<'c>,
    /// The column at `base`.
    pub column: Int<'c>,
}

impl<'c> Rows<'c> {
    /// All of a tensor.
    pub fn of(e: &Emit<'c, '_>, (base, layout): (Ptr<'c>, &Layout)) -> Self {
        Self { base, dtype: layout.dtype(), stride: layout.row_stride, row: e.int(0), column: e.int(0) }
    }

    /// With another element at the start.
    pub fn from(self, row: Int<'c>, column: Int<'c>) -> Self {
        Self { row, column, ..self }
    }

    /// The columns from `offset` on, counted from 0.
    pub fn columns(self, e: &Emit<'c, '_>, offset: u64) -> Self {
        Self { base: e.at(self.base, self.dtype, e.int(offset)), ..self }
    }

    /// The address of an element.
    pub fn at(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        let line = e.times(e.sub(row, self.row), self.stride);
        e.at(self.base, self.dtype, e.add(line, e.sub(column, self.column)))
    }

    /// Elements from a column on, widened.
    pub fn load(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>, lanes: u32) -> Lanes<'c> {
        e.load(self.at(e, row, column), self.dtype, lanes)
    }

    /// One element, widened.
    pub fn scalar(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>) -> Float<'c> {
        e.load_scalar(self.at(e, row, column), self.dtype)
    }

    /// Stores elements from a column on.
    pub fn store(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>, lanes: u32, value: Lanes<'c>) {
        e.store(self.at(e, row, column), self.dtype, lanes, value);
    }
}

impl<'c> Emit<'c, '_> {
    /// As [`Emit::scratch`], for elements of `dtype`, each row of `width` filled up to whole registers.
    pub fn scratch_rows(&self, dtype: Dtype, rows: u64, width: u64) -> Rows<'c> {
        let stride = width.next_multiple_of(u64::from(self.width()));
        let bytes = rows.saturating_mul(stride).saturating_mul(dtype.bytes());
        Rows { base: self.scratch(bytes.div_ceil(4)), dtype, stride, row: self.int(0), column: self.int(0) }
    }
}
