//! Products of fragments, and fragments to and from shared memory.

use super::data::{Matrix, Random, case, output, product, words};
use super::{Case, Comparison, Param, Target};
use crate::tensor::float::{self, Narrowing};

const MMA: (&str, &str, Target) = ("mma.ptx", include_str!("ptx/mma.ptx"), Target::Sm80);
const LOAD: (&str, &str, Target) = ("ldmatrix.ptx", include_str!("ptx/ldmatrix.ptx"), Target::Sm80);
const STORE: (&str, &str, Target) = ("stmatrix.ptx", include_str!("ptx/stmatrix.ptx"), Target::Sm90);

pub(super) fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = FLOATS.iter().flat_map(|kind| [exact(kind), rounded(kind)]).flatten().collect();
    all.extend(INTEGERS.iter().map(integers));
    let counts = [1, 2, 4];
    let load = ["ldmatrix_x1", "ldmatrix_x2", "ldmatrix_x4"];
    let load_trans = ["ldmatrix_x1_trans", "ldmatrix_x2_trans", "ldmatrix_x4_trans"];
    let store = ["stmatrix_x1", "stmatrix_x2", "stmatrix_x4"];
    let store_trans = ["stmatrix_x1_trans", "stmatrix_x2_trans", "stmatrix_x4_trans"];
    for (index, count) in counts.into_iter().enumerate() {
        all.push(ldmatrix(load[index], count, false));
        all.push(ldmatrix(load_trans[index], count, true));
        all.push(stmatrix(store[index], count, false));
        all.push(stmatrix(store_trans[index], count, true));
    }
    all
}

/// Bits of a number in an operand.
#[derive(Clone, Copy)]
enum Element {
    F16,
    Bf16,
    Tf32,
}

impl Element {
    fn bits(self, value: f32) -> u32 {
        match self {
            Self::F16 => u32::from(float::f32_to_f16(value, Narrowing::default())),
            Self::Bf16 => u32::from(float::f32_to_bf16(value, Narrowing::default())),
            Self::Tf32 => value.to_bits(),
        }
    }

    fn per_register(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::Tf32 => 1,
        }
    }
}

struct FloatKind {
    kernel: &'static str,
    k: usize,
    element: Element,
    half_sums: bool,
}

const fn float_kind(kernel: &'static str, k: usize, element: Element) -> FloatKind {
    FloatKind { kernel, k, element, half_sums: false }
}

const FLOATS: [FloatKind; 7] = [
    float_kind("mma_bf16_k8", 8, Element::Bf16),
    float_kind("mma_bf16_k16", 16, Element::Bf16),
    float_kind("mma_f16_k8", 8, Element::F16),
    float_kind("mma_f16_k16", 16, Element::F16),
    FloatKind { half_sums: true, ..float_kind("mma_f16_acc_k16", 16, Element::F16) },
    float_kind("mma_tf32_k4", 4, Element::Tf32),
    float_kind("mma_tf32_k8", 8, Element::Tf32),
];

/// Registers of all lanes: `position` gives row and column of an element, by its lane and its number in the
/// fragment; `element` its bits.
fn fragment(
    registers: usize,
    per_register: usize,
    position: impl Fn(usize, usize) -> (usize, usize),
    element: impl Fn(usize, usize) -> u32,
) -> Vec<u8> {
    let register = |index: usize, lane: usize| {
        (0..per_register).fold(0, |bits, part| {
            let (row, column) = position(lane, index * per_register + part);
            bits | element(row, column) << (part * 32 / per_register)
        })
    };
    words(
        (0..registers).flat_map(|index| (0..32).map(move |lane| (index, lane))).map(|(i, l)| register(i, l)),
    )
}

/// Element `i` of a fragment of A with `e` elements a register.
fn a_position(e: usize, lane: usize, i: usize) -> (usize, usize) {
    let lower = i / e % 2 == 1;
    let right = i / (2 * e);
    (lane / 4 + if lower { 8 } else { 0 }, lane % 4 * e + i % e + right * 4 * e)
}

/// Element `i` of a fragment of B.
fn b_position(e: usize, lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * e + i % e + i / e * 4 * e, lane / 4)
}

/// Element `i` of a fragment of C or D.
fn c_position(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane / 4 } else { lane / 4 + 8 }, lane % 4 * 2 + i % 2)
}

fn float_case(kind: &FloatKind, name: String, [a, b, c]: [Matrix; 3], comparison: Comparison) -> Case {
    let e = kind.element.per_register();
    let element = kind.element;
    let sums = if kind.half_sums { (2, 2, Element::F16) } else { (4, 1, Element::Tf32) };
    let tile = |m: &Matrix| fragment(sums.0, sums.1, c_position, |row, column| sums.2.bits(m[row][column]));
    let d = product(&a, &b, &c);
    let params = vec![
        Param::Input(fragment(kind.k / (2 * e), e, |l, i| a_position(e, l, i), |r, k| element.bits(a[r][k]))),
        Param::Input(fragment(kind.k / (4 * e), e, |l, i| b_position(e, l, i), |k, j| element.bits(b[k][j]))),
        Param::Input(tile(&c)),
        Param::Output { initial: vec![0xa5; 128 * sums.0], expected: tile(&d), comparison },
    ];
    case(name, MMA, kind.kernel, 32, params)
}

