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

type Tile<T> = [[T; 8]; 16];

fn f32_tile(c: &[Lanes], product: impl FnOnce(&mut Tile<f32>)) -> [Lanes; 4] {
    let mut sums = [[0.0; 8]; 16];
    for (register, lanes) in c[..4].iter().enumerate() {
        for (lane, &bits) in lanes.iter().enumerate() {
            sums[lane / 4 + 8 * (register / 2)][2 * (lane % 4) + register % 2] = f32::from_bits(bits);
        }
    }
    product(&mut sums);
    std::array::from_fn(|register| {
        std::array::from_fn(|lane| {
            float::f32_bits(sums[lane / 4 + 8 * (register / 2)][2 * (lane % 4) + register % 2])
        })
    })
}

fn f16_tile(c: &[Lanes], product: impl FnOnce(&mut Tile<f32>)) -> [Lanes; 4] {
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

fn half_product<const K: usize>(half: Half, a: &[Lanes], b: &[Lanes], sums: &mut Tile<f32>) {
    match half {
        Half::F16 => float_product::<K, 2>(|bits| float::unpack(bits).map(float::f16_to_f32), a, b, sums),
        Half::Bf16 => float_product::<K, 2>(|bits| float::unpack(bits).map(float::bf16_to_f32), a, b, sums),
    }
}

fn tf32_product<const K: usize>(a: &[Lanes], b: &[Lanes], sums: &mut Tile<f32>) {
    float_product::<K, 1>(|bits| [float::tf32_to_f32(bits)], a, b, sums);
}

/// Gathers the fragments into dense matrices and adds their product, E elements to a register.
fn float_product<const K: usize, const E: usize>(
    widen: impl Fn(u32) -> [f32; E] + Copy,
    a: &[Lanes],
    b: &[Lanes],
    sums: &mut Tile<f32>,
) {
    let left = gather_a::<f32, K, E>(widen, a);
    let right = gather_b::<f32, K, E>(widen, b);
    for (row, sum) in left.iter().zip(sums) {
        for (&factor, terms) in row.iter().zip(&right) {
            for (cell, term) in sum.iter_mut().zip(terms) {
                *cell += factor * term;
            }
        }
    }
}

fn gather_a<T: Copy + Default, const K: usize, const E: usize>(
    widen: impl Fn(u32) -> [T; E],
    a: &[Lanes],
) -> [[T; K]; 16] {
    let mut matrix = [[T::default(); K]; 16];
    for (register, lanes) in a[..K / (2 * E)].iter().enumerate() {
        for (lane, &bits) in lanes.iter().enumerate() {
            let column = E * (lane % 4) + 4 * E * (register / 2);
            matrix[lane / 4 + 8 * (register % 2)][column..column + E].copy_from_slice(&widen(bits));
        }
    }
    matrix
}

fn gather_b<T: Copy + Default, const K: usize, const E: usize>(
    widen: impl Fn(u32) -> [T; E],
    b: &[Lanes],
) -> [[T; 8]; K] {
    let mut matrix = [[T::default(); 8]; K];
    for (register, lanes) in b[..K / (4 * E)].iter().enumerate() {
        for (lane, &bits) in lanes.iter().enumerate() {
            let row = E * (lane % 4) + 4 * E * register;
            for (element, value) in widen(bits).into_iter().enumerate() {
                matrix[row + element][lane / 4] = value;
            }
        }
    }
    matrix
}

fn int_tile<const K: usize>(int: Int8, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    let left = gather_a::<i32, K, 4>(|bits| bytes(bits, int.a_signed), a);
    let right = gather_b::<i32, K, 4>(|bits| bytes(bits, int.b_signed), b);
    // 32 products of bytes stay far below 2^31, so only the addition of C can overflow.
    let mut sums: Tile<i32> = [[0; 8]; 16];
    for (row, sum) in left.iter().zip(&mut sums) {
        for (&factor, terms) in row.iter().zip(&right) {
            for (cell, term) in sum.iter_mut().zip(terms) {
                *cell += factor * term;
            }
        }
    }
    std::array::from_fn(|register| {
        std::array::from_fn(|lane| {
            let sum = sums[lane / 4 + 8 * (register / 2)][2 * (lane % 4) + register % 2];
            let start = c[register][lane] as i32;
            (if int.saturate { start.saturating_add(sum) } else { start.wrapping_add(sum) }) as u32
        })
    })
}

fn bytes(bits: u32, signed: bool) -> [i32; 4] {
    bits.to_le_bytes().map(|byte| if signed { i32::from(byte as i8) } else { i32::from(byte) })
}
