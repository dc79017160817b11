//! Branches, loops, calls.

use super::{Run, words};
use ptx_sim::{Launch, Memory, Module, Options, run};

fn threads() -> impl Iterator<Item = u32> {
    0..32
}

#[test]
fn lanes_part_and_join() {
    // Even lanes add 100, odd ones 200; the shuffle after the join needs all of them.
    let body =
        "and.b32 %r1, %t, 1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra EVEN;\nadd.u32 %r2, %t, 200;\nbra JOIN;
EVEN: add.u32 %r2, %t, 100;\nJOIN: shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;\nst.global.b32 [%b], %r3;";
    let expected: Vec<u32> = threads().map(|t| (t ^ 1) + if t % 2 == 1 { 100 } else { 200 }).collect();
    assert_eq!(words(body, &[0]), expected);
}

#[test]
fn loops_of_different_lengths_join_at_their_end() {
    let body = "mov.b32 %r1, 0;\nmov.b32 %r2, 0;\nLOOP: add.u32 %r2, %r2, %r1;\nadd.u32 %r1, %r1, 1;
setp.le.u32 %p1, %r1, %t;\n@%p1 bra LOOP;\nvote.sync.ballot.b32 %r3, %p1, -1;\nadd.u32 %r2, %r2, %r3;\nst.global.b32 [%b], %r2;";
    assert_eq!(words(body, &[0]), threads().map(|t| t * (t + 1) / 2).collect::<Vec<_>>());
}

/// Nested loops with breaks, an early exit and a table of branches, against the same program in Rust.
#[test]
fn divergence_torture() {
    let body = "mov.b32 %r1, 0;\nmov.b32 %r2, %t;\nsetp.eq.u32 %p9, %t, 13;
OUTER: mov.b32 %r3, 0;
INNER: mad.lo.u32 %r2, %r2, 5, %r3;\nand.b32 %r4, %r2, 7;\nbrx.idx %r4, TABLE;
CASE0: add.u32 %r2, %r2, 1;\nbra NEXT;
CASE1: setp.gt.u32 %p1, %r3, 2;\n@%p1 bra BREAK;\nxor.b32 %r2, %r2, 77;\nbra NEXT;
CASE2: add.u32 %r3, %r3, 1;
NEXT: add.u32 %r3, %r3, 1;\nsetp.lt.u32 %p2, %r3, 6;\n@%p2 bra INNER;\nadd.u32 %r2, %r2, 1000;
BREAK: add.u32 %r1, %r1, 1;\nsetp.eq.u32 %p3, %r1, 3;\nand.pred %p4, %p3, %p9;\n@%p4 bra LEAVE;
setp.lt.u32 %p5, %r1, 9;\n@%p5 bra OUTER;
st.global.b32 [%b], %r2;\nret;
LEAVE: mov.b32 %r2, 4242;\nst.global.b32 [%b], %r2;\nret;
TABLE: .branchtargets CASE0, CASE1, CASE2, CASE0, CASE1, CASE2, CASE1, NEXT;";
    let expected: Vec<u32> = threads()
        .map(|t| {
            let (mut rounds, mut value) = (0, t);
            loop {
                let mut step = 0u32;
                let broken = loop {
                    value = value.wrapping_mul(5).wrapping_add(step);
                    match value & 7 {
                        0 | 3 => value = value.wrapping_add(1),
                        1 | 4 | 6 if step > 2 => break true,
                        1 | 4 | 6 => value ^= 77,
                        2 | 5 => step += 1,
                        _ => {}
                    }
                    step += 1;
                    if step >= 6 {
                        break false;
                    }
                };
                if !broken {
                    value = value.wrapping_add(1000);
                }
                rounds += 1;
                if rounds == 3 && t == 13 {
                    return 4242;
                }
                if rounds >= 9 {
                    return value;
                }
            }
        })
        .collect();
    assert_eq!(words(body, &[0]), expected);
}

