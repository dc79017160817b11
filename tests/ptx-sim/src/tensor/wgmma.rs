//! `wgmma.mma_async` of the shapes m64nNk16: f16 or bf16 operands, f32 accumulators, four warps.
//!
//! "Register Fragments and Shared Memory Matrix Layouts" of the PTX ISA:
//! * register `r` of the accumulator, in lane `l` of warp `w`, holds row `16 w + l / 4 + 8 (r / 2 % 2)`, column
//!   `8 (r / 4) + 2 (l % 4) + r % 2`;
//! * A in registers is, in each warp, the A fragment of `mma.m16n8k16` of the warp's 16 rows;
//! * operands in shared memory are described by a [`Descriptor`]; its layouts are in [`Operand::address`].
//!
//! Arithmetic is that of [`mma`]: products added one by one in the order of k, beginning with the
//! accumulator, or with zero without `scale-d`.

use std::ops::Range;

use super::float::{self, Half};
use super::swizzle::Swizzle;
use super::{Lanes, mma};

/// Columns of the product, a multiple of 8 up to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Columns(u16);

impl Columns {
    /// None unless the ISA has the shape.
    pub const fn new(n: u32) -> Option<Self> {
        if n >= 8 && n <= 256 && n.is_multiple_of(8) { Some(Self(n as u16)) } else { None }
    }

    /// The count.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Accumulator registers a lane.
    pub const fn registers(self) -> usize {
        self.get() / 2
    }
}

/// Which dimension is contiguous in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Major {
    /// `imm-trans` 0: elements of one row of A, or of one column of B, follow each other.
    K,
    /// `imm-trans` 1: elements of one column of A, or of one row of B, follow each other.
    Mn,
}

/// `imm-scale-a` and `imm-scale-b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sign {
    /// 1
    #[default]
    Plus,
    /// -1: the operand is negated.
    Minus,
}

/// A matrix descriptor, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Start address in shared memory.
    pub start: u32,
    /// Leading dimension byte offset.
    pub leading: u32,
    /// Stride dimension byte offset.
    pub stride: u32,
    /// Lines of 128 bytes between a multiple of the swizzle's repeat and the start of its pattern.
    pub base_offset: u32,
    /// Swizzle.
    pub swizzle: Swizzle,
}

/// What is wrong with the bits of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Bits outside the fields.
    #[error("matrix descriptor {0:#018x} has bits set outside its fields")]
    Reserved(u64),
    /// The base offset has no meaning without swizzle.
    #[error("matrix descriptor {0:#018x} has a base offset but no swizzle")]
    BaseOffset(u64),
}

impl Descriptor {
    const FIELDS: u64 = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62;

    /// Reads the 64 bits of "Matrix Descriptor Format".
    pub const fn decode(bits: u64) -> Result<Self, DescriptorError> {
        if bits & !Self::FIELDS != 0 {
            return Err(DescriptorError::Reserved(bits));
        }
        let base_offset = (bits >> 49) as u32 & 7;
        let swizzle = match bits >> 62 {
            0 if base_offset != 0 => return Err(DescriptorError::BaseOffset(bits)),
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        Ok(Self {
            start: (bits as u32 & 0x3fff) << 4,
            leading: ((bits >> 16) as u32 & 0x3fff) << 4,
            stride: ((bits >> 32) as u32 & 0x3fff) << 4,
            base_offset,
            swizzle,
        })
    }

    /// The 64 bits. Of addresses and offsets bits 4 to 17 count.
    pub const fn encode(self) -> u64 {
        let swizzle = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        field(self.start)
            | field(self.leading) << 16
            | field(self.stride) << 32
            | (self.base_offset as u64 & 7) << 49
            | swizzle << 62
    }
}

const fn field(value: u32) -> u64 {
    (value as u64 & 0x3_ffff) >> 4
}

/// An operand in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Where and how it lies.
    pub descriptor: Descriptor,
    /// Which dimension is contiguous.
    pub major: Major,
}

