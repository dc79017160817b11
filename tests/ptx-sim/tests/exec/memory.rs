//! Loads and stores of all spaces and sizes.

use super::words;

#[test]
fn signs_fill_wider_registers() {
    let body = "ld.global.s8 %r1, [%a];\nld.global.b8 %r2, [%a];\nld.global.s16 %r3, [%a];\nld.global.s8 %h1, [%a];
mov.b32 %r4, {%h1, %h1};\nxor.b32 %r1, %r1, %r2;\nadd.u32 %r1, %r1, %r3;\nadd.u32 %r1, %r1, %r4;\nst.global.b32 [%b], %r1;";
    let expected = 0xffff_ff00u32.wrapping_add(0xffff_fff0).wrapping_add(0xfff0_fff0);
    assert_eq!(words(body, &[0xffff_fff0; 32]), vec![expected; 32]);
    let body =
        "ld.global.s32 %d1, [%a];\nshr.s64 %d1, %d1, 8;\ncvt.u32.u64 %r1, %d1;\nst.global.b32 [%b], %r1;";
    assert_eq!(words(body, &[0x8000_0000; 32]), vec![0xff80_0000; 32]);
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = "mov.b64 %d1, tile;\ncvta.shared.u64 %d1, %d1;\nadd.s64 %d2, %d1, 4;\nmov.b64 %d3, stack;
cvta.local.u64 %d3, %d3;\nsetp.lt.u32 %p1, %t, 16;\nshl.b32 %r1, %t, 2;\ncvt.u64.u32 %d4, %r1;\nadd.s64 %d5, %d1, %d4;
selp.b64 %d6, %d5, %d3, %p1;\nst.b32 [%d6], %t;\nld.b32 %r2, [%d6];\nisspacep.shared %p2, %d6;\nselp.b32 %r3, 1000, 2000, %p2;
add.u32 %r2, %r2, %r3;\nmov.b64 %d7, table;\ncvta.const.u64 %d7, %d7;\nld.b32 %r4, [%d7+8];\nadd.u32 %r2, %r2, %r4;\nst.b32 [%b], %r2;";
    let expected: Vec<u32> = (0..32).map(|t| t + 30 + if t < 16 { 1000 } else { 2000 }).collect();
    assert_eq!(words(body, &[0]), expected);
}

#[test]
fn vectors_and_packs() {
    let body = "mul.wide.u32 %d1, %t, 16;\nadd.s64 %d1, %in, %d1;\nld.global.nc.v4.b32 {%r1, %r2, %r3, %r4}, [%d1];
ld.global.v2.b64 {%d2, %d3}, [%d1];\nmov.b64 {%r5, %r6}, %d3;\nmov.b32 {%h1, %h2}, %r2;\nmov.b32 %r7, {%h2, %h1};
mov.b64 %d4, {%r5, %r7};\nshr.u64 %d4, %d4, 32;\ncvt.u32.u64 %r8, %d4;\nadd.u32 %r8, %r8, %r6;\nadd.u32 %r8, %r8, %r1;\nst.global.b32 [%b], %r8;";
    let input: Vec<u32> = (0..128).map(|i| i * 0x10001 + 5).collect();
    let expected: Vec<u32> = (0..32)
        .map(|t| input[4 * t + 1].rotate_left(16).wrapping_add(input[4 * t + 3]).wrapping_add(input[4 * t]))
        .collect();
    assert_eq!(words(body, &input), expected);
}

#[test]
fn wide_registers_move_whole() {
    let body = "mul.wide.u32 %d1, %t, 16;\nadd.s64 %d1, %in, %d1;\n{ .reg .b128 q; ld.global.b128 q, [%d1];\nmov.b128 {%d2, %d3}, q; }
cvt.u32.u64 %r1, %d2;\ncvt.u32.u64 %r2, %d3;\nsub.u32 %r1, %r2, %r1;\nst.global.b32 [%b], %r1;";
    assert_eq!(words(body, &(0..128).collect::<Vec<_>>()), vec![2; 32]);
}

#[test]
fn atomics_return_the_old_value() {
    let body =
        "setp.eq.u32 %p1, %t, 0;\nmov.b32 %r1, 100;\n@%p1 st.shared.b32 [tile], %r1;\nbar.warp.sync -1;
atom.shared.add.u32 %r2, [tile], 3;\nst.global.b32 [%b], %r2;";
    assert_eq!(words(body, &[0]), (0..32).map(|t| 100 + 3 * t).collect::<Vec<_>>());
    let body = "atom.global.cas.b32 %r1, [%a], 5, 6;\natom.global.inc.u32 %r2, [%a], 6;\natom.global.max.s32 %r3, [%a], -1;
atom.global.exch.b32 %r4, [%a], 77;\nshl.b32 %r1, %r1, 24;\nshl.b32 %r2, %r2, 16;\nshl.b32 %r3, %r3, 8;\nor.b32 %r1, %r1, %r2;
or.b32 %r1, %r1, %r3;\nor.b32 %r1, %r1, %r4;\nst.global.b32 [%b], %r1;";
    assert_eq!(words(body, &[5; 32]), vec![0x0506_0000; 32]);
}

#[test]
fn copies_fill_with_zeros() {
    let body = "mul.wide.u32 %d1, %t, 16;\nadd.s64 %d2, %in, %d1;\nmov.b64 %d3, tile;\nadd.s64 %d3, %d3, %d1;\nand.b32 %r1, %t, 1;
mul.lo.u32 %r1, %r1, 6;\ncp.async.cg.shared.global [%d3], [%d2], 16, %r1;\ncp.async.wait_all;
ld.shared.v4.b32 {%r2, %r3, %r4, %r5}, [%d3];\nadd.u32 %r2, %r2, %r3;\nor.b32 %r4, %r4, %r5;\nadd.u32 %r2, %r2, %r4;\nst.global.b32 [%b], %r2;";
    let expected: Vec<u32> = (0..32).map(|t| if t % 2 == 1 { 0x0505_0505 + 0x0505 } else { 0 }).collect();
    assert_eq!(words(body, &[0x0505_0505; 128]), expected);
}
