//! `mma.sync.aligned` of the shapes m16n8kK: `D = A B + C` over the fragments of one warp.
//!
//! Fragment layouts are those of "Matrix Fragments for mma.m16n8k8" and its siblings in the PTX ISA. With
//! `g = lane / 4` and `t = lane % 4`, and `e` elements in a 32-bit register (1 for tf32, 2 for f16 and bf16,
//! 4 for 8-bit integers):
//! * register `r` of A holds row `g + 8 (r % 2)`, columns `e t + 4 e (r / 2)` and following;
//! * register `r` of B holds rows `e t + 4 e r` and following, column `g`;
//! * registers 0, 1 of C and D hold row `g`, columns `2 t` and `2 t + 1`; registers 2, 3 row `g + 8`. An f16
//!   accumulator packs each pair into one register.
//!
//! Arithmetic: products of the narrow floats are exact in f32 (at most 22 bits). The ISA leaves open in which
//! order and precision a tensor core adds them; cards differ, and they truncate where this rounds. Here the
//! products are added one by one in the order of k, beginning with C, each sum rounded to the nearest f32.
//! An f16 accumulator is f32 on the way and rounded once at the end. So results agree with a card to a few
//! last places of the largest term, and bit for bit where all sums are exact. Subnormal numbers count. A
//! product that overflows f32 is infinite. NaN results are canonical. Integers add modulo 2^32, or, with
//! `.satfinite`, the exact sum is clamped.

use super::Lanes;
use super::float::{self, Half, Narrowing};

/// Signs and overflow of an integer product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Int8 {
    /// `.s8` for A, else `.u8`.
    pub a_signed: bool,
    /// `.s8` for B, else `.u8`.
    pub b_signed: bool,
    /// `.satfinite`: clamp to s32 in place of wrapping around.
    pub saturate: bool,
}

/// The supported products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MmaKind {
    /// `m16n8k8` of f16 or bf16 with f32 accumulators.
    HalfK8(Half),
    /// `m16n8k16` of f16 or bf16 with f32 accumulators.
    HalfK16(Half),
    /// `m16n8k8` of f16 with f16 accumulators.
    F16AccK8,
    /// `m16n8k16` of f16 with f16 accumulators.
    F16AccK16,
    /// `m16n8k4` of tf32.
    Tf32K4,
    /// `m16n8k8` of tf32.
    Tf32K8,
    /// `m16n8k16` of 8-bit integers.
    Int8K16(Int8),
    /// `m16n8k32` of 8-bit integers.
    Int8K32(Int8),
}

impl MmaKind {
    /// The product of an instruction by its modifiers, as `["m16n8k16", "row", "col", "f32", "bf16", "bf16",
    /// "f32"]`, with `"satfinite"` before the types or without.
    pub fn from_modifiers(modifiers: &[&str]) -> Option<Self> {
        let (shape, rest) = match modifiers {
            [shape, "row", "col", rest @ ..] => (*shape, rest),
            _ => return None,
        };
        let (saturate, types) = match rest {
            ["satfinite", types @ ..] => (true, types),
            types => (false, types),
        };
        if let ["s32", a @ ("s8" | "u8"), b @ ("s8" | "u8"), "s32"] = types {
            let int = Int8 { a_signed: *a == "s8", b_signed: *b == "s8", saturate };
            return match shape {
                "m16n8k16" => Some(Self::Int8K16(int)),
                "m16n8k32" => Some(Self::Int8K32(int)),
                _ => None,
            };
        }
        match (shape, types) {
            _ if saturate => None,
            ("m16n8k8", ["f32", "f16", "f16", "f32"]) => Some(Self::HalfK8(Half::F16)),
            ("m16n8k8", ["f32", "bf16", "bf16", "f32"]) => Some(Self::HalfK8(Half::Bf16)),
            ("m16n8k16", ["f32", "f16", "f16", "f32"]) => Some(Self::HalfK16(Half::F16)),
            ("m16n8k16", ["f32", "bf16", "bf16", "f32"]) => Some(Self::HalfK16(Half::Bf16)),
            ("m16n8k8", ["f16", "f16", "f16", "f16"]) => Some(Self::F16AccK8),
            ("m16n8k16", ["f16", "f16", "f16", "f16"]) => Some(Self::F16AccK16),
            ("m16n8k4", ["f32", "tf32", "tf32", "f32"]) => Some(Self::Tf32K4),
            ("m16n8k8", ["f32", "tf32", "tf32", "f32"]) => Some(Self::Tf32K8),
            _ => None,
        }
    }

