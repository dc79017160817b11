//! Instructions on registers, with results computed by hand or by plain Rust.

use super::words;

/// The result of one instruction with 32-bit operands.
fn one(instruction: &str, operands: &[u32]) -> u32 {
    let loads: String =
        (0..operands.len()).map(|at| format!("ld.global.b32 %r{}, [%in+{}];\n", at + 1, 4 * at)).collect();
    words(&format!("{loads}{instruction}\nst.global.b32 [%b], %r0;"), operands)[0]
}

/// The result of one instruction with 64-bit operands.
fn one64(instruction: &str, operands: &[u64]) -> u64 {
    let loads: String =
        (0..operands.len()).map(|at| format!("ld.global.b64 %d{}, [%in+{}];\n", at + 1, 8 * at)).collect();
    let split: Vec<u32> = operands.iter().flat_map(|value| [*value as u32, (value >> 32) as u32]).collect();
    let body = |half: u32| {
        format!("{loads}{instruction}\nmov.b64 {{%r1, %r2}}, %d0;\nst.global.b32 [%b], %r{};", half + 1)
    };
    u64::from(words(&body(0), &split)[0]) | u64::from(words(&body(1), &split)[0]) << 32
}

fn float(instruction: &str, operands: &[f32]) -> f32 {
    f32::from_bits(one(instruction, &operands.iter().map(|value| value.to_bits()).collect::<Vec<_>>()))
}

#[test]
fn integers_of_32_bits() {
    assert_eq!(one("mul.hi.u32 %r0, %r1, %r2;", &[0x8000_0001, 6]), 3);
    assert_eq!(one("mul.hi.s32 %r0, %r1, %r2;", &[0x8000_0000, 2]), u32::MAX);
    assert_eq!(one("mad.lo.s32 %r0, %r1, %r2, %r3;", &[7, 0xffff_ffff, 10]), 3);
    assert_eq!(one("mad.hi.u32 %r0, %r1, %r2, %r3;", &[1 << 31, 4, 5]), 7);
    assert_eq!(one("add.sat.s32 %r0, %r1, %r2;", &[0x7fff_ffff, 1]), 0x7fff_ffff);
    assert_eq!(one("sad.s32 %r0, %r1, %r2, %r3;", &[0xffff_fffe, 3, 10]), 15);
    assert_eq!(one("div.s32 %r0, %r1, %r2;", &[0xffff_fff9, 2]), 0xffff_fffd);
    assert_eq!(one("rem.s32 %r0, %r1, %r2;", &[0xffff_fff9, 2]), u32::MAX);
    assert_eq!(one("div.u32 %r0, %r1, %r2;", &[5, 0]), u32::MAX);
    assert_eq!(one("div.s32 %r0, %r1, %r2;", &[0x8000_0000, 0xffff_ffff]), 0x8000_0000);
    assert_eq!(one("min.s32 %r0, %r1, %r2;", &[0xffff_ffff, 1]), u32::MAX);
    assert_eq!(one("min.u32 %r0, %r1, %r2;", &[0xffff_ffff, 1]), 1);
    assert_eq!(one("abs.s32 %r0, %r1;", &[0xffff_fff0]), 16);
    assert_eq!(one("neg.s32 %r0, %r1;", &[5]), 0xffff_fffb);
    assert_eq!(one("max.s16x2 %r0, %r1, %r2;", &[0xffff_0005, 0x0001_8000]), 0x0001_0005);
    assert_eq!(one("dp4a.u32.u32 %r0, %r1, %r2, %r3;", &[0x0102_03ff, 0x0101_0102, 1]), 1 + 1 + 2 + 3 + 510);
    assert_eq!(one("dp4a.s32.s32 %r0, %r1, %r2, %r3;", &[0xff, 0x02, 10]), 8);
}

