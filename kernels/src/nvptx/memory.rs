//! Loads and stores of generated code: pieces of rows, widened to f32 and rounded on their way back.
//!
//! A piece is up to 16 bytes of one thread, as wide as the tensor's alignment lets a single access be
//! ([`Layout::vector`]); wider pieces are several accesses.

use inkwell::types::BasicType;
use inkwell::values::BasicValue;
use nemo_ir::types::Dtype;

use super::emit::Emit;
use crate::emit::{Any, Float, Int, Ptr, built};
use crate::spec::Layout;

/// Whether memory is written while the kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// By no kernel at the same time: weights, tables, step inputs, results of launches before. Loads may go through
    /// the read-only cache.
    Before,
    /// Maybe by this one.
    Now,
}

impl<'c> Emit<'c, '_> {
    /// The address of a row of a tensor, in 64 bits.
    pub fn row(&self, (base, layout): (Ptr<'c>, &Layout), row: Int<'c>) -> Ptr<'c> {
        self.at(base, layout.dtype(), self.times(self.long(row), layout.row_stride))
    }

    /// The i32 at `base[index]`, a step input.
    pub fn load_int(&self, base: Ptr<'c>, index: Int<'c>) -> Int<'c> {
        self.load_read_only(self.context.i32_type(), self.at(base, Dtype::I32, index), 4).into_int_value()
    }

    /// Stores an i32 at `base[index]`.
    pub fn store_int(&self, base: Ptr<'c>, index: Int<'c>, value: Int<'c>) {
        self.store_aligned(self.at(base, Dtype::I32, index), value, 4);
    }

    /// A load through the read-only cache.
    pub fn load_read_only(&self, ty: impl BasicType<'c>, address: Ptr<'c>, alignment: u32) -> Any<'c> {
        let value = self.load_aligned(ty, address, alignment);
        if let Some(instruction) = value.as_instruction_value() {
            let kind = self.context.get_kind_id("invariant.load");
            instruction
                .set_metadata(self.context.metadata_node(&[]), kind)
                .unwrap_or_else(|_| unreachable!("an empty node is metadata"));
        }
        value
    }

    /// `count` elements at `address`, widened to f32; `vector` of them (a power of two that divides `count`) may be taken
    /// by one access.
    pub fn load(
        &self,
        address: Ptr<'c>,
        dtype: Dtype,
        (count, vector): (u32, u32),
        written: Written,
    ) -> Vec<Float<'c>> {
        let vector = vector.min(count).min(16 / dtype.bytes() as u32);
        assert!(count.is_multiple_of(vector), "a piece is whole accesses");
        let bytes = vector * dtype.bytes() as u32;
        let mut values = Vec::with_capacity(count as usize);
        for first in (0..count).step_by(vector as usize) {
            let address = self.at(address, dtype, self.word(first));
            let load = |ty: inkwell::types::BasicTypeEnum<'c>| match written {
                Written::Before => self.load_read_only(ty, address, bytes),
                Written::Now => self.load_aligned(ty, address, bytes),
            };
            match (dtype, vector) {
                (Dtype::F32, 1) => values.push(load(self.context.f32_type().into()).into_float_value()),
                (Dtype::F32, _) => {
                    let loaded = load(self.context.f32_type().vec_type(vector).into()).into_vector_value();
                    values.extend((0..vector).map(|lane| self.extract(loaded, lane).into_float_value()));
                }
                (Dtype::Bf16, 1) => {
                    let half = load(self.context.i16_type().into()).into_int_value();
                    let word = built(self.builder.build_int_z_extend(half, self.context.i32_type(), ""));
                    values.push(self.float_of(self.shift_left(word, self.word(16))));
                }
                (Dtype::Bf16, 2) => {
                    values.extend(self.unpack(load(self.context.i32_type().into()).into_int_value()));
                }
                (Dtype::Bf16, _) => {
                    let words = load(self.context.i32_type().vec_type(vector / 2).into()).into_vector_value();
                    for lane in 0..vector / 2 {
                        values.extend(self.unpack(self.extract(words, lane).into_int_value()));
                    }
                }
                (Dtype::F16 | Dtype::I32 | Dtype::U8, _) => unreachable!("`kernel` refuses {dtype} values"),
            }
        }
        values
    }

    /// One element, widened to f32.
    pub fn load_scalar(&self, address: Ptr<'c>, dtype: Dtype, written: Written) -> Float<'c> {
        self.load(address, dtype, (1, 1), written)[0]
    }

    /// Rounds values to `dtype` and stores them; `vector` of them may be stored by one access.
    pub fn store(&self, address: Ptr<'c>, dtype: Dtype, values: &[Float<'c>], vector: u32) {
        let count = values.len() as u32;
        let vector = vector.min(count).min(16 / dtype.bytes() as u32);
        assert!(count.is_multiple_of(vector), "a piece is whole accesses");
        let bytes = vector * dtype.bytes() as u32;
        for (index, piece) in values.chunks(vector as usize).enumerate() {
            let address = self.at(address, dtype, self.word(index as u32 * vector));
            match (dtype, vector) {
                (Dtype::F32, 1) => self.store_aligned(address, piece[0], bytes),
                (Dtype::F32, _) => {
                    let ty = self.context.f32_type().vec_type(vector);
                    let filled = piece.iter().enumerate();
                    let filled = filled
                        .fold(ty.get_poison(), |all, (lane, value)| self.insert(all, *value, lane as u32));
                    self.store_aligned(address, filled, bytes);
                }
                (Dtype::Bf16, 1) => {
                    let half = built(self.builder.build_float_trunc(piece[0], self.context.bf16_type(), ""));
                    self.store_aligned(address, half.as_basic_value_enum(), bytes);
                }
                (Dtype::Bf16, 2) => self.store_aligned(address, self.pack(piece[0], piece[1]), bytes),
                (Dtype::Bf16, _) => {
                    let words: Vec<_> = piece.chunks(2).map(|pair| self.pack(pair[0], pair[1])).collect();
                    self.store_words(address, &words, bytes);
                }
                (Dtype::F16 | Dtype::I32 | Dtype::U8, _) => unreachable!("`kernel` refuses {dtype} values"),
            }
        }
    }

    /// Two or four i32 by one access.
    pub fn store_words(&self, address: Ptr<'c>, words: &[Int<'c>], alignment: u32) {
        let i32 = self.context.i32_type();
        let filled = words.iter().enumerate().fold(
            i32.vec_type(words.len() as u32).get_poison(),
            |all, (lane, word)| {
                let lane = self.word(lane as u32);
                built(self.builder.build_insert_element(all, *word, lane, ""))
            },
        );
        self.store_aligned(address, filled, alignment);
    }

    /// A value rounded to `dtype`, as f32: what a stored and loaded one would be.
    pub fn round(&self, dtype: Dtype, value: Float<'c>) -> Float<'c> {
        match dtype {
            Dtype::F32 => value,
            Dtype::Bf16 => {
                let half = built(self.builder.build_float_trunc(value, self.context.bf16_type(), ""));
                let half =
                    built(self.builder.build_bit_cast(half, self.context.i16_type(), "")).into_int_value();
                let word = built(self.builder.build_int_z_extend(half, self.context.i32_type(), ""));
                self.float_of(self.shift_left(word, self.word(16)))
            }
            Dtype::F16 | Dtype::I32 | Dtype::U8 => unreachable!("`kernel` refuses {dtype} values"),
        }
    }

    /// Two values as bf16 in one i32, the first in the lower half.
    pub fn pack(&self, low: Float<'c>, high: Float<'c>) -> Int<'c> {
        let pair = self.context.f32_type().vec_type(2).get_poison();
        let pair = self.insert(self.insert(pair, low, 0), high, 1);
        let halves = built(self.builder.build_float_trunc(pair, self.context.bf16_type().vec_type(2), ""));
        built(self.builder.build_bit_cast(halves, self.context.i32_type(), "")).into_int_value()
    }

    /// The two bf16 in an i32, widened; a shift and a mask, where a conversion would take three instructions.
    pub fn unpack(&self, word: Int<'c>) -> [Float<'c>; 2] {
        let low = self.shift_left(word, self.word(16));
        let high = self.and(word, self.word(0xFFFF_0000));
        [self.float_of(low), self.float_of(high)]
    }
}