    /// Registers a lane of A.
    pub const fn a_registers(self) -> usize {
        2 * self.b_registers()
    }

    /// Registers a lane of B.
    pub const fn b_registers(self) -> usize {
        match self {
            Self::HalfK8(_) | Self::F16AccK8 | Self::Tf32K4 | Self::Int8K16(_) => 1,
            Self::HalfK16(_) | Self::F16AccK16 | Self::Tf32K8 | Self::Int8K32(_) => 2,
        }
    }

    /// Registers a lane of C and of D.
    pub const fn c_registers(self) -> usize {
        match self {
            Self::F16AccK8 | Self::F16AccK16 => 2,
            _ => 4,
        }
    }

    /// The extent of the sum.
    pub const fn k(self) -> usize {
        match self {
            Self::Tf32K4 => 4,
            Self::HalfK8(_) | Self::F16AccK8 | Self::Tf32K8 => 8,
            Self::HalfK16(_) | Self::F16AccK16 | Self::Int8K16(_) => 16,
            Self::Int8K32(_) => 32,
        }
    }
}

/// The product of the fragments. Registers of the result beyond [`MmaKind::c_registers`] are zero.
///
/// # Panics
/// If a slice is shorter than the counts of registers of `kind`.
pub fn mma(kind: MmaKind, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    match kind {
        MmaKind::HalfK8(half) => f32_tile(c, |sums| half_product::<8>(half, a, b, sums)),
        MmaKind::HalfK16(half) => f32_tile(c, |sums| half_product::<16>(half, a, b, sums)),
        MmaKind::F16AccK8 => f16_tile(c, |sums| half_product::<8>(Half::F16, a, b, sums)),
        MmaKind::F16AccK16 => f16_tile(c, |sums| half_product::<16>(Half::F16, a, b, sums)),
        MmaKind::Tf32K4 => f32_tile(c, |sums| tf32_product::<4>(a, b, sums)),
        MmaKind::Tf32K8 => f32_tile(c, |sums| tf32_product::<8>(a, b, sums)),
        MmaKind::Int8K16(int) => int_tile::<16>(int, a, b, c),
        MmaKind::Int8K32(int) => int_tile::<32>(int, a, b, c),
    }
}

/// A block of 16 rows and 8 columns.
pub(super) type Tile = [[f32; 8]; 16];

/// Adds `left right` to `sums`, in the order of k. Four rows at a time keep their sums in vector registers.
pub(super) fn accumulate<const K: usize>(left: &[[f32; K]; 16], right: &[[f32; 8]; K], sums: &mut Tile) {
    for (rows, cells) in left.as_chunks::<4>().0.iter().zip(sums.as_chunks_mut::<4>().0) {
        let mut block = *cells;
        for (k, terms) in right.iter().enumerate() {
            for (row, sum) in rows.iter().zip(&mut block) {
                for (cell, term) in sum.iter_mut().zip(terms) {
                    *cell += row[k] * term;
                }
            }
        }
        *cells = block;
    }
}

/// Applies `product` to the tile that four registers of f32 accumulators hold.
pub(super) fn f32_tile(c: &[Lanes], product: impl FnOnce(&mut Tile)) -> [Lanes; 4] {
    let mut sums = [[0.0; 8]; 16];
    for (half, registers) in c[..4].as_chunks::<2>().0.iter().enumerate() {
        let [even, odd] = registers.each_ref().map(|register| register.as_chunks::<4>().0);
        for (row, (even, odd)) in sums[8 * half..8 * half + 8].iter_mut().zip(even.iter().zip(odd)) {
            for (pair, bits) in row.as_chunks_mut().0.iter_mut().zip(even.iter().zip(odd)) {
                *pair = [f32::from_bits(*bits.0), f32::from_bits(*bits.1)];
            }
        }
    }
    product(&mut sums);
    scatter(&sums, |_, _, sum| float::f32_bits(sum))
}

/// Registers of a tile; `bits` gets register, lane and element.
fn scatter(sums: &Tile, bits: impl Fn(usize, usize, f32) -> u32) -> [Lanes; 4] {
    let mut registers = [[0; 32]; 4];
    for (half, rows) in sums.as_chunks::<8>().0.iter().enumerate() {
        for (group, row) in rows.iter().enumerate() {
            for (thread, [even, odd]) in row.as_chunks::<2>().0.iter().enumerate() {
                let lane = 4 * group + thread;
                registers[2 * half][lane] = bits(2 * half, lane, *even);
                registers[2 * half + 1][lane] = bits(2 * half + 1, lane, *odd);
            }
        }
    }
    registers
}

