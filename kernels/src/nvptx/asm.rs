//! Instructions that LLVM has no intrinsic for, or emits without their ordering.

use inkwell::InlineAsmDialect;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::types::{BasicMetadataTypeEnum, BasicType};
use inkwell::values::{BasicMetadataValueEnum, CallSiteValue};

use super::emit::Emit;
use crate::emit::{Any, Int, Ptr, built};

impl<'c> Emit<'c, '_> {
    /// Orders this thread's accesses to memory, for all threads of the device, as acquire and release do.
    pub fn fence(&self) {
        self.asm_effect("fence.acq_rel.gpu;", "~{memory}", &[]);
    }

    /// Adds 1 to a counter (u32) in global memory, or makes it 0 where it is `most`; gives what it was.
    pub fn atomic_wrap(&self, counter: Ptr<'c>, most: Int<'c>) -> Int<'c> {
        let i32 = self.context.i32_type();
        let text = "atom.global.inc.u32 $0, [$1], $2;";
        let call = self.asm(text, "=r,l,r,~{memory}", Some(i32), &[counter.into(), most.into()]);
        call.try_as_basic_value().basic().expect("it gives a value").into_int_value()
    }

    /// Adds to a u32 in shared memory; gives what it was.
    pub fn shared_add(&self, place: Ptr<'c>, value: Int<'c>) -> Int<'c> {
        let text = "atom.shared.add.u32 $0, [$1], $2;";
        let i32 = self.context.i32_type();
        let call = self.asm(text, "=r,l,r,~{memory}", Some(i32), &[place.into(), value.into()]);
        call.try_as_basic_value().basic().expect("it gives a value").into_int_value()
    }

    /// Inline assembly without a result.
    pub fn asm_effect(&self, text: &str, constraints: &str, operands: &[Any<'c>]) {
        self.asm(text, constraints, None::<inkwell::types::IntType<'c>>, operands);
    }

    /// Inline assembly; always taken to have an effect.
    pub fn asm(
        &self,
        text: &str,
        constraints: &str,
        result: Option<impl BasicType<'c>>,
        operands: &[Any<'c>],
    ) -> CallSiteValue<'c> {
        let types: Vec<BasicMetadataTypeEnum<'c>> =
            operands.iter().map(|value| value.get_type().into()).collect();
        let ty = match result {
            Some(result) => result.fn_type(&types, false),
            None => self.context.void_type().fn_type(&types, false),
        };
        let (text, constraints) = (text.to_owned(), constraints.to_owned());
        let dialect = Some(InlineAsmDialect::ATT);
        let function = self.context.create_inline_asm(ty, text, constraints, true, false, dialect, false);
        let operands: Vec<BasicMetadataValueEnum<'c>> =
            operands.iter().map(|value| (*value).into()).collect();
        let call = built(self.builder.build_indirect_call(ty, function, &operands, ""));
        // Some of it is for all threads of a warp together: it may not be moved into or out of a branch.
        let convergent = Attribute::get_named_enum_kind_id("convergent");
        call.add_attribute(AttributeLoc::Function, self.context.create_enum_attribute(convergent, 0));
        call
    }
}