#[test]
fn bits() {
    assert_eq!(one("shl.b32 %r0, %r1, %r2;", &[1, 32]), 0);
    assert_eq!(one("shr.s32 %r0, %r1, %r2;", &[0x8000_0000, 99]), u32::MAX);
    assert_eq!(one("shr.u32 %r0, %r1, %r2;", &[0x8000_0000, 31]), 1);
    assert_eq!(one("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", &[0x8000_0000, 1, 33]), 3);
    assert_eq!(one("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", &[1, 0xabcd, 40]), 0xabcd);
    assert_eq!(one("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", &[0xf0, 0xcc, 0xaa]), 0xf0 ^ 0xcc ^ 0xaa);
    assert_eq!(one("lop3.b32 %r0, %r1, %r2, %r3, 0xE8;", &[0xf0, 0xcc, 0xaa]), 0xe8);
    assert_eq!(one("prmt.b32 %r0, %r1, %r2, 0x5410;", &[0x1111_aabb, 0x2222_ccdd]), 0xccdd_aabb);
    assert_eq!(one("prmt.b32 %r0, %r1, %r2, 0x0008;", &[0x80, 0]), 0x8080_80ff);
    assert_eq!(one("bfe.u32 %r0, %r1, 4, 8;", &[0xabcd_ef12]), 0xf1);
    assert_eq!(one("bfe.s32 %r0, %r1, 4, 8;", &[0xabcd_ef12]), 0xffff_fff1);
    assert_eq!(one("bfi.b32 %r0, %r1, %r2, 8, 4;", &[0xff, 0x1234_5678]), 0x1234_5f78);
    assert_eq!(one("bfind.u32 %r0, %r1;", &[0x00f0_0000]), 23);
    assert_eq!(one("bfind.shiftamt.s32 %r0, %r1;", &[0xffff_fff0]), 28);
    assert_eq!(one("bfind.u32 %r0, %r1;", &[0]), u32::MAX);
    assert_eq!(one("brev.b32 %r0, %r1;", &[0x8000_0001]), 0x8000_0001);
    assert_eq!(one("clz.b32 %r0, %r1;", &[0]), 32);
    assert_eq!(one("popc.b32 %r0, %r1;", &[0xf0f0]), 8);
    assert_eq!(one("cnot.b32 %r0, %r1;", &[0]), 1);
}

#[test]
fn integers_of_64_bits() {
    let big = 0x1234_5678_9abc_def0u64;
    assert_eq!(one64("mul.lo.s64 %d0, %d1, %d2;", &[big, 17]), big.wrapping_mul(17));
    assert_eq!(
        one64("mul.hi.u64 %d0, %d1, %d2;", &[big, big]),
        ((u128::from(big) * u128::from(big)) >> 64) as u64
    );
    assert_eq!(one64("mad.lo.u64 %d0, %d1, %d2, %d3;", &[3, 4, 5]), 17);
    assert_eq!(one64("shr.s64 %d0, %d1, 60;", &[1 << 63]), 0xffff_ffff_ffff_fff8);
    assert_eq!(one64("min.s64 %d0, %d1, %d2;", &[u64::MAX, 1]), u64::MAX);
    assert_eq!(one64("rem.u64 %d0, %d1, %d2;", &[100, 7]), 2);
    assert_eq!(one64("bfe.s64 %d0, %d1, 60, 4;", &[1 << 63]), 0xffff_ffff_ffff_fff8);
    assert_eq!(one64("cvt.u32.u64 %r5, %d1;\nmul.wide.s32 %d0, %r5, -2;", &[3]), (-6i64) as u64);
    assert_eq!(one64("cvt.u32.u64 %r5, %d1;\nmad.wide.u32 %d0, %r5, 8, %d1;", &[3]), 27);
    // 128-bit sum by carries, upper half.
    let body = "add.cc.u64 %d4, %d1, %d2;\naddc.u64 %d0, %d3, 0;";
    assert_eq!(one64(body, &[u64::MAX, 1, 41]), 42);
    let body = "sub.cc.u64 %d4, %d1, %d2;\nsubc.u64 %d0, %d3, 0;";
    assert_eq!(one64(body, &[0, 1, 41]), 40);
}

