//! What code for CPUs and for GPUs is written in alike: arithmetic, loops, branches, and access to memory.
//!
//! Integers are i64 or i32 and floats f32, alone or in vectors; the emitter of a kind of device stands on this
//! and adds what only that device has.

mod control;
mod pointer;

use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicType, BasicTypeEnum, VectorType};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, CallSiteValue, FloatMathValue, FloatValue,
    FunctionValue, IntValue, PointerValue, VectorValue,
};
use inkwell::{FloatPredicate, IntPredicate};

use nemo_ir::types::Dtype;

/// An i64, or an i32.
pub type Int<'c> = IntValue<'c>;
/// An f32.
pub type Float<'c> = FloatValue<'c>;
/// A vector of f32.
pub type Lanes<'c> = VectorValue<'c>;
/// A pointer.
pub type Ptr<'c> = PointerValue<'c>;
/// Any of them.
pub type Any<'c> = BasicValueEnum<'c>;

/// Unwraps what the builder returns.
///
/// # Panics
/// The builder fails only on values of the wrong type or without a position: a mistake in a generator,
/// which its first compilation shows.
pub fn built<T>(result: Result<T, BuilderError>) -> T {
    result.expect("generators place the builder and match types")
}

/// The body of one kernel while it is written.
pub struct Body<'c, 'm> {
    pub context: &'c Context,
    pub builder: Builder<'c>,
    pub module: &'m Module<'c>,
    pub function: FunctionValue<'c>,
}

