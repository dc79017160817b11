use std::convert::Infallible;

use half::{bf16, f16};
use ptx_sim::tensor::Lanes;
use ptx_sim::tensor::float::Half;
use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma::{CopyError, Source};
use ptx_sim::tensor::tma_map::{DataType, OobFill, TensorMap, TensorSpec};
use ptx_sim::tensor::wgmma::{
    Columns, Descriptor, DescriptorError, Left, Major, Operand, Sign, Wgmma, wgmma,
};

use crate::{Random, product, random_matrix};

fn bits(half: Half, value: f32) -> u16 {
    match half {
        Half::F16 => f16::from_f32(value).to_bits(),
        Half::Bf16 => bf16::from_f32(value).to_bits(),
    }
}

fn at(memory: &[u8], address: u32) -> Result<[u8; 16], Infallible> {
    Ok(memory[address as usize..][..16].try_into().expect("16 bytes"))
}

/// A mode of a layout: extents and strides, first fastest, in elements.
type Mode = [(usize, usize); 3];

fn offset(mode: Mode, mut index: usize) -> usize {
    let mut sum = 0;
    for (extent, stride) in mode {
        sum += index % extent * stride;
        index /= extent;
    }
    sum
}

/// The canonical layout table of the ISA for 16-bit elements, T = 8: modes of the M or N index and of k.
fn canonical(major: Major, swizzle: Swizzle, lbo: usize, sbo: usize) -> (Mode, Mode) {
    const T: usize = 8;
    const REST: usize = 64;
    match (major, swizzle) {
        (Major::Mn, Swizzle::None) => ([(T, 1), (1, T), (REST, sbo)], [(8, T), (REST, lbo), (1, 0)]),
        (Major::Mn, Swizzle::B32) => ([(T, 1), (2, T), (REST, lbo)], [(8, 2 * T), (REST, sbo), (1, 0)]),
        (Major::Mn, Swizzle::B64) => ([(T, 1), (4, T), (REST, lbo)], [(8, 4 * T), (REST, sbo), (1, 0)]),
        (Major::Mn, Swizzle::B128) => ([(T, 1), (8, T), (REST, lbo)], [(8, 8 * T), (REST, sbo), (1, 0)]),
        (Major::K, Swizzle::None) => ([(8, T), (REST, sbo), (1, 0)], [(T, 1), (REST, lbo), (1, 0)]),
        (Major::K, Swizzle::B32) => ([(8, 2 * T), (REST, sbo), (1, 0)], [(T, 1), (REST, T), (1, 0)]),
        (Major::K, Swizzle::B64) => ([(8, 4 * T), (REST, sbo), (1, 0)], [(T, 1), (REST, T), (1, 0)]),
        (Major::K, Swizzle::B128) => ([(8, 8 * T), (REST, sbo), (1, 0)], [(T, 1), (REST, T), (1, 0)]),
    }
}

/// `Swizzle<b, 4, 3>` on a byte address.
fn swizzled(swizzle: Swizzle, address: usize) -> usize {
    let b = match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => 1,
        Swizzle::B64 => 2,
        Swizzle::B128 => 3,
    };
    let mask = ((1 << b) - 1) << 7;
    address ^ ((address & mask) >> 3)
}

/// Byte offsets that keep the parts of an operand apart, whatever its layout.
const LEADING: u32 = 8192;
const STRIDE: u32 = 1024 + 1024;

/// Puts a matrix, rows of M or N by k, into memory at `start`.
fn place(memory: &mut [u8], half: Half, operand: Operand, matrix: &[Vec<f32>]) {
    let Descriptor { start, leading, stride, swizzle, .. } = operand.descriptor;
    let (mn_mode, k_mode) = canonical(operand.major, swizzle, leading as usize / 2, stride as usize / 2);
    for (i, row) in matrix.iter().enumerate() {
        for (k, &value) in row.iter().enumerate() {
            let plain = start as usize + 2 * (offset(mn_mode, i) + offset(k_mode, k));
            let address = swizzled(swizzle, plain);
            assert_eq!(memory[address..address + 2], [0xee; 2], "two elements share a place");
            memory[address..address + 2].copy_from_slice(&bits(half, value).to_le_bytes());
        }
    }
}

