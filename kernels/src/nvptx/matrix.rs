//! Matrix instructions of every target from sm_80 on, and the copies into shared memory that feed them.

use inkwell::values::StructValue;

use super::emit::Emit;
use crate::emit::{Float, Int, Ptr, built};

impl<'c> Emit<'c, '_> {
    /// `d = a b + c` of a warp, 16 x 8 x 16 in bf16 with f32 sums.
    ///
    /// With g = lane / 4 and t = lane % 4, `a` holds rows g, g + 8, g, g + 8 at columns 2t, 2t, 2t + 8, 2t + 8, two
    /// elements each; `b` holds column g at rows 2t and 2t + 8, two each; `c` rows g, g, g + 8, g + 8 at columns 2t,
    /// 2t + 1, 2t, 2t + 1.
    pub fn mma(&self, a: [Int<'c>; 4], b: [Int<'c>; 2], c: [Float<'c>; 4]) -> [Float<'c>; 4] {
        let operands: Vec<_> =
            a.iter().chain(&b).map(|word| (*word).into()).chain(c.iter().map(|sum| (*sum).into())).collect();
        let sums: StructValue<'c> = self.intrinsic("llvm.nvvm.mma.m16n8k16.row.col.bf16", &[], &operands);
        std::array::from_fn(|index| self.field(sums, index as u32).into_float_value())
    }

    /// Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 i + r gives the address of row r of matrix i, and
    /// of each matrix a lane gets the elements 2t and 2t + 1 of row g (transposed: of column g).
    pub fn ldmatrix(&self, row: Ptr<'c>, transposed: bool) -> [Int<'c>; 4] {
        let name = if transposed {
            "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16"
        } else {
            "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16"
        };
        let words: StructValue<'c> = self.intrinsic(name, &[row.get_type().into()], &[row.into()]);
        std::array::from_fn(|index| self.field(words, index as u32).into_int_value())
    }

    /// Copies 16 bytes from global to shared memory, both at multiples of 16, past the registers: `there` of them (an i32,
    /// 0 to 16), and zeros for the rest.
    pub fn copy_async(&self, shared: Ptr<'c>, global: Ptr<'c>, there: Int<'c>) {
        let operands = [shared.into(), global.into(), there.into()];
        self.effect("llvm.nvvm.cp.async.cg.shared.global.16.s", &[], &operands);
    }

    /// Closes the group of this thread's copies since the last group.
    pub fn copies_commit(&self) {
        self.effect("llvm.nvvm.cp.async.commit.group", &[], &[]);
    }

    /// Waits until at most `pending` of this thread's groups are under way. What other threads copied is there after a
    /// barrier.
    pub fn copies_wait(&self, pending: u32) {
        self.effect("llvm.nvvm.cp.async.wait.group", &[], &[self.word(pending).into()]);
    }

    /// A field of a structure.
    pub(super) fn field(&self, value: StructValue<'c>, index: u32) -> crate::emit::Any<'c> {
        built(self.builder.build_extract_value(value, index, ""))
    }
}
