//! Products of a warpgroup out of shared memory, in all layouts.

use super::data::{Matrix, Random, case, output, product, words};
use super::{Case, Param, Target};
use crate::tensor::float::{self, Narrowing};
use crate::tensor::swizzle::Swizzle;
use crate::tensor::wgmma::Descriptor;

const WGMMA: (&str, &str, Target) = ("wgmma.ptx", include_str!("ptx/wgmma.ptx"), Target::Sm90a);
/// Bytes of shared memory that a kernel fills from memory.
const IMAGE: usize = 16384;
/// Where B begins.
const B_START: u32 = 8192;

/// A kernel of the module.
#[derive(Clone, Copy)]
struct Kernel {
    name: &'static str,
    n: usize,
    a_mn_major: bool,
    b_mn_major: bool,
    f16: bool,
    a_in_registers: bool,
    negated: bool,
}

const SQUARE: Kernel = Kernel {
    name: "wgmma_n64_kk",
    n: 64,
    a_mn_major: false,
    b_mn_major: false,
    f16: false,
    a_in_registers: false,
    negated: false,
};

const KERNELS: [Kernel; 7] = [
    SQUARE,
    Kernel { name: "wgmma_n64_kn", b_mn_major: true, ..SQUARE },
    Kernel { name: "wgmma_n64_mk", a_mn_major: true, ..SQUARE },
    Kernel { name: "wgmma_n64_mn", a_mn_major: true, b_mn_major: true, ..SQUARE },
    Kernel { name: "wgmma_n8_kk_f16", n: 8, f16: true, ..SQUARE },
    Kernel { name: "wgmma_n128_registers", n: 128, b_mn_major: true, a_in_registers: true, ..SQUARE },
    Kernel { name: "wgmma_n24_negated", n: 24, negated: true, ..SQUARE },
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for kernel in KERNELS {
        for (index, swizzle) in Swizzle::ALL.into_iter().enumerate() {
            let name = format!("{}_{}", kernel.name, ["none", "32b", "64b", "128b"][index]);
            all.push(wgmma(&name, kernel, swizzle, true));
        }
    }
    all.push(wgmma("wgmma_n64_kk_128b_overwrite", SQUARE, Swizzle::B128, false));
    all
}

impl Kernel {
    fn bits(self, value: f32) -> u16 {
        if self.f16 {
            float::f32_to_f16(value, Narrowing::default())
        } else {
            float::f32_to_bf16(value, Narrowing::default())
        }
    }
}

/// A dense operand: parts follow each other without gaps.
fn descriptor(start: u32, swizzle: Swizzle, mn_major: bool, extent: usize) -> Descriptor {
    let span = swizzle.span();
    let (leading, stride) = match (mn_major, swizzle) {
        // 16 bytes a row, eight rows together; the second half of k after all rows.
        (false, Swizzle::None) => (16 * extent as u32, 128),
        (false, _) => (16, 8 * span),
        // Eight of k by eight of M or N together; then the next of M or N; the second half of k after all.
        (true, Swizzle::None) => (16 * extent as u32, 128),
        // All of k together; then the next of M or N.
        (true, _) => (16 * span, 8 * span),
    };
    Descriptor { start, leading, stride, base_offset: 0, swizzle }
}

/// Byte offset of element `k` of row `i` of an operand: the canonical layouts of the ISA with T = 8, in
/// elements of 16 bits, then the swizzle.
fn element(d: &Descriptor, mn_major: bool, i: usize, k: usize) -> usize {
    let (lbo, sbo) = (d.leading as usize / 2, d.stride as usize / 2);
    let width = d.swizzle.span() as usize / 2;
    let plain = match (mn_major, d.swizzle) {
        (false, Swizzle::None) => i % 8 * 8 + i / 8 * sbo + k % 8 + k / 8 * lbo,
        (false, _) => i % 8 * width + i / 8 * sbo + k,
        (true, Swizzle::None) => i % 8 + i / 8 * sbo + k % 8 * 8 + k / 8 * lbo,
        (true, _) => i % width + i / width * lbo + k % 8 * width + k / 8 * sbo,
    };
    let address = d.start as usize + 2 * plain;
    // Swizzle<b, 4, 3> with 2^b chunks in the span.
    address ^ (address >> 3 & (d.swizzle.span() as usize - 16))
}

/// Registers of the accumulator, one after the other, of 128 threads each.
fn accumulators(matrix: &Matrix) -> Vec<u8> {
    let n = matrix[0].len();
    words((0..n / 2).flat_map(|register| {
        (0..128).map(move |thread| {
            let (warp, lane) = (thread / 32, thread % 32);
            let row = 16 * warp + lane / 4 + 8 * (register / 2 % 2);
            matrix[row][register / 4 * 8 + lane % 4 * 2 + register % 2].to_bits()
        })
    }))
}

/// Registers of A, likewise.
fn a_registers(kernel: Kernel, a: &Matrix) -> Vec<u8> {
    words((0..4).flat_map(|register| {
        (0..128).map(move |thread| {
            let (warp, lane) = (thread / 32, thread % 32);
            let row = 16 * warp + lane / 4 + 8 * (register % 2);
            let column = lane % 4 * 2 + 8 * (register / 2);
            u32::from(kernel.bits(a[row][column])) | u32::from(kernel.bits(a[row][column + 1])) << 16
        })
    }))
}

fn wgmma(name: &str, kernel: Kernel, swizzle: Swizzle, accumulate: bool) -> Case {
    let mut random = Random(900 + kernel.n as u64);
    let a = random.matrix(64, 16, Random::integer);
    let b = random.matrix(16, kernel.n, Random::integer);
    let c = random.matrix(64, kernel.n, Random::integer);
    let a_descriptor = descriptor(0, swizzle, kernel.a_mn_major, 64);
    let b_descriptor = descriptor(B_START, swizzle, kernel.b_mn_major, kernel.n);
    let mut image = random.bytes(IMAGE);
    for k in 0..16 {
        // A lies in one place only; the other holds noise.
        for (i, row) in a.iter().enumerate().filter(|_| !kernel.a_in_registers) {
            let at = element(&a_descriptor, kernel.a_mn_major, i, k);
            image[at..at + 2].copy_from_slice(&kernel.bits(row[k]).to_le_bytes());
        }
        for (j, value) in b[k].iter().enumerate() {
            let at = element(&b_descriptor, kernel.b_mn_major, j, k);
            image[at..at + 2].copy_from_slice(&kernel.bits(*value).to_le_bytes());
        }
    }
    let sign = if kernel.negated { -1.0 } else { 1.0 };
    let signed: Matrix = a.iter().map(|row| row.iter().map(|value| sign * value).collect()).collect();
    let start = if accumulate { c.clone() } else { vec![vec![0.0; kernel.n]; 64] };
    let params = vec![
        Param::Input(image),
        Param::Input(if kernel.a_in_registers { a_registers(kernel, &a) } else { random.bytes(2048) }),
        Param::Input(accumulators(&c)),
        output(accumulators(&product(&signed, &b, &start))),
        Param::Value(a_descriptor.encode().to_le_bytes().to_vec()),
        Param::Value(b_descriptor.encode().to_le_bytes().to_vec()),
        Param::Value(u32::from(accumulate).to_le_bytes().to_vec()),
    ];
    case(name, WGMMA, kernel.name, 128, params)
}