/// Operands whose sums are exact in any order.
fn exact(kind: &FloatKind) -> Option<Case> {
    let mut random = Random(200 + kind.k as u64);
    let a = random.matrix(16, kind.k, Random::integer);
    let b = random.matrix(kind.k, 8, Random::integer);
    let c = random.matrix(16, 8, Random::integer);
    Some(float_case(kind, format!("{}_exact", kind.kernel), [a, b, c], Comparison::Exact))
}

/// Operands whose sums round.
fn rounded(kind: &FloatKind) -> Option<Case> {
    if kind.half_sums {
        return None;
    }
    let mut random = Random(300 + kind.k as u64);
    let a = random.matrix(16, kind.k, Random::fraction);
    let b = random.matrix(kind.k, 8, Random::fraction);
    let c = random.matrix(16, 8, |random| random.integer() / 3.0);
    // The terms are below 4; a card keeps at least 23 bits of the largest.
    let comparison = Comparison::Within(2f32.powi(-17));
    Some(float_case(kind, format!("{}_rounded", kind.kernel), [a, b, c], comparison))
}

struct IntegerKind {
    kernel: &'static str,
    k: usize,
    a_signed: bool,
    saturate: bool,
}

const INTEGERS: [IntegerKind; 4] = [
    IntegerKind { kernel: "mma_s8_k16", k: 16, a_signed: true, saturate: false },
    IntegerKind { kernel: "mma_s8_k32", k: 32, a_signed: true, saturate: false },
    IntegerKind { kernel: "mma_u8_s8_k32", k: 32, a_signed: false, saturate: false },
    IntegerKind { kernel: "mma_s8_satfinite_k32", k: 32, a_signed: true, saturate: true },
];

fn integers(kind: &IntegerKind) -> Case {
    let mut random = Random(400 + kind.k as u64);
    let (a, b) = (random.bytes(16 * kind.k), random.bytes(kind.k * 8));
    // Half of the sums begin near the ends of the range.
    let c: Vec<i32> = (0..128)
        .map(|index| match index % 4 {
            0 => i32::MAX - random.below(1000) as i32,
            1 => i32::MIN + random.below(1000) as i32,
            _ => random.next() as i32,
        })
        .collect();
    let d = |row: usize, column: usize| {
        let term = |k: usize| {
            let byte = a[row * kind.k + k];
            let x = if kind.a_signed { i64::from(byte as i8) } else { i64::from(byte) };
            x * i64::from(b[k * 8 + column] as i8)
        };
        let sum = i64::from(c[8 * row + column]) + (0..kind.k).map(term).sum::<i64>();
        if kind.saturate { sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32 } else { sum as u32 }
    };
    let params = vec![
        Param::Input(fragment(
            kind.k / 8,
            4,
            |l, i| a_position(4, l, i),
            |r, k| u32::from(a[r * kind.k + k]),
        )),
        Param::Input(fragment(kind.k / 16, 4, |l, i| b_position(4, l, i), |k, j| u32::from(b[k * 8 + j]))),
        Param::Input(fragment(4, 1, c_position, |row, column| c[8 * row + column] as u32)),
        output(fragment(4, 1, c_position, d)),
    ];
    case(kind.kernel, MMA, kind.kernel, 32, params)
}

/// Row addresses in 512 bytes, in no order; no two alike.
fn rows() -> [u32; 32] {
    std::array::from_fn(|lane| (lane * 11 + 3) as u32 % 32 * 16)
}

/// Row of the matrix and element of the row that the half `part` of the register of `lane` holds.
fn element_of(lane: usize, part: usize, trans: bool) -> (usize, usize) {
    let (group, pair) = (lane / 4, 2 * (lane % 4) + part);
    if trans { (pair, group) } else { (group, pair) }
}

/// Where in shared memory the half `part` of register `index` of `lane` lies.
fn place(index: usize, lane: usize, part: usize, trans: bool) -> usize {
    let (row, column) = element_of(lane, part, trans);
    rows()[8 * index + row] as usize + 2 * column
}

fn ldmatrix(kernel: &'static str, count: usize, trans: bool) -> Case {
    let memory = Random(500).bytes(512);
    let half = |index: usize, lane: usize, part: usize| {
        let at = place(index, lane, part, trans);
        u32::from(memory[at]) | u32::from(memory[at + 1]) << 8
    };
    let expected = words((0..count).flat_map(|index| {
        let half = &half;
        (0..32).map(move |lane| half(index, lane, 0) | half(index, lane, 1) << 16)
    }));
    let params = vec![Param::Input(memory.clone()), Param::Input(words(rows())), output(expected)];
    case(kernel, LOAD, kernel, 32, params)
}

fn stmatrix(kernel: &'static str, count: usize, trans: bool) -> Case {
    let registers = Random(501).bytes(128 * count);
    let mut memory = vec![0xff; 512];
    for (at, pair) in registers.as_chunks::<2>().0.iter().enumerate() {
        let (index, lane, part) = (at / 64, at / 2 % 32, at % 2);
        let to = place(index, lane, part, trans);
        memory[to..to + 2].copy_from_slice(pair);
    }
    let params = vec![Param::Input(registers), Param::Input(words(rows())), output(memory)];
    case(kernel, STORE, kernel, 32, params)
}