#[test]
fn labels_of_scopes_are_their_own() {
    let one = "{ .reg .pred q; AGAIN: add.u32 %r1, %r1, 1;\nsetp.lt.u32 q, %r1, LIMIT;\n@q bra AGAIN; }";
    let body = format!(
        "mov.b32 %r1, 0;\n{}\n{}\nst.global.b32 [%b], %r1;",
        one.replace("LIMIT", "5"),
        one.replace("LIMIT", "9")
    );
    assert_eq!(words(&body, &[0]), vec![9; 32]);
}

#[test]
fn functions_are_called_by_some_lanes() {
    let text = ".version 7.1\n.target sm_86\n.address_size 64
.func (.param .b32 result) square(.param .b32 x, .param .align 4 .b8 pair[8])
{ .reg .b32 %r<9>; .reg .pred %p<2>;
 ld.param.b32 %r1, [x]; ld.param.b32 %r3, [pair+4];
 setp.gt.u32 %p1, %r1, 9; @%p1 bra BIG;
 mad.lo.u32 %r2, %r1, %r1, %r3; st.param.b32 [result], %r2; ret;
BIG: mov.b32 %r4, 7; st.param.b32 [result], %r4; ret; }
.visible .entry k(.param .u64 out)
{ .reg .b32 %r<9>; .reg .b64 %d<4>; .reg .pred %p<2>;
 ld.param.b64 %d1, [out]; mov.u32 %r1, %tid.x; mov.b32 %r2, 5;
 setp.lt.u32 %p1, %r1, 20; @!%p1 bra SKIP;
 { .param .b32 a; .param .align 4 .b8 b[8]; .param .b32 r;
 st.param.b32 [a], %r1; st.param.b32 [b], %r2; st.param.b32 [b+4], 1000;
 call.uni (r), square, (a, b);
 ld.param.b32 %r2, [r]; }
SKIP: mul.wide.u32 %d2, %r1, 4; add.s64 %d2, %d1, %d2; st.global.b32 [%d2], %r2; ret; }";
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let out = memory.alloc(128);
    let launch = Launch {
        kernel: "k",
        grid: [1; 3],
        block: [32, 1, 1],
        dynamic_shared: 0,
        params: &out.to_le_bytes(),
    };
    run(&module, &mut memory, &launch, &Options::default()).unwrap_or_else(|fault| panic!("{fault}"));
    let mut bytes = [0; 128];
    memory.read(out, &mut bytes).expect("it was allocated");
    for (t, word) in (0..).zip(bytes.as_chunks().0) {
        let expected = match t {
            0..=9 => t * t + 1000,
            10..=19 => 7,
            _ => 5,
        };
        assert_eq!(u32::from_le_bytes(*word), expected, "thread {t}");
    }
}

#[test]
fn the_last_cta_combines() {
    // Each CTA adds its index into a counter that begins with 7; the last to arrive stores the sum.
    let body = "mov.u32 %r1, %ctaid.x;\nsetp.ne.u32 %p1, %t, 0;\n@%p1 exit;
atom.global.add.u32 %r2, [counter], %r1;\nadd.u32 %r3, %r2, %r1;\nsetp.ne.u32 %p2, %r3, 13;\n@%p2 exit;
setp.ne.u32 %p3, %r1, 3;\n@%p3 exit;\nst.global.b32 [%out], %r3;";
    let run = Run { grid: 4, ..Run::default() };
    let (bytes, counts) = run.counts(body, &[0], 4).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(bytes, 13u32.to_le_bytes());
    assert_eq!(counts.global_atomics, 4);
}

#[test]
fn special_registers() {
    let body = "mov.u32 %r1, %ntid.x;\nmov.u32 %r2, %laneid;\nmov.u32 %r3, %warpid;\nmov.u32 %r4, %nctaid.x;
mov.u32 %r5, %lanemask_lt;\nmad.lo.u32 %r6, %r3, 1000, %r2;\nmad.lo.u32 %r6, %r1, 100000, %r6;
mad.lo.u32 %r6, %r4, 50000000, %r6;\npopc.b32 %r7, %r5;\nadd.u32 %r6, %r6, %r7;\nst.global.b32 [%b], %r6;";
    let expected: Vec<u32> = (0..64).map(|t| 56_400_000 + t / 32 * 1000 + 2 * (t % 32)).collect();
    assert_eq!(Run { block: 64, ..Run::default() }.words(body, &[0]), expected);
}
