//! Loads and stores of generated code: elements of any dtype at element alignment, and scratch on the
//! stack.

use inkwell::IntPredicate;
use inkwell::types::VectorType;
use inkwell::values::{BasicValue, VectorValue};

use nemo_ir::types::Dtype;

use super::emit::Emit;
use crate::emit::{Float, Int, Lanes, Ptr, built};
use crate::spec::Layout;
use crate::target::Feature;

impl<'c> Emit<'c, '_> {
    /// The address of a row of a tensor.
    pub fn row(&self, (base, layout): (Ptr<'c>, &Layout), row: Int<'c>) -> Ptr<'c> {
        self.at(base, layout.ty.dtype, self.times(row, layout.row_stride))
    }

    /// Stack space for `count` f32, aligned to a register.
    pub fn scratch(&self, count: u64) -> Ptr<'c> {
        let here = self.builder.get_insert_block();
        self.builder.position_at_end(self.entry_block());
        self.stack.set(self.stack.get().saturating_add(count.saturating_mul(4)));
        // Too much of it is refused when the generator has returned.
        let array = self.context.f32_type().array_type(u32::try_from(count).unwrap_or(u32::MAX));
        let slot = built(self.builder.build_alloca(array, ""));
        if let Some(instruction) = slot.as_instruction_value() {
            instruction.set_alignment(64).unwrap_or_else(|_| unreachable!("64 is a power of two"));
        }
        if let Some(block) = here {
            self.builder.position_at_end(block);
        }
        slot
    }

    /// The i32 at `base[index]`.
    pub fn load_int(&self, base: Ptr<'c>, index: Int<'c>) -> Int<'c> {
        let i32 = self.context.i32_type();
        let value = self.load_aligned(i32, self.at(base, Dtype::I32, index), 4).into_int_value();
        built(self.builder.build_int_s_extend(value, self.context.i64_type(), ""))
    }

    /// Stores an i32 at `base[index]`.
    pub fn store_int(&self, base: Ptr<'c>, index: Int<'c>, value: Int<'c>) {
        let value = built(self.builder.build_int_truncate(value, self.context.i32_type(), ""));
        self.store_aligned(self.at(base, Dtype::I32, index), value, 4);
    }

    /// The element at `address`, widened to f32.
    pub fn load_scalar(&self, address: Ptr<'c>, dtype: Dtype) -> Float<'c> {
        match dtype {
            Dtype::F32 => self.load_aligned(self.context.f32_type(), address, 4).into_float_value(),
            Dtype::Bf16 => {
                let half = self.load_aligned(self.context.i16_type(), address, 2).into_int_value();
                let wide = built(self.builder.build_int_z_extend(half, self.context.i32_type(), ""));
                let sixteen = self.context.i32_type().const_int(16, false);
                let bits = built(self.builder.build_left_shift(wide, sixteen, ""));
                built(self.builder.build_bit_cast(bits, self.context.f32_type(), "")).into_float_value()
            }
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`compile` refuses {dtype} activations"),
        }
    }

    /// Rounds a value to `dtype` and stores it.
    pub fn store_scalar(&self, address: Ptr<'c>, dtype: Dtype, value: Float<'c>) {
        let one = self.context.f32_type().vec_type(1);
        let vector = built(self.builder.build_bit_cast(value, one, "")).into_vector_value();
        self.store(address, dtype, 1, vector);
    }

    /// Each lane rounded to `dtype`, as f32: what a stored and loaded value would be.
    pub fn round(&self, dtype: Dtype, vector: VectorValue<'c>) -> VectorValue<'c> {
        match dtype {
            Dtype::F32 => vector,
            Dtype::Bf16 => self.widen_bf16(self.to_bf16(vector)),
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`compile` refuses {dtype} activations"),
        }
    }

    /// The bits of each lane in bf16. Every rounding takes this way: the target's instruction and the
    /// arithmetic differ in numbers below the normal range.
    fn to_bf16(&self, vector: VectorValue<'c>) -> VectorValue<'c> {
        let lanes = vector.get_type().get_size();
        if self.target().has(Feature::Avx512Bf16) {
            // The instruction starts at four lanes; LLVM would take fewer apart, into calls.
            let wide = lanes.max(4);
            let ty = self.context.bf16_type().vec_type(wide);
            let halves = built(self.builder.build_float_trunc(self.resize(vector, wide), ty, ""));
            let ty = self.context.i16_type().vec_type(wide);
            let bits = built(self.builder.build_bit_cast(halves, ty, "")).into_vector_value();
            return self.resize(bits, lanes);
        }
        let words = self.context.i32_type().vec_type(lanes);
        let bits = built(self.builder.build_bit_cast(vector, words, ""));
        self.round_to_bf16(bits.into_vector_value())
    }

    /// The vector with `lanes` lanes: cut off, or filled up with zeros.
    pub fn resize(&self, vector: VectorValue<'c>, lanes: u32) -> VectorValue<'c> {
        let has = vector.get_type().get_size();
        if has == lanes {
            return vector;
        }
        let order: Vec<_> = (0..lanes).map(|lane| lane.min(has)).collect();
        self.shuffle(vector, vector.get_type().const_zero(), &order)
    }

    /// The upper halves of f32 bits, rounded to nearest even; a NaN stays one.
    ///
    /// A plain truncation would become a call into the compiler's support library.
    fn round_to_bf16(&self, bits: VectorValue<'c>) -> VectorValue<'c> {
        let lanes = bits.get_type().get_size();
        let word = |value| {
            VectorType::const_vector(&vec![self.context.i32_type().const_int(value, false); lanes as usize])
        };
        let b = &self.builder;
        let high = built(b.build_right_shift(bits, word(16), false, ""));
        let odd = built(b.build_and(high, word(1), ""));
        let carry = built(b.build_int_add(odd, word(0x7FFF), ""));
        let rounded =
            built(b.build_right_shift(built(b.build_int_add(bits, carry, "")), word(16), false, ""));
        let magnitude = built(b.build_and(bits, word(0x7FFF_FFFF), ""));
        let is_nan = built(b.build_int_compare(IntPredicate::UGT, magnitude, word(0x7F80_0000), ""));
        let quiet = built(b.build_or(high, word(0x40), ""));
        let chosen = self.select(is_nan, quiet, rounded);
        built(b.build_int_truncate(chosen, self.context.i16_type().vec_type(lanes), ""))
    }

    /// The first `lanes` elements at `address`, widened to f32; the other lanes are zero.
    pub fn load(&self, address: Ptr<'c>, dtype: Dtype, lanes: u32) -> Lanes<'c> {
        if lanes < self.width() {
            return self.load_elements(address, dtype, lanes, self.lanes(0.0));
        }
        match dtype {
            Dtype::F32 => {
                let ty = self.context.f32_type().vec_type(lanes);
                self.load_aligned(ty, address, 4).into_vector_value()
            }
            Dtype::Bf16 => {
                let halves = self.load_aligned(self.context.i16_type().vec_type(lanes), address, 2);
                self.widen_bf16(halves.into_vector_value())
            }
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`compile` refuses {dtype} activations"),
        }
    }

    /// `count` f32 at `address` as one vector, wider than a register where that is many.
    pub fn load_wide(&self, address: Ptr<'c>, count: u32) -> VectorValue<'c> {
        self.load_aligned(self.context.f32_type().vec_type(count), address, 4).into_vector_value()
    }

    /// The first `count` elements at `address`, widened to f32, the other lanes zero: in one piece where
    /// `count` is a power of two.
    pub fn load_piece(&self, address: Ptr<'c>, dtype: Dtype, count: u32) -> Lanes<'c> {
        if !count.is_power_of_two() || count > self.width() {
            return self.load(address, dtype, count);
        }
        let vector = match dtype {
            Dtype::F32 => self.load_wide(address, count),
            Dtype::Bf16 => {
                let ty = self.context.i16_type().vec_type(count);
                self.widen_bf16(self.load_aligned(ty, address, 2).into_vector_value())
            }
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`compile` refuses {dtype} activations"),
        };
        self.resize(vector, self.width())
    }

    /// The first `count` bf16 at `address`, two to an f32 lane, as they are; the others are zero.
    pub fn load_bf16_pairs(&self, address: Ptr<'c>, count: u32) -> VectorValue<'c> {
        let ty = self.context.bf16_type().vec_type(2 * self.width());
        if count == 2 * self.width() {
            return self.load_aligned(ty, address, 2).into_vector_value();
        }
        (0..count).fold(ty.const_zero(), |vector, lane| {
            let element = self.at(address, Dtype::Bf16, self.int(u64::from(lane)));
            let value = self.load_aligned(self.context.bf16_type(), element, 2);
            let index = self.context.i32_type().const_int(u64::from(lane), false);
            built(self.builder.build_insert_element(vector, value, index, ""))
        })
    }

    /// bf16 bits to f32: the upper half of the word.
    fn widen_bf16(&self, halves: VectorValue<'c>) -> Lanes<'c> {
        let lanes = halves.get_type().get_size();
        let words = self.context.i32_type().vec_type(lanes);
        let wide = built(self.builder.build_int_z_extend(halves, words, ""));
        let sixteen = self.context.i32_type().const_int(16, false);
        let shift = VectorType::const_vector(&vec![sixteen; lanes as usize]);
        let bits = built(self.builder.build_left_shift(wide, shift, ""));
        let ty = self.context.f32_type().vec_type(lanes);
        built(self.builder.build_bit_cast(bits, ty, "")).into_vector_value()
    }

    /// The first `lanes` f32 at `address`; the others are those of `otherwise`.
    pub fn load_or(&self, address: Ptr<'c>, lanes: u32, otherwise: Lanes<'c>) -> Lanes<'c> {
        if lanes == self.width() {
            return self.load(address, Dtype::F32, lanes);
        }
        self.load_elements(address, Dtype::F32, lanes, otherwise)
    }

    /// Past the end of a row may be past the end of the file: element by element.
    fn load_elements(&self, address: Ptr<'c>, dtype: Dtype, lanes: u32, otherwise: Lanes<'c>) -> Lanes<'c> {
        (0..lanes).fold(otherwise, |vector, lane| {
            let element = self.load_scalar(self.at(address, dtype, self.int(u64::from(lane))), dtype);
            self.insert(vector, element, lane)
        })
    }

    /// Rounds the first `lanes` lanes to `dtype` and stores them.
    pub fn store(&self, address: Ptr<'c>, dtype: Dtype, lanes: u32, vector: VectorValue<'c>) {
        let (vector, alignment) = match dtype {
            Dtype::F32 => (vector, 4),
            Dtype::Bf16 => (self.to_bf16(vector), 2),
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`compile` refuses {dtype} activations"),
        };
        if lanes == vector.get_type().get_size() {
            return self.store_aligned(address, vector, alignment);
        }
        for lane in 0..lanes {
            let place = self.at(address, dtype, self.int(u64::from(lane)));
            self.store_aligned(place, self.extract(vector, lane), alignment);
        }
    }

    /// Asks for the cache line at `address`, which need not exist, to come to the second-level cache.
    pub fn prefetch(&self, address: Ptr<'c>) {
        // Read; all but the first level, which what is in use would have to leave; data.
        let flags = [0, 2, 1].map(|flag| self.context.i32_type().const_int(flag, false).into());
        self.effect("llvm.prefetch", &[address.get_type().into()], &[&[address.into()], &flags[..]].concat());
    }
}