/// The instruction in all four warps, each with its registers of A if that is where A is.
fn run<E>(
    op: &Wgmma<'_>,
    a: Option<&[Lanes; 16]>,
    d: &mut [Lanes],
    mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<(), E> {
    for (warp, accumulators) in d.chunks_exact_mut(op.columns.registers()).enumerate() {
        let left = a.map_or(op.a, |registers| Left::Registers(&registers.as_chunks().0[warp]));
        wgmma(&Wgmma { a: left, ..*op }, warp, accumulators, &mut read)?;
    }
    Ok(())
}

/// Stands for registers that `run` puts in.
const NO_REGISTERS: Left<'static> = Left::Registers(&[[0; 32]; 4]);

fn transposed(matrix: &[Vec<f32>]) -> Vec<Vec<f32>> {
    (0..matrix[0].len()).map(|column| matrix.iter().map(|row| row[column]).collect()).collect()
}

/// Registers of the four warps from a 64-row matrix, by the figure of the ISA for D.
fn accumulators(matrix: &[Vec<f32>]) -> Vec<Lanes> {
    let registers = matrix[0].len() / 2;
    let mut lanes = vec![[0; 32]; 4 * registers];
    for (row, values) in matrix.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let warp = row / 16;
            let lane = (row % 8) * 4 + (column % 8) / 2;
            let register = (column / 8) * 4 + (row % 16 / 8) * 2 + column % 2;
            lanes[warp * registers + register][lane] = value.to_bits();
        }
    }
    lanes
}

fn a_registers(half: Half, matrix: &[Vec<f32>]) -> [Lanes; 16] {
    std::array::from_fn(|index| {
        std::array::from_fn(|lane| {
            let (warp, register) = (index / 4, index % 4);
            let row = 16 * warp + (lane >> 2) + if register % 2 == 1 { 8 } else { 0 };
            let column = (lane & 3) * 2 + if register >= 2 { 8 } else { 0 };
            u32::from(bits(half, matrix[row][column])) | u32::from(bits(half, matrix[row][column + 1])) << 16
        })
    })
}

fn operand(start: u32, swizzle: Swizzle, major: Major) -> Operand {
    let (leading, stride) = match (major, swizzle) {
        // Chunks of M or N follow each other at the stride, so it is the small one.
        (Major::Mn, Swizzle::None) => (LEADING, 128),
        (Major::K, Swizzle::None) => (LEADING, 128),
        _ => (LEADING, STRIDE),
    };
    Operand { descriptor: Descriptor { start, leading, stride, base_offset: 0, swizzle }, major }
}

#[test]
fn every_layout_multiplies_as_plain_loops_do() {
    let mut random = Random(50);
    for (index, n) in [8, 24, 64, 128, 256].into_iter().enumerate() {
        let columns = Columns::new(n).expect("a legal shape");
        let half = if index % 2 == 0 { Half::Bf16 } else { Half::F16 };
        for major_a in [Major::K, Major::Mn] {
            for major_b in [Major::K, Major::Mn] {
                for swizzle in Swizzle::ALL {
                    let a = random_matrix(&mut random, 64, 16);
                    let b = random_matrix(&mut random, 16, n as usize);
                    let c = random_matrix(&mut random, 64, n as usize);
                    let mut memory = vec![0xee; 1 << 18];
                    let (left, right) = (operand(1024, swizzle, major_a), operand(1 << 17, swizzle, major_b));
                    place(&mut memory, half, left, &a);
                    place(&mut memory, half, right, &transposed(&b));
                    let op = Wgmma {
                        half,
                        columns,
                        a: Left::Shared(left),
                        b: right,
                        accumulate: true,
                        a_sign: Sign::Plus,
                        b_sign: Sign::Plus,
                    };
                    let mut d = accumulators(&c);
                    let Ok(()) = run(&op, None, &mut d, |address| at(&memory, address));
                    let mut expected = product(&a, &b);
                    for (row, addends) in expected.iter_mut().zip(&c) {
                        row.iter_mut().zip(addends).for_each(|(sum, addend)| *sum += addend);
                    }
                    assert!(d == accumulators(&expected), "n {n} {major_a:?} {major_b:?} {swizzle:?}");

                    let from_registers = a_registers(half, &a);
                    let mut d = vec![[f32::NAN.to_bits(); 32]; 4 * columns.registers()];
                    let op = Wgmma { a: NO_REGISTERS, accumulate: false, b_sign: Sign::Minus, ..op };
                    let Ok(()) = run(&op, Some(&from_registers), &mut d, |address| at(&memory, address));
                    let mut negated = product(&a, &b);
                    negated.iter_mut().flatten().for_each(|sum| *sum = 0.0 - *sum);
                    assert!(d == accumulators(&negated), "n {n} {major_b:?} {swizzle:?} from registers");
                }
            }
        }
    }
}