fn f16_tile(c: &[Lanes], product: impl FnOnce(&mut Tile)) -> [Lanes; 4] {
    let mut sums = [[0.0; 8]; 16];
    for (register, lanes) in c[..2].iter().enumerate() {
        for (lane, &bits) in lanes.iter().enumerate() {
            let row = &mut sums[lane / 4 + 8 * register];
            let column = 2 * (lane % 4);
            [row[column], row[column + 1]] = float::unpack(bits).map(float::f16_to_f32);
        }
    }
    product(&mut sums);
    std::array::from_fn(|register| match register {
        0 | 1 => std::array::from_fn(|lane| {
            let row = &sums[lane / 4 + 8 * register];
            let column = 2 * (lane % 4);
            float::f32_to_f16x2(row[column + 1], row[column], Narrowing::default())
        }),
        _ => [0; 32],
    })
}

fn half_product<const K: usize>(half: Half, a: &[Lanes], b: &[Lanes], sums: &mut Tile) {
    match half {
        Half::F16 => float_product::<K, 2>(|bits| float::unpack(bits).map(float::f16_to_f32), a, b, sums),
        Half::Bf16 => float_product::<K, 2>(|bits| float::unpack(bits).map(float::bf16_to_f32), a, b, sums),
    }
}

fn tf32_product<const K: usize>(a: &[Lanes], b: &[Lanes], sums: &mut Tile) {
    float_product::<K, 1>(|bits| [float::tf32_to_f32(bits)], a, b, sums);
}

/// Gathers the fragments into dense matrices and adds their product, E elements to a register.
fn float_product<const K: usize, const E: usize>(
    widen: impl Fn(u32) -> [f32; E] + Copy,
    a: &[Lanes],
    b: &[Lanes],
    sums: &mut Tile,
) {
    accumulate(&gather_a::<K, E>(widen, a), &gather_b::<K, E>(widen, b), sums);
}

/// A as rows.
pub(super) fn gather_a<const K: usize, const E: usize>(
    widen: impl Fn(u32) -> [f32; E],
    a: &[Lanes],
) -> [[f32; K]; 16] {
    let mut matrix = [[0.0; K]; 16];
    for (register, lanes) in a[..K / (2 * E)].iter().enumerate() {
        let (top, left) = (8 * (register % 2), 4 * E * (register / 2));
        for (row, group) in matrix[top..top + 8].iter_mut().zip(lanes.as_chunks::<4>().0) {
            for (elements, &bits) in row[left..left + 4 * E].as_chunks_mut::<E>().0.iter_mut().zip(group) {
                *elements = widen(bits);
            }
        }
    }
    matrix
}

fn gather_b<const K: usize, const E: usize>(widen: impl Fn(u32) -> [f32; E], b: &[Lanes]) -> [[f32; 8]; K] {
    let mut matrix = [[0.0; 8]; K];
    for (rows, lanes) in matrix.chunks_exact_mut(4 * E).zip(b) {
        for (column, group) in lanes.as_chunks::<4>().0.iter().enumerate() {
            for (lines, &bits) in rows.as_chunks_mut::<E>().0.iter_mut().zip(group) {
                for (line, value) in lines.iter_mut().zip(widen(bits)) {
                    line[column] = value;
                }
            }
        }
    }
    matrix
}

fn int_tile<const K: usize>(int: Int8, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    let left = gather_a::<K, 4>(|bits| bytes(bits, int.a_signed), a);
    let right = gather_b::<K, 4>(|bits| bytes(bits, int.b_signed), b);
    // 32 products of bytes stay below 2^24: sums in f32 are exact, and only the addition of C can overflow.
    let mut sums = [[0.0; 8]; 16];
    accumulate(&left, &right, &mut sums);
    scatter(&sums, |register, lane, sum| {
        let (start, sum) = (c[register][lane] as i32, sum as i32);
        (if int.saturate { start.saturating_add(sum) } else { start.wrapping_add(sum) }) as u32
    })
}

fn bytes(bits: u32, signed: bool) -> [f32; 4] {
    bits.to_le_bytes().map(|byte| if signed { f32::from(byte as i8) } else { f32::from(byte) })
}