impl Operand {
    /// Address of the 16-byte chunk `chunk`, of 8 elements along the contiguous dimension, of line `line` of
    /// the other. The canonical layouts of the ISA, in bytes and before the swizzle:
    ///
    /// | contiguous | swizzle | chunk `c` | line `l` |
    /// | --- | --- | --- | --- |
    /// | K | none | `c` leading | `16 (l % 8)` + `l / 8` stride |
    /// | K | span `s` | `16 c` | `s (l % 8)` + `l / 8` stride |
    /// | M, N | none | `c` stride | `16 (l % 8)` + `l / 8` leading |
    /// | M, N | span `s` | `16 (c % (s / 16))` + `c / (s / 16)` leading | `s (l % 8)` + `l / 8` stride |
    pub fn address(&self, line: u32, chunk: u32) -> u32 {
        let Descriptor { start, leading, stride, base_offset, swizzle } = self.descriptor;
        let span = swizzle.span();
        let chunks = span / 16;
        let (of_chunk, of_group) = match (self.major, swizzle) {
            (Major::K, Swizzle::None) => (chunk * leading, stride),
            (Major::K, _) => (chunk * 16, stride),
            (Major::Mn, Swizzle::None) => (chunk * stride, leading),
            (Major::Mn, _) => (chunk % chunks * 16 + chunk / chunks * leading, stride),
        };
        swizzle.apply_from(start + of_chunk + line % 8 * span + line / 8 * of_group, base_offset)
    }

    /// Reads rows of A, or columns of B, by 16 of k: element `k` of row `i`, counted from the first of `range`,
    /// goes to `store(i, k, bits)`. Both ends of the range are multiples of 8.
    fn read<E>(
        &self,
        range: Range<usize>,
        mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
        mut store: impl FnMut(usize, usize, u16),
    ) -> Result<(), E> {
        let (lines, chunks) = match self.major {
            Major::K => (range.clone(), 0..2),
            Major::Mn => (0..16, range.start / 8..range.end / 8),
        };
        for line in lines {
            for chunk in chunks.clone() {
                let bytes = read(self.address(line as u32, chunk as u32))?;
                for (element, pair) in bytes.as_chunks().0.iter().enumerate() {
                    let (i, k) = match self.major {
                        Major::K => (line, 8 * chunk + element),
                        Major::Mn => (8 * chunk + element, line),
                    };
                    store(i - range.start, k, u16::from_le_bytes(*pair));
                }
            }
        }
        Ok(())
    }
}

/// Where A comes from.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Four registers of the warp at hand.
    Registers(&'a [Lanes; 4]),
    /// Shared memory.
    Shared(Operand),
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Wgmma<'a> {
    /// Type of A and B.
    pub half: Half,
    /// N.
    pub columns: Columns,
    /// A.
    pub a: Left<'a>,
    /// B.
    pub b: Operand,
    /// `scale-d`: whether the accumulator is added.
    pub accumulate: bool,
    /// `imm-scale-a`
    pub a_sign: Sign,
    /// `imm-scale-b`
    pub b_sign: Sign,
}

/// Executes one instruction as far as one of the four warps is concerned: its 16 rows of A and D, and all of B.
/// `d` are the accumulators of the warp. `read` gets 16 bytes at an address of shared memory; every chunk is
/// read once. (A card reads B once for all four warps.)
///
/// # Panics
/// If `warp` is not below 4 or `d` has another length than [`Columns::registers`].
pub fn wgmma<E>(
    op: &Wgmma<'_>,
    warp: usize,
    d: &mut [Lanes],
    mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<(), E> {
    assert!(warp < 4, "a warpgroup has four warps");
    assert_eq!(d.len(), op.columns.registers(), "accumulators of a warp");
    let widen = |bits| op.half.widen(bits);
    let mut left = match op.a {
        Left::Registers(a) => mma::gather_a::<16, 2>(|bits| float::unpack(bits).map(widen), a),
        Left::Shared(operand) => {
            let mut left = [[0.0f32; 16]; 16];
            operand.read(16 * warp..16 * warp + 16, &mut read, |i, k, bits| left[i][k] = widen(bits))?;
            left
        }
    };
    if op.a_sign != op.b_sign {
        // Two signs cancel; one negates every product, which negating one operand does exactly.
        left.as_flattened_mut().iter_mut().for_each(|value| *value = -*value);
    }
    // B by panels of eight columns: each is a product as `mma.m16n8k16` makes it, and its part of the
    // accumulators is laid out as that instruction has it.
    let mut right = [[[0.0f32; 8]; 16]; 32];
    op.b.read(0..op.columns.get(), &mut read, |j, k, bits| right[j / 8][k][j % 8] = widen(bits))?;
    for (panel, part) in right.iter().zip(d.as_chunks_mut::<4>().0) {
        let start = if op.accumulate { *part } else { [[0; 32]; 4] };
        *part = mma::f32_tile(&start, |sums| mma::accumulate(&left, panel, sums));
    }
    Ok(())
}