#[test]
fn predicates() {
    let pick =
        |compare: &str, operands: &[u32]| one(&format!("{compare}\nselp.b32 %r0, 1, 0, %p1;"), operands);
    let nan = f32::NAN.to_bits();
    let two = 2f32.to_bits();
    assert_eq!(pick("setp.lt.f32 %p1, %r1, %r2;", &[nan, two]), 0);
    assert_eq!(pick("setp.ltu.f32 %p1, %r1, %r2;", &[nan, two]), 1);
    assert_eq!(pick("setp.ne.f32 %p1, %r1, %r2;", &[nan, two]), 0);
    assert_eq!(pick("setp.neu.f32 %p1, %r1, %r2;", &[nan, two]), 1);
    assert_eq!(pick("setp.equ.f32 %p1, %r1, %r2;", &[two, nan]), 1);
    assert_eq!(pick("setp.num.f32 %p1, %r1, %r2;", &[two, two]), 1);
    assert_eq!(pick("setp.nan.f32 %p1, %r1, %r2;", &[two, nan]), 1);
    assert_eq!(pick("setp.lt.s32 %p1, %r1, %r2;", &[u32::MAX, 0]), 1);
    assert_eq!(pick("setp.lo.u32 %p1, %r1, %r2;", &[u32::MAX, 0]), 0);
    assert_eq!(pick("setp.eq.ftz.f32 %p1, %r1, %r2;", &[1, 0]), 1);
    assert_eq!(pick("setp.eq.u32 %p2|%p1, %r1, %r2;", &[1, 0]), 1);
    assert_eq!(pick("setp.eq.u32 %p2, %r1, 1;\nsetp.gt.and.u32 %p1, %r1, %r2, !%p2;", &[1, 0]), 0);
    assert_eq!(pick("setp.eq.u32 %p2, %r1, 1;\nsetp.gt.xor.u32 %p1, %r1, %r2, !%p2;", &[1, 0]), 1);
    assert_eq!(pick("testp.subnormal.f32 %p1, %r1;", &[1]), 1);
    assert_eq!(one("set.gt.u32.f32 %r0, %r1, %r2;", &[two, 0]), u32::MAX);
    assert_eq!(one("slct.b32.s32 %r0, %r1, %r2, %r3;", &[5, 6, u32::MAX]), 6);
    assert_eq!(
        one("mov.pred %p1, 1;\nnot.pred %p2, %p1;\nor.pred %p3, %p1, %p2;\nselp.b32 %r0, 7, 8, %p3;", &[0]),
        7
    );
}

#[test]
fn floats_round_as_asked() {
    let third = [1.0f32, 3.0];
    assert_eq!(float("div.rn.f32 %r0, %r1, %r2;", &third).to_bits(), 0x3eaa_aaab);
    assert_eq!(float("div.rz.f32 %r0, %r1, %r2;", &third).to_bits(), 0x3eaa_aaaa);
    assert_eq!(float("div.rp.f32 %r0, %r1, %r2;", &[-1.0, 3.0]).to_bits(), 0xbeaa_aaaa);
    assert_eq!(float("div.rm.f32 %r0, %r1, %r2;", &[-1.0, 3.0]).to_bits(), 0xbeaa_aaab);
    let tiny = f32::from_bits(0x3380_0000); // 2^-24
    assert_eq!(float("add.rn.f32 %r0, %r1, %r2;", &[1.0, tiny]), 1.0);
    assert_eq!(float("add.rp.f32 %r0, %r1, %r2;", &[1.0, tiny]), 1.0 + f32::EPSILON);
    assert_eq!(float("sub.rz.f32 %r0, %r1, %r2;", &[1.0, f32::MIN_POSITIVE]), 1.0 - f32::EPSILON / 2.0);
    assert_eq!(float("add.rm.f32 %r0, %r1, %r2;", &[1.0, -1.0]).to_bits(), 0x8000_0000);
    assert_eq!(float("sqrt.rz.f32 %r0, %r1;", &[2.0]).to_bits(), 0x3fb5_04f3);
    assert_eq!(float("sqrt.rp.f32 %r0, %r1;", &[2.0]).to_bits(), 0x3fb5_04f4);
    // One rounding: the product alone would round to 1.
    let near = 1.0 + f32::EPSILON;
    assert_eq!(float("fma.rn.f32 %r0, %r1, %r1, %r2;", &[near, -1.0]), near.mul_add(near, -1.0));
    assert_eq!(float("fma.rz.f32 %r0, %r1, %r2, %r3;", &[1.0, 1.0, tiny]), 1.0);
}