impl<'c> Body<'c, '_> {
    // Integers.

    /// An i64 constant.
    pub fn int(&self, value: u64) -> Int<'c> {
        self.context.i64_type().const_int(value, false)
    }

    /// An i32 constant.
    pub fn word(&self, value: u32) -> Int<'c> {
        self.context.i32_type().const_int(u64::from(value), false)
    }

    /// `a + b`
    pub fn add(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_add(a, b, ""))
    }

    /// `a - b`
    pub fn sub(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_sub(a, b, ""))
    }

    /// `a * b`
    pub fn mul(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_mul(a, b, ""))
    }

    /// `a / b`, unsigned.
    pub fn div(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_unsigned_div(a, b, ""))
    }

    /// `a % b`, unsigned.
    pub fn rem(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_unsigned_rem(a, b, ""))
    }

    /// `a + n`
    pub fn plus(&self, a: Int<'c>, n: u64) -> Int<'c> {
        self.add(a, a.get_type().const_int(n, false))
    }

    /// `a * n`
    pub fn times(&self, a: Int<'c>, n: u64) -> Int<'c> {
        self.mul(a, a.get_type().const_int(n, false))
    }

    /// Signed comparison.
    pub fn cmp(&self, predicate: IntPredicate, a: Int<'c>, b: Int<'c>) -> IntValue<'c> {
        built(self.builder.build_int_compare(predicate, a, b, ""))
    }

    /// -1
    pub fn minus_one(&self) -> Int<'c> {
        self.int(u64::MAX)
    }

    /// `a & b`, of any width.
    pub fn and(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.builder.build_and(a, b, ""))
    }

    /// `a | b`, of any width.
    pub fn or(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        built(self.builder.build_or(a, b, ""))
    }

    /// `a ^ b`
    pub fn xor(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        built(self.builder.build_xor(a, b, ""))
    }

    /// `a << bits`
    pub fn shift_left(&self, a: Int<'c>, bits: Int<'c>) -> Int<'c> {
        built(self.builder.build_left_shift(a, bits, ""))
    }

    /// `a >> bits`, filling with zeros.
    pub fn shift_right(&self, a: Int<'c>, bits: u64) -> Int<'c> {
        built(self.builder.build_right_shift(a, a.get_type().const_int(bits, false), false, ""))
    }

    /// The smaller, signed.
    pub fn min(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        self.select(self.cmp(IntPredicate::SLT, a, b), a, b)
    }

    /// The larger, signed.
    pub fn max(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        self.select(self.cmp(IntPredicate::SGT, a, b), a, b)
    }

    /// `condition ? a : b`; conditions may be vectors of i1.
    pub fn select<V: BasicValue<'c> + TryFrom<Any<'c>>>(
        &self,
        condition: impl inkwell::values::IntMathValue<'c>,
        a: V,
        b: V,
    ) -> V {
        let value = built(self.builder.build_select(condition, a, b, ""));
        V::try_from(value).unwrap_or_else(|_| unreachable!("a select has the type of its arms"))
    }

    // Floats, scalar or vector.

    /// An f32 constant.
    pub fn float(&self, value: f64) -> Float<'c> {
        self.context.f32_type().const_float(value)
    }

    /// `a + b`
    pub fn fadd<T: FloatMathValue<'c>>(&self, a: T, b: T) -> T {
        built(self.builder.build_float_add(a, b, ""))
    }

    /// `a - b`
    pub fn fsub<T: FloatMathValue<'c>>(&self, a: T, b: T) -> T {
        built(self.builder.build_float_sub(a, b, ""))
    }

    /// `a * b`
    pub fn fmul<T: FloatMathValue<'c>>(&self, a: T, b: T) -> T {
        built(self.builder.build_float_mul(a, b, ""))
    }

    /// `a / b`
    pub fn fdiv<T: FloatMathValue<'c>>(&self, a: T, b: T) -> T {
        built(self.builder.build_float_div(a, b, ""))
    }

    /// `-a`
    pub fn fneg<T: FloatMathValue<'c>>(&self, a: T) -> T {
        built(self.builder.build_float_neg(a, ""))
    }

    /// `a * b + c`, rounded once.
    pub fn fma<T: BasicValue<'c> + Copy + TryFrom<Any<'c>>>(&self, a: T, b: T, c: T) -> T {
        self.call("llvm.fma", &[a.as_basic_value_enum(), b.as_basic_value_enum(), c.as_basic_value_enum()])
    }

    /// The larger; the other one where one is NaN.
    pub fn fmax<T: BasicValue<'c> + Copy + TryFrom<Any<'c>>>(&self, a: T, b: T) -> T {
        self.call("llvm.maxnum", &[a.as_basic_value_enum(), b.as_basic_value_enum()])
    }

    /// The smaller; the other one where one is NaN.
    pub fn fmin<T: BasicValue<'c> + Copy + TryFrom<Any<'c>>>(&self, a: T, b: T) -> T {
        self.call("llvm.minnum", &[a.as_basic_value_enum(), b.as_basic_value_enum()])
    }

    /// Square root, correctly rounded.
    pub fn sqrt<T: BasicValue<'c> + Copy + TryFrom<Any<'c>>>(&self, a: T) -> T {
        self.call("llvm.sqrt", &[a.as_basic_value_enum()])
    }

    /// Ordered comparison, scalar.
    pub fn fcmp(&self, predicate: FloatPredicate, a: Float<'c>, b: Float<'c>) -> IntValue<'c> {
        built(self.builder.build_float_compare(predicate, a, b, ""))
    }

    /// Ordered comparison, lane by lane.
    pub fn vcmp(&self, predicate: FloatPredicate, a: Lanes<'c>, b: Lanes<'c>) -> VectorValue<'c> {
        built(self.builder.build_float_compare(predicate, a, b, ""))
    }

    /// An intrinsic overloaded on the type of its first operand.
    pub fn call<T: TryFrom<Any<'c>>>(&self, name: &str, operands: &[Any<'c>]) -> T {
        self.intrinsic(name, &[operands[0].get_type()], operands)
    }

    /// An intrinsic with the types that it is overloaded on.
    pub fn intrinsic<T: TryFrom<Any<'c>>>(
        &self,
        name: &str,
        overloads: &[BasicTypeEnum<'c>],
        operands: &[Any<'c>],
    ) -> T {
        let call = self.effect(name, overloads, operands);
        let value = call.try_as_basic_value().basic().expect("the intrinsic gives a value");
        T::try_from(value).unwrap_or_else(|_| unreachable!("`{name}` gives another type"))
    }

    /// An intrinsic that need not give a value.
    pub fn effect(
        &self,
        name: &str,
        overloads: &[BasicTypeEnum<'c>],
        operands: &[Any<'c>],
    ) -> CallSiteValue<'c> {
        let intrinsic = Intrinsic::find(name).unwrap_or_else(|| unreachable!("LLVM has no `{name}`"));
        let declaration = intrinsic
            .get_declaration(self.module, overloads)
            .unwrap_or_else(|| unreachable!("`{name}` is not overloaded on {overloads:?}"));
        let operands: Vec<BasicMetadataValueEnum<'c>> =
            operands.iter().map(|value| (*value).into()).collect();
        built(self.builder.build_call(declaration, &operands, ""))
    }

    // Vectors.

    /// The lane of a vector.
    pub fn extract(&self, vector: VectorValue<'c>, lane: u32) -> Any<'c> {
        let index = self.context.i32_type().const_int(u64::from(lane), false);
        built(self.builder.build_extract_element(vector, index, ""))
    }

    /// The vector with one lane replaced.
    pub fn insert(&self, vector: VectorValue<'c>, value: Float<'c>, lane: u32) -> VectorValue<'c> {
        let index = self.context.i32_type().const_int(u64::from(lane), false);
        built(self.builder.build_insert_element(vector, value, index, ""))
    }

    /// An integer as f32.
    pub fn to_float(&self, value: Int<'c>) -> Float<'c> {
        built(self.builder.build_signed_int_to_float(value, self.context.f32_type(), ""))
    }

    /// An f32 that holds an integer, as that integer.
    pub fn to_int(&self, value: Float<'c>) -> Int<'c> {
        built(self.builder.build_float_to_signed_int(value, self.context.i64_type(), ""))
    }

    /// The f32 whose place in the order of all f32 is the 32-bit `key`: bits of negative numbers are
    /// inverted, the sign of the others is set.
    pub fn float_of_key(&self, key: Int<'c>) -> Float<'c> {
        let key = built(self.builder.build_int_truncate(key, self.context.i32_type(), ""));
        let i32 = self.context.i32_type();
        let positive = built(self.builder.build_int_compare(IntPredicate::SLT, key, i32.const_zero(), ""));
        let cleared = built(self.builder.build_and(key, i32.const_int(0x7FFF_FFFF, false), ""));
        let inverted = built(self.builder.build_not(key, ""));
        let bits = self.select(positive, cleared, inverted);
        built(self.builder.build_bit_cast(bits, self.context.f32_type(), "")).into_float_value()
    }

    /// Lanes of `a` and `b`, counted through both, in a new order.
    pub fn shuffle(&self, a: VectorValue<'c>, b: VectorValue<'c>, order: &[u32]) -> VectorValue<'c> {
        let i32 = self.context.i32_type();
        let mask: Vec<_> = order.iter().map(|lane| i32.const_int(u64::from(*lane), false)).collect();
        built(self.builder.build_shuffle_vector(a, b, VectorType::const_vector(&mask), ""))
    }

    /// Sums of each of a power-of-two number of vectors, as lanes of one, each in the order of a tree
    /// that depends on the number of lanes alone: halves are added until one value is left.
    pub fn sums(&self, vectors: &[Lanes<'c>]) -> VectorValue<'c> {
        let count = vectors.len() as u32;
        let mut lanes = vectors[0].get_type().get_size();
        let mut parts = vectors.to_vec();
        while lanes > count {
            let half = lanes / 2;
            let (low, high): (Vec<_>, Vec<_>) = ((0..half).collect(), (half..lanes).collect());
            for part in &mut parts {
                *part = self.fadd(self.shuffle(*part, *part, &low), self.shuffle(*part, *part, &high));
            }
            lanes = half;
        }
        // Each part now holds `segments` sums in progress, `run` lanes each; pairs of parts are merged.
        let mut run = lanes;
        while parts.len() > 1 {
            let half = run / 2;
            let pick = |upper: u32| -> Vec<u32> {
                let starts = (0..2 * lanes / run).map(|segment| segment * run + upper * half);
                starts.flat_map(|start| start..start + half).collect()
            };
            let (low, high) = (pick(0), pick(1));
            parts = parts
                .chunks(2)
                .map(|pair| {
                    self.fadd(self.shuffle(pair[0], pair[1], &low), self.shuffle(pair[0], pair[1], &high))
                })
                .collect();
            run = half;
        }
        parts[0]
    }

    /// The sum of the lanes.
    pub fn sum(&self, vector: Lanes<'c>) -> Float<'c> {
        self.extract(self.sums(&[vector]), 0).into_float_value()
    }

    /// Whether any lane of a vector of i1 holds.
    pub fn any(&self, lanes: VectorValue<'c>) -> IntValue<'c> {
        self.call("llvm.vector.reduce.or", &[lanes.into()])
    }

    /// The largest lane.
    pub fn max_lane(&self, vector: Lanes<'c>) -> Float<'c> {
        self.call("llvm.vector.reduce.fmax", &[vector.into()])
    }

    // Memory.

    /// `pointer + bytes`
    pub fn offset(&self, pointer: Ptr<'c>, bytes: Int<'c>) -> Ptr<'c> {
        built(pointer::offset(self.context, &self.builder, pointer, bytes))
    }

    /// The address of element `index`.
    pub fn at(&self, base: Ptr<'c>, dtype: Dtype, index: Int<'c>) -> Ptr<'c> {
        self.offset(base, self.times(index, dtype.bytes()))
    }

    /// A load of any type at the given alignment.
    pub fn load_aligned(&self, ty: impl BasicType<'c>, address: Ptr<'c>, alignment: u32) -> Any<'c> {
        let value = built(self.builder.build_load(ty, address, ""));
        if let Some(instruction) = value.as_instruction_value() {
            instruction.set_alignment(alignment).unwrap_or_else(|_| unreachable!("powers of two only"));
        }
        value
    }

    /// A store of any type at the given alignment.
    pub fn store_aligned(&self, address: Ptr<'c>, value: impl BasicValue<'c>, alignment: u32) {
        let instruction = built(self.builder.build_store(address, value));
        instruction.set_alignment(alignment).unwrap_or_else(|_| unreachable!("powers of two only"));
    }
}
