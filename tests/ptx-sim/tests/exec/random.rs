//! Random operands of integer and logic instructions, against plain Rust.

use super::words;
use proptest::prelude::*;

type Reference = fn(u32, u32, u32) -> u32;

const INSTRUCTIONS: &[(&str, Reference)] =
    &[
        ("add.u32 %r0, %r1, %r2;", |a, b, _| a.wrapping_add(b)),
        ("sub.s32 %r0, %r1, %r2;", |a, b, _| a.wrapping_sub(b)),
        ("mul.lo.u32 %r0, %r1, %r2;", |a, b, _| a.wrapping_mul(b)),
        ("mad.lo.u32 %r0, %r1, %r2, %r3;", |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("mul.hi.u32 %r0, %r1, %r2;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mul.hi.s32 %r0, %r1, %r2;", |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
        ("mul.wide.u32 %d1, %r1, %r2;\nshr.u64 %d1, %d1, 16;\ncvt.u32.u64 %r0, %d1;", |a, b, _| {
            ((u64::from(a) * u64::from(b)) >> 16) as u32
        }),
        ("div.u32 %r0, %r1, %r2;", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX)),
        ("rem.u32 %r0, %r1, %r2;", |a, b, _| a.checked_rem(b).unwrap_or(a)),
        ("xor.b32 %r0, %r1, %r2;", |a, b, _| a ^ b),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xCA;", |a, b, c| (a & b) | (!a & c)),
        ("shl.b32 %r0, %r1, %r2;", |a, b, _| a.checked_shl(b).unwrap_or(0)),
        ("shr.u32 %r0, %r1, %r2;", |a, b, _| a.checked_shr(b).unwrap_or(0)),
        ("shr.s32 %r0, %r1, %r2;", |a, b, _| (a as i32 >> b.min(31)) as u32),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
            if c & 31 == 0 { b } else { b << (c & 31) | a >> (32 - (c & 31)) }
        }),
        ("min.s32 %r0, %r1, %r2;", |a, b, _| (a as i32).min(b as i32) as u32),
        ("max.u32 %r0, %r1, %r2;", |a, b, _| a.max(b)),
        ("sad.u32 %r0, %r1, %r2, %r3;", |a, b, c| a.abs_diff(b).wrapping_add(c)),
        ("clz.b32 %r0, %r1;", |a, _, _| a.leading_zeros()),
        ("popc.b32 %r0, %r1;", |a, _, _| a.count_ones()),
        ("brev.b32 %r0, %r1;", |a, _, _| a.reverse_bits()),
        ("setp.lt.s32 %p1, %r1, %r2;\nselp.b32 %r0, %r3, %r1, %p1;", |a, b, c| {
            if (a as i32) < b as i32 { c } else { a }
        }),
        ("setp.hi.u32 %p1, %r1, %r2;\n@%p1 mov.b32 %r0, %r3;\n@!%p1 mov.b32 %r0, %r2;", |a, b, c| {
            if a > b { c } else { b }
        }),
        ("add.cc.u32 %r0, %r1, %r2;\naddc.u32 %r0, %r3, 0;", |a, b, c| {
            c.wrapping_add(u32::from(a.checked_add(b).is_none()))
        }),
        (
            "cvt.u16.u32 %h1, %r1;\ncvt.u16.u32 %h2, %r2;\nmul.lo.s16 %h3, %h1, %h2;\ncvt.s32.s16 %r0, %h3;",
            |a, b, _| i32::from((a as i16).wrapping_mul(b as i16)) as u32,
        ),
        ("fma.rn.f32 %r0, %r1, %r2, %r3;", |a, b, c| {
            let result = f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c));
            if result.is_nan() { 0x7fff_ffff } else { result.to_bits() }
        }),
    ];

/// Values of which many are at the edges.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        prop::sample::select(vec![
            0,
            1,
            2,
            31,
            32,
            33,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
            0x7f80_0000,
            0x0080_0000
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn instructions_do_as_rust_does(values in prop::collection::vec((word(), word(), word()), 32)) {
        let input: Vec<u32> = values.iter().flat_map(|&(a, b, c)| [a, b, c]).collect();
        let loads = "mul.wide.u32 %d9, %t, 12;\nadd.s64 %d9, %in, %d9;\nld.global.b32 %r1, [%d9];
ld.global.b32 %r2, [%d9+4];\nld.global.b32 %r3, [%d9+8];";
        for (instruction, reference) in INSTRUCTIONS {
            let found = words(&format!("{loads}\n{instruction}\nst.global.b32 [%b], %r0;"), &input);
            for (lane, &(a, b, c)) in values.iter().enumerate() {
                prop_assert_eq!(found[lane], reference(a, b, c), "{} of {:#x} {:#x} {:#x}", instruction, a, b, c);
            }
        }
    }
}