#[test]
fn floats_at_the_edges() {
    assert_eq!(one("add.f32 %r0, %r1, %r2;", &[0xffc1_2345, 0]), 0x7fff_ffff, "canonical NaN");
    assert_eq!(one("mul.ftz.f32 %r0, %r1, %r2;", &[1, 1f32.to_bits()]), 0);
    assert_eq!(one("mul.f32 %r0, %r1, %r2;", &[1, 1f32.to_bits()]), 1);
    assert_eq!(float("add.sat.f32 %r0, %r1, %r2;", &[1.0, 3.0]), 1.0);
    assert_eq!(float("add.sat.f32 %r0, %r1, %r2;", &[f32::NAN, 3.0]), 0.0);
    assert_eq!(float("max.f32 %r0, %r1, %r2;", &[f32::NAN, 3.0]), 3.0);
    assert!(float("max.NaN.f32 %r0, %r1, %r2;", &[f32::NAN, 3.0]).is_nan());
    assert_eq!(float("min.f32 %r0, %r1, %r2;", &[0.0, -0.0]).to_bits(), 0x8000_0000);
    assert_eq!(float("copysign.f32 %r0, %r1, %r2;", &[-2.0, 3.0]), -3.0);
    assert_eq!(float("div.approx.f32 %r0, %r1, %r2;", &[1e30, 2e38]), 0.0);
    assert_eq!(float("div.full.f32 %r0, %r1, %r2;", &[6.0, 3.0]), 2.0);
    assert_eq!(float("rcp.approx.ftz.f32 %r0, %r1;", &[4.0]), 0.25);
    assert_eq!(float("rsqrt.approx.f32 %r0, %r1;", &[16.0]), 0.25);
    assert_eq!(float("ex2.approx.ftz.f32 %r0, %r1;", &[10.0]), 1024.0);
    assert_eq!(float("ex2.approx.f32 %r0, %r1;", &[f32::NEG_INFINITY]), 0.0);
    assert_eq!(float("lg2.approx.f32 %r0, %r1;", &[8.0]), 3.0);
    assert_eq!(float("tanh.approx.f32 %r0, %r1;", &[100.0]), 1.0);
    assert_eq!(float("sin.approx.f32 %r0, %r1;", &[0.0]), 0.0);
}

#[test]
fn doubles() {
    let run = |instruction: &str, operands: &[f64]| {
        f64::from_bits(one64(instruction, &operands.iter().map(|value| value.to_bits()).collect::<Vec<_>>()))
    };
    assert_eq!(run("fma.rn.f64 %d0, %d1, %d2, %d3;", &[3.0, 4.0, 5.0]), 17.0);
    assert_eq!(run("div.rn.f64 %d0, %d1, %d2;", &[1.0, 3.0]), 1.0 / 3.0);
    assert_eq!(run("sqrt.rn.f64 %d0, %d1;", &[2.0]), 2f64.sqrt());
    assert_eq!(run("max.f64 %d0, %d1, %d2;", &[f64::NAN, 3.0]), 3.0);
    assert_eq!(run("cvt.rn.f32.f64 %r9, %d1;\ncvt.f64.f32 %d0, %r9;", &[0.1]), f64::from(0.1f32));
}

