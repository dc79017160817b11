use half::{bf16, f16};
use ptx_sim::tensor::Lanes;
use ptx_sim::tensor::float::Half;
use ptx_sim::tensor::mma::{Int8, MmaKind, mma};

use crate::{Random, product, random_matrix};

/// Row and column of element `i` of A in a lane, by the formulas of the ISA.
fn a_position(kind: MmaKind, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match kind {
        MmaKind::HalfK8(_) | MmaKind::F16AccK8 => {
            (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
        }
        MmaKind::HalfK16(_) | MmaKind::F16AccK16 => (
            if i < 2 || (4..6).contains(&i) { group } else { group + 8 },
            if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 },
        ),
        MmaKind::Tf32K4 => (if i == 0 { group } else { group + 8 }, thread),
        MmaKind::Tf32K8 => {
            (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
        }
        MmaKind::Int8K16(_) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        MmaKind::Int8K32(_) => (
            if i < 4 || (8..12).contains(&i) { group } else { group + 8 },
            if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 },
        ),
    }
}

/// Row and column of element `i` of B in a lane.
fn b_position(kind: MmaKind, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = match kind {
        MmaKind::HalfK8(_) | MmaKind::F16AccK8 => thread * 2 + i,
        MmaKind::HalfK16(_) | MmaKind::F16AccK16 => {
            if i < 2 {
                thread * 2 + (i & 1)
            } else {
                thread * 2 + (i & 1) + 8
            }
        }
        MmaKind::Tf32K4 => thread,
        MmaKind::Tf32K8 => thread + 4 * i,
        MmaKind::Int8K16(_) => thread * 4 + i,
        MmaKind::Int8K32(_) => {
            if i < 4 {
                thread * 4 + (i & 3)
            } else {
                thread * 4 + (i & 3) + 16
            }
        }
    };
    (row, group)
}

/// Row and column of element `i` of C or D in a lane.
fn c_position(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1))
}

/// Fills registers of `per` elements, each of 32 / `per` bits.
fn fragment(registers: usize, per: usize, element: impl Fn(usize, usize) -> u32) -> Vec<Lanes> {
    let width = 32 / per;
    (0..registers)
        .map(|register| {
            std::array::from_fn(|lane| {
                (0..per).fold(0, |bits, part| bits | element(lane, register * per + part) << (part * width))
            })
        })
        .collect()
}

fn half_bits(half: Half, value: f32) -> u32 {
    match half {
        Half::F16 => u32::from(f16::from_f32(value).to_bits()),
        Half::Bf16 => u32::from(bf16::from_f32(value).to_bits()),
    }
}

fn floats(kind: MmaKind) -> (usize, fn(f32) -> u32) {
    match kind {
        MmaKind::HalfK8(Half::Bf16) | MmaKind::HalfK16(Half::Bf16) => (2, |x| half_bits(Half::Bf16, x)),
        MmaKind::Tf32K4 | MmaKind::Tf32K8 => (1, f32::to_bits),
        _ => (2, |x| half_bits(Half::F16, x)),
    }
}

#[test]
fn float_products_agree_with_plain_loops() {
    let kinds = [
        MmaKind::HalfK8(Half::F16),
        MmaKind::HalfK8(Half::Bf16),
        MmaKind::HalfK16(Half::F16),
        MmaKind::HalfK16(Half::Bf16),
        MmaKind::F16AccK8,
        MmaKind::F16AccK16,
        MmaKind::Tf32K4,
        MmaKind::Tf32K8,
    ];
    let mut random = Random(10);
    for kind in kinds {
        let (a, b) = (random_matrix(&mut random, 16, kind.k()), random_matrix(&mut random, kind.k(), 8));
        let c = random_matrix(&mut random, 16, 8);
        let (per, bits) = floats(kind);
        let a_lanes = fragment(kind.a_registers(), per, |lane, i| {
            let (row, column) = a_position(kind, lane, i);
            bits(a[row][column])
        });
        let b_lanes = fragment(kind.b_registers(), per, |lane, i| {
            let (row, column) = b_position(kind, lane, i);
            bits(b[row][column])
        });
        let half_sums = kind.c_registers() == 2;
        let (c_per, c_bits): (usize, fn(f32) -> u32) =
            if half_sums { (2, |x| half_bits(Half::F16, x)) } else { (1, f32::to_bits) };
        let c_at = |matrix: &[Vec<f32>]| {
            fragment(kind.c_registers(), c_per, |lane, i| {
                let (row, column) = c_position(lane, i);
                c_bits(matrix[row][column])
            })
        };
        let mut expected = product(&a, &b);
        for (row, addends) in expected.iter_mut().zip(&c) {
            row.iter_mut().zip(addends).for_each(|(sum, addend)| *sum += addend);
        }
        let found = mma(kind, &a_lanes, &b_lanes, &c_at(&c));
        assert_eq!(found[..kind.c_registers()], c_at(&expected), "{kind:?}");
    }
}