/// Loads a box of `rows` by one swizzle span of a row-major bf16 matrix into shared memory.
fn tensor_load(
    matrix: &[Vec<f32>],
    swizzle: Swizzle,
    corner: [i32; 2],
    rows: u32,
    start: u32,
    memory: &mut [u8],
) {
    let pitch = matrix[0].len();
    let global: Vec<u8> =
        matrix.iter().flatten().flat_map(|&value| bits(Half::Bf16, value).to_le_bytes()).collect();
    let map = TensorMap::new(TensorSpec {
        dtype: DataType::Bf16,
        rank: 2,
        address: 0,
        dims: [pitch as u64, matrix.len() as u64, 1, 1, 1],
        strides: [2 * pitch as u64, 0, 0, 0],
        box_dims: [swizzle.span() / 2, rows, 1, 1, 1],
        element_strides: [1; 5],
        swizzle,
        fill: OobFill::Zero,
    })
    .expect("a legal map");
    map.load(&corner, start, |piece| {
        let target = &mut memory[piece.shared as usize..][..piece.bytes as usize];
        match piece.source {
            Source::Global(from) => target.copy_from_slice(&global[from as usize..][..target.len()]),
            Source::Fill(_) => target.fill(0),
        }
        Ok::<_, CopyError>(())
    })
    .expect("a legal copy");
}

/// The main loop of a Hopper kernel: boxes of 64 of k by tensor copies, four products along each line of the
/// swizzle, the start address advancing by 32 bytes.
#[test]
fn tensor_copies_feed_k_major_products() {
    let mut random = Random(51);
    for swizzle in [Swizzle::B32, Swizzle::B64, Swizzle::B128] {
        let k = swizzle.span() as usize / 2;
        let (a, b) = (random_matrix(&mut random, 64, 2 * k), random_matrix(&mut random, 96, 2 * k));
        let columns = Columns::new(96).expect("a legal shape");
        let mut d = vec![[0; 32]; 4 * columns.registers()];
        let mut memory = vec![0; 1 << 16];
        for step in 0..2 {
            let corner = [(step * k) as i32, 0];
            tensor_load(&a, swizzle, corner, 64, 1024, &mut memory);
            tensor_load(&b, swizzle, corner, 96, 32768, &mut memory);
            for slice in 0..k as u32 / 16 {
                let operand = |start: u32| Operand {
                    descriptor: Descriptor {
                        start: start + 32 * slice,
                        leading: 16,
                        stride: 8 * swizzle.span(),
                        base_offset: 0,
                        swizzle,
                    },
                    major: Major::K,
                };
                let op = Wgmma {
                    half: Half::Bf16,
                    columns,
                    a: Left::Shared(operand(1024)),
                    b: operand(32768),
                    accumulate: true,
                    a_sign: Sign::Plus,
                    b_sign: Sign::Plus,
                };
                let Ok(()) = run(&op, None, &mut d, |address| at(&memory, address));
            }
        }
        assert!(d == accumulators(&product(&a, &transposed(&b))), "{swizzle:?}");
    }
}