#[test]
fn conversions() {
    assert_eq!(one("cvt.rzi.s32.f32 %r0, %r1;", &[(-2.7f32).to_bits()]), (-2i32) as u32);
    assert_eq!(one("cvt.rni.s32.f32 %r0, %r1;", &[2.5f32.to_bits()]), 2);
    assert_eq!(one("cvt.rpi.s32.f32 %r0, %r1;", &[2.1f32.to_bits()]), 3);
    assert_eq!(one("cvt.rzi.u32.f32 %r0, %r1;", &[(-5f32).to_bits()]), 0);
    assert_eq!(one("cvt.rzi.s32.f32 %r0, %r1;", &[1e20f32.to_bits()]), i32::MAX as u32);
    assert_eq!(one("cvt.rmi.f32.f32 %r0, %r1;", &[(-2.5f32).to_bits()]), (-3f32).to_bits());
    assert_eq!(one("cvt.rn.f32.s32 %r0, %r1;", &[u32::MAX]), (-1f32).to_bits());
    assert_eq!(one("cvt.rz.f32.u32 %r0, %r1;", &[u32::MAX]), 0x4f7f_ffff);
    assert_eq!(one("cvt.sat.f32.f32 %r0, %r1;", &[7f32.to_bits()]), 1f32.to_bits());
    assert_eq!(one("cvt.s32.s8 %r0, %r1;", &[0x1280]), 0xffff_ff80);
    assert_eq!(one("cvt.u32.u16 %r0, %r1;", &[0x0123_4567]), 0x4567);
    assert_eq!(one("cvt.sat.s8.s32 %r0, %r1;", &[300]), 127);
    assert_eq!(one("cvt.u16.u32 %h1, %r1;\ncvt.s32.s16 %r0, %h1;", &[0x8001]), 0xffff_8001);
    assert_eq!(one("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", &[1f32.to_bits(), 2f32.to_bits()]), 0x3f80_4000);
    assert_eq!(
        one("cvt.rn.f16.f32 %h1, %r1;\ncvt.f32.f16 %r0, %h1;", &[65520f32.to_bits()]),
        f32::INFINITY.to_bits()
    );
    assert_eq!(one("cvt.rn.bf16.f32 %h1, %r1;\nmov.b32 %r0, {%h1, %h1};", &[0x3f80_8000]), 0x3f80_3f80);
    assert_eq!(one("cvt.rna.tf32.f32 %r0, %r1;", &[0x3f80_1000]), 0x3f80_2000);
    // 2^24 + 1 is halfway; one more bit far below decides. A detour through f64 would lose it.
    assert_eq!(
        one64("cvt.rn.f32.u64 %r9, %d1;\ncvt.u64.u32 %d0, %r9;", &[(1 << 62) + (1 << 38) + 1]),
        0x5e80_0001
    );
}

#[test]
fn halves() {
    let two = 0x4000_4000; // 2.0 in bf16 and in f16, twice
    assert_eq!(one("fma.rn.bf16x2 %r0, %r1, %r1, %r1;", &[two]), 0x40c0_40c0);
    assert_eq!(one("fma.rn.f16x2 %r0, %r1, %r1, %r1;", &[two]), 0x4600_4600);
    assert_eq!(one("add.rn.bf16x2 %r0, %r1, %r2;", &[0x3f80_3f80, 0x3f80_0000]), 0x4000_3f80);
    assert_eq!(one("mul.f16x2 %r0, %r1, %r2;", &[two, 0x3c00_bc00]), 0x4000_c000);
    assert_eq!(one("max.NaN.bf16x2 %r0, %r1, %r2;", &[0x7fc0_3f80, 0x3f80_4000]), 0x7fff_4000);
    assert_eq!(one("max.bf16x2 %r0, %r1, %r2;", &[0x7fc0_3f80, 0x3f80_4000]), 0x3f80_4000);
    assert_eq!(one("neg.bf16x2 %r0, %r1;", &[0x3f80_bf80]), 0xbf80_3f80);
    assert_eq!(one("abs.f16x2 %r0, %r1;", &[0xbc00_3c00]), 0x3c00_3c00);
    assert_eq!(one("fma.rn.relu.f16x2 %r0, %r1, %r2, %r2;", &[two, 0xbc00_3c00]), 0x0000_4200);
    assert_eq!(one("ex2.approx.ftz.bf16x2 %r0, %r1;", &[two]), 0x4080_4080);
    assert_eq!(
        one("cvt.u16.u32 %h1, %r1;\nsetp.gt.bf16 %p1, %h1, 0x3F80;\nselp.b32 %r0, 1, 0, %p1;", &[0x4000]),
        1
    );
}