#[test]
fn integer_products_agree_with_plain_loops() {
    let mut random = Random(11);
    for signs in 0..4 {
        let int = Int8 { a_signed: signs & 1 == 1, b_signed: signs & 2 == 2, saturate: false };
        for kind in [MmaKind::Int8K16(int), MmaKind::Int8K32(int)] {
            let mut bytes = |rows: usize, columns: usize| -> Vec<Vec<u8>> {
                (0..rows).map(|_| (0..columns).map(|_| random.next() as u8).collect()).collect()
            };
            let (a, b) = (bytes(16, kind.k()), bytes(kind.k(), 8));
            let start: Vec<Lanes> = (0..4).map(|_| std::array::from_fn(|_| random.next() as u32)).collect();
            let a_lanes = fragment(kind.a_registers(), 4, |lane, i| {
                let (row, column) = a_position(kind, lane, i);
                u32::from(a[row][column])
            });
            let b_lanes = fragment(kind.b_registers(), 4, |lane, i| {
                let (row, column) = b_position(kind, lane, i);
                u32::from(b[row][column])
            });
            let value = |byte: u8, signed: bool| if signed { i64::from(byte as i8) } else { i64::from(byte) };
            let found = mma(kind, &a_lanes, &b_lanes, &start);
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = c_position(lane, i);
                    let sum: i64 = (0..kind.k())
                        .map(|k| value(a[row][k], int.a_signed) * value(b[k][column], int.b_signed))
                        .sum();
                    let expected = (i64::from(start[i][lane] as i32) + sum) as u32;
                    assert_eq!(found[i][lane], expected, "{kind:?} lane {lane} element {i}");
                }
            }
        }
    }
}

#[test]
fn saturation_clamps_the_sum() {
    let int = Int8 { a_signed: true, b_signed: true, saturate: true };
    let ones = [[0x0101_0101; 32]; 4];
    let found = mma(MmaKind::Int8K32(int), &ones, &ones[..2], &[[i32::MAX as u32 - 5; 32]; 4]);
    assert_eq!(found, [[i32::MAX as u32; 32]; 4]);
    let wrapped = mma(
        MmaKind::Int8K32(Int8 { saturate: false, ..int }),
        &ones,
        &ones[..2],
        &[[i32::MAX as u32 - 5; 32]; 4],
    );
    assert_eq!(wrapped, [[(i32::MAX as u32 - 5).wrapping_add(32); 32]; 4]);
}

#[test]
fn nan_is_canonical_and_subnormals_count() {
    let kind = MmaKind::HalfK8(Half::F16);
    let nan = mma(kind, &[[0xfe01_fe01; 32]; 2], &[[0; 32]; 1], &[[0; 32]; 4]);
    assert_eq!(nan, [[0x7fff_ffff; 32]; 4]);
    // The smallest subnormal of f16 times one, eight times over.
    let tiny = mma(kind, &[[0x0001_0001; 32]; 2], &[[0x3c00_3c00; 32]; 1], &[[0; 32]; 4]);
    assert_eq!(tiny, [[2f32.powi(-21).to_bits(); 32]; 4]);
}

#[test]
fn tf32_ignores_the_lower_bits() {
    let (a, b) = ([[1.5f32.to_bits() | 0x1fff; 32]; 4], [[2f32.to_bits() | 0x1000; 32]; 2]);
    assert_eq!(mma(MmaKind::Tf32K8, &a, &b, &[[0; 32]; 4]), [[24f32.to_bits(); 32]; 4]);
}

#[test]
fn modifiers_name_the_products() {
    let parse = |text: &str| MmaKind::from_modifiers(&text.split('.').collect::<Vec<_>>());
    let int = Int8 { a_signed: false, b_signed: true, saturate: true };
    let legal = [
        ("m16n8k16.row.col.f32.bf16.bf16.f32", MmaKind::HalfK16(Half::Bf16)),
        ("m16n8k16.row.col.f32.f16.f16.f32", MmaKind::HalfK16(Half::F16)),
        ("m16n8k8.row.col.f32.bf16.bf16.f32", MmaKind::HalfK8(Half::Bf16)),
        ("m16n8k8.row.col.f32.f16.f16.f32", MmaKind::HalfK8(Half::F16)),
        ("m16n8k8.row.col.f16.f16.f16.f16", MmaKind::F16AccK8),
        ("m16n8k16.row.col.f16.f16.f16.f16", MmaKind::F16AccK16),
        ("m16n8k4.row.col.f32.tf32.tf32.f32", MmaKind::Tf32K4),
        ("m16n8k8.row.col.f32.tf32.tf32.f32", MmaKind::Tf32K8),
        ("m16n8k16.row.col.satfinite.s32.u8.s8.s32", MmaKind::Int8K16(int)),
        ("m16n8k32.row.col.satfinite.s32.u8.s8.s32", MmaKind::Int8K32(int)),
    ];
    for (text, kind) in legal {
        assert_eq!(parse(text), Some(kind), "{text}");
    }
    for text in [
        "m16n8k16.col.row.f32.bf16.bf16.f32",
        "m16n8k4.row.col.f32.bf16.bf16.f32",
        "m16n8k16.row.col.f32.bf16.f16.f32",
        "m16n8k16.row.col.f16.bf16.bf16.f16",
        "m16n8k16.row.col.satfinite.f32.bf16.bf16.f32",
        "m16n8k16",
        "",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}