/// B as it lies in memory, rows of k: two boxes of 64 columns, read N-major.
#[test]
fn tensor_copies_feed_n_major_products() {
    let mut random = Random(52);
    let (a, b) = (random_matrix(&mut random, 64, 16), random_matrix(&mut random, 16, 128));
    let columns = Columns::new(128).expect("a legal shape");
    let mut memory = vec![0; 1 << 16];
    for half in 0..2 {
        tensor_load(&b, Swizzle::B128, [64 * half, 0], 16, 4096 + 2048 * half as u32, &mut memory);
    }
    let right = Operand {
        descriptor: Descriptor {
            start: 4096,
            leading: 2048,
            stride: 1024,
            base_offset: 0,
            swizzle: Swizzle::B128,
        },
        major: Major::Mn,
    };
    let left = a_registers(Half::Bf16, &a);
    let op = Wgmma {
        half: Half::Bf16,
        columns,
        a: NO_REGISTERS,
        b: right,
        accumulate: false,
        a_sign: Sign::Plus,
        b_sign: Sign::Plus,
    };
    let mut d = vec![[0; 32]; 4 * columns.registers()];
    let mut reads = 0;
    let Ok(()) = run(&op, Some(&left), &mut d, |address| {
        reads += 1;
        at(&memory, address)
    });
    assert!(d == accumulators(&product(&a, &b)));
    assert_eq!(reads, 4 * 16 * 128 * 2 / 16, "each warp reads each chunk once");
}

#[test]
fn a_base_offset_moves_the_pattern() {
    let mut random = Random(53);
    let b = random_matrix(&mut random, 8, 16);
    let plain = operand(1024, Swizzle::B128, Major::K);
    let mut memory = vec![0xee; 1 << 14];
    place(&mut memory, Half::Bf16, plain, &b);
    // The same bytes three lines later, pattern included.
    let mut moved = vec![0xee; 1 << 14];
    moved[384..].copy_from_slice(&memory[..(1 << 14) - 384]);
    let late =
        Operand { descriptor: Descriptor { start: 1408, base_offset: 3, ..plain.descriptor }, ..plain };
    let a = a_registers(Half::Bf16, &random_matrix(&mut random, 64, 16));
    let result = |b: Operand, memory: &[u8]| {
        let op = Wgmma {
            half: Half::Bf16,
            columns: Columns::new(8).expect("a legal shape"),
            a: NO_REGISTERS,
            b,
            accumulate: false,
            a_sign: Sign::Plus,
            b_sign: Sign::Plus,
        };
        let mut d = vec![[0; 32]; 16];
        let Ok(()) = run(&op, Some(&a), &mut d, |address| at(memory, address));
        d
    };
    assert_eq!(result(late, &moved), result(plain, &memory));
}

#[test]
fn descriptors_are_the_bits_of_the_isa() {
    let descriptor =
        Descriptor { start: 0x1_2340, leading: 0x10, stride: 1024, base_offset: 5, swizzle: Swizzle::B64 };
    let expected = 0x1234u64 | 1 << 16 | 64 << 32 | 5 << 49 | 2 << 62;
    assert_eq!(descriptor.encode(), expected);
    assert_eq!(Descriptor::decode(expected), Ok(descriptor));
    for (code, swizzle) in [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32].into_iter().enumerate()
    {
        assert_eq!(Descriptor::decode((code as u64) << 62).map(|decoded| decoded.swizzle), Ok(swizzle));
    }
    assert_eq!(Descriptor::decode(1 << 14), Err(DescriptorError::Reserved(1 << 14)));
    assert_eq!(Descriptor::decode(1 << 49), Err(DescriptorError::BaseOffset(1 << 49)));
    assert_eq!(Columns::new(0), None);
    assert_eq!(Columns::new(12), None);
    assert_eq!(Columns::new(264), None);
}

#[test]
fn a_failed_read_is_handed_on() {
    let op = Wgmma {
        half: Half::Bf16,
        columns: Columns::new(8).expect("a legal shape"),
        a: NO_REGISTERS,
        b: operand(1024, Swizzle::None, Major::K),
        accumulate: true,
        a_sign: Sign::Plus,
        b_sign: Sign::Plus,
    };
    assert_eq!(wgmma(&op, 3, &mut [[0; 32]; 4], Err::<[u8; 16], u32>), Err(1024));
}
