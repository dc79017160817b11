//! Address arithmetic in generated code.
#![allow(unsafe_code, reason = "inkwell marks pointer arithmetic unsafe; here it only builds an instruction")]

use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::values::{IntValue, PointerValue};

/// `pointer + bytes`.
pub(super) fn offset<'c>(
    context: &'c Context,
    builder: &Builder<'c>,
    pointer: PointerValue<'c>,
    bytes: IntValue<'c>,
) -> Result<PointerValue<'c>, BuilderError> {
    // SAFETY: a plain (not `inbounds`) getelementptr over i8 with one index is well formed for every
    // pointer and every integer; what the generated code loads through it is the generator's concern.
    unsafe { builder.build_gep(context.i8_type(), pointer, &[bytes], "") }
}
