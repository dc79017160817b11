//! Conversions and half-precision arithmetic.

use super::data::{Random, case, output, words};
use super::{Case, Param, Target};
use crate::tensor::float::{self, Half, Narrowing, Rounding};

const SM80: (&str, &str, Target) = ("convert.ptx", include_str!("ptx/convert.ptx"), Target::Sm80);
const SM90: (&str, &str, Target) = ("widen.ptx", include_str!("ptx/widen.ptx"), Target::Sm90);
const THREADS: u32 = 256;

pub(super) fn cases() -> Vec<Case> {
    vec![narrow(), half_fma(), widen()]
}

/// Numbers at and beside the places where roundings change, then random ones.
fn inputs() -> Vec<u32> {
    let mut random = Random(100);
    let magnitudes = [
        0u32,
        1,
        0x0000_8000,
        0x007f_ffff,
        0x0080_0000,
        // Around half the smallest subnormal of f16, the smallest itself, and the smallest normal.
        0x3300_0000,
        0x3380_0000,
        0x387f_e000,
        0x3880_0000,
        0x3f00_0000,
        0x3fc0_0000,
        // Ties of bf16 and of f16, below an even and an odd neighbour.
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_1000,
        0x3f80_3000,
        // The largest f16, and the tie above it.
        0x477f_e000,
        0x477f_f000,
        0x4b00_0001,
        0x4eff_ffff,
        0x4f00_0000,
        // The largest bf16 and the tie above it.
        0x7f7f_0000,
        0x7f7f_8000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
        0x7f80_0001,
    ];
    let beside = magnitudes.iter().flat_map(|&bits| [bits, bits + 1, bits.saturating_sub(1)]);
    let signed: Vec<u32> = beside.flat_map(|bits| [bits, bits | 0x8000_0000]).collect();
    let ties = (0..200).map(|_| random.next() as u32 & 0xffff_9000).collect::<Vec<_>>();
    let wide = (0..400).map(|_| random.next() as u32).collect::<Vec<_>>();
    // Between 2^-31 and 2^32, where integers and f16 are.
    let middle =
        (0..).map(|_| (random.next() as u32 & 0x9fff_ffff) | 0x2000_0000).map(|bits| bits + 0x1000_0000);
    signed.into_iter().chain(ties).chain(wide).chain(middle).take(1024).collect()
}

fn narrow() -> Case {
    let relu = Narrowing { relu: true, ..Narrowing::default() };
    let nearest = Narrowing::default();
    let zero = Narrowing::rounding(Rounding::Zero);
    let results = |bits: u32| {
        let x = f32::from_bits(bits);
        [
            u32::from(float::f32_to_f16(x, nearest)),
            u32::from(float::f32_to_f16(x, zero)),
            u32::from(float::f32_to_bf16(x, nearest)),
            u32::from(float::f32_to_bf16(x, zero)),
            float::f32_to_tf32(x, Narrowing::rounding(Rounding::NearestAway)),
            u32::from(float::f32_to_f16(x, relu)),
            float::f32_to_bf16x2(x, 1.5, nearest),
            float::f32_to_bf16x2(1.5, x, relu),
            float::f32_to_f16x2(x, 1.5, nearest),
            // As casts of Rust: NaN is 0, and numbers out of range are the nearest in it.
            x as i32 as u32,
            x.round_ties_even() as i32 as u32,
            float::f32_bits(x.floor()),
        ]
    };
    let inputs = inputs();
    let expected = words(inputs.iter().flat_map(|&bits| results(bits)));
    let grid = inputs.len() as u32 / THREADS;
    let params = vec![Param::Input(words(inputs)), output(expected)];
    Case { grid, ..case("narrow", SM80, "narrow", THREADS, params) }
}

fn half_fma() -> Case {
    let mut random = Random(101);
    let inputs: Vec<[u16; 4]> = (0..1024)
        .map(|index| {
            let mut values = [(); 4].map(|()| random.next() as u16);
            if index % 2 == 0 {
                // Exponents near one, so that sums round where both terms count.
                values = values.map(|bits| (bits & 0x83ff) | 0x3c00);
            }
            values
        })
        .collect();
    let results = |[a, b, c, d]: [u16; 4]| {
        [Half::F16.fma(a, b, c), Half::Bf16.fma(a, b, c), Half::F16.add(a, d), Half::F16.mul(b, d)]
    };
    let bytes = |values: Vec<[u16; 4]>| values.into_iter().flatten().flat_map(u16::to_le_bytes).collect();
    let expected: Vec<u8> = bytes(inputs.iter().map(|&values| results(values)).collect());
    let grid = inputs.len() as u32 / THREADS;
    let params = vec![Param::Input(bytes(inputs)), output(expected)];
    Case { grid, ..case("half_fma", SM80, "half_fma", THREADS, params) }
}

fn widen() -> Case {
    // NaNs are left out: the ISA does not say what becomes of their payload.
    let numbers = (0..=u16::MAX).map(|bits| {
        let nan = Half::F16.widen(bits).is_nan() || Half::Bf16.widen(bits).is_nan();
        if nan { 0 } else { bits }
    });
    let numbers: Vec<u16> = numbers.collect();
    let expected = words(
        numbers.iter().flat_map(|&bits| [Half::F16, Half::Bf16].map(|half| half.widen(bits).to_bits())),
    );
    let grid = numbers.len() as u32 / THREADS;
    let input = numbers.into_iter().flat_map(u16::to_le_bytes).collect();
    Case { grid, ..case("widen", SM90, "widen", THREADS, vec![Param::Input(input), output(expected)]) }
}
