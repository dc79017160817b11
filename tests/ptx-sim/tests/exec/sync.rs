//! Barriers, mbarriers, exchanges between lanes.

use super::{Run, words};

fn threads() -> std::ops::Range<u32> {
    0..32
}

#[test]
fn shuffles() {
    let one = |instruction: &str| {
        words(&format!("mad.lo.u32 %r1, %t, 10, 5;\n{instruction}\nst.global.b32 [%b], %r2;"), &[0])
    };
    let value = |lane: u32| lane * 10 + 5;
    assert_eq!(
        one("shfl.sync.bfly.b32 %r2, %r1, 5, 31, -1;"),
        threads().map(|t| value(t ^ 5)).collect::<Vec<_>>()
    );
    assert_eq!(
        one("shfl.sync.down.b32 %r2, %r1, 4, 31, 0xffffffff;"),
        threads().map(|t| value(if t + 4 < 32 { t + 4 } else { t })).collect::<Vec<_>>()
    );
    assert_eq!(
        one("shfl.sync.up.b32 %r2, %r1, 1, 0, -1;"),
        threads().map(|t| value(t.saturating_sub(1))).collect::<Vec<_>>()
    );
    // Segments of eight lanes.
    assert_eq!(
        one("shfl.sync.idx.b32 %r2, %r1, 3, 6175, -1;"),
        threads().map(|t| value(t / 8 * 8 + 3)).collect::<Vec<_>>()
    );
    assert_eq!(
        one("shfl.sync.down.b32 %r2|%p1, %r1, 30, 31, -1;\nselp.b32 %r2, 1, 0, %p1;"),
        threads().map(|t| u32::from(t < 2)).collect::<Vec<_>>()
    );
}

#[test]
fn votes_and_reductions() {
    let one = |instruction: &str| {
        words(&format!("setp.lt.u32 %p1, %t, 5;\n{instruction}\nst.global.b32 [%b], %r2;"), &[0])[7]
    };
    assert_eq!(one("vote.sync.ballot.b32 %r2, %p1, -1;"), 0x1f);
    assert_eq!(one("vote.sync.ballot.b32 %r2, !%p1, -1;"), !0x1f);
    assert_eq!(one("vote.sync.any.pred %p2, %p1, -1;\nselp.b32 %r2, 1, 0, %p2;"), 1);
    assert_eq!(one("vote.sync.all.pred %p2, %p1, -1;\nselp.b32 %r2, 1, 0, %p2;"), 0);
    assert_eq!(one("vote.sync.uni.pred %p2, %p1, -1;\nselp.b32 %r2, 1, 0, %p2;"), 0);
    assert_eq!(one("redux.sync.add.u32 %r2, %t, -1;"), 496);
    assert_eq!(one("redux.sync.max.s32 %r2, %t, -1;"), 31);
    assert_eq!(one("redux.sync.xor.b32 %r2, %t, -1;"), 0);
    assert_eq!(one("activemask.b32 %r2;"), u32::MAX);
    assert_eq!(one("and.b32 %r1, %t, 7;\nmatch.any.sync.b32 %r2, %r1, -1;"), 0x8080_8080);
    assert_eq!(one("elect.sync %r2|%p2, -1;\nselp.b32 %r3, 100, 0, %p2;\nadd.u32 %r2, %r2, %r3;"), 0);
}

#[test]
fn barriers_reduce() {
    let body = "setp.lt.u32 %p1, %t, 40;\nbar.red.popc.u32 %r1, 0, %p1;\nbar.red.and.pred %p2, 0, %p1;
bar.red.or.pred %p3, 0, %p1;\nselp.b32 %r2, 1000, 0, %p2;\nselp.b32 %r3, 2000, 0, %p3;\nadd.u32 %r1, %r1, %r2;\nadd.u32 %r1, %r1, %r3;\nst.global.b32 [%b], %r1;";
    assert_eq!(Run { block: 64, ..Run::default() }.words(body, &[0]), vec![2040; 64]);
}

#[test]
fn producers_arrive_without_waiting() {
    // Warp 1 writes and arrives; warp 0 waits.
    let body = "setp.ge.u32 %p1, %t, 32;\nand.b32 %r1, %t, 31;\nshl.b32 %r1, %r1, 2;\nmov.b32 %r3, 9;\n@!%p1 bra CONSUME;
st.shared.b32 [%r1], %t;\nbar.arrive 3, 64;\nbra END;
CONSUME: bar.sync 3, 64;\nld.shared.b32 %r3, [%r1];\nEND: st.global.b32 [%b], %r3;";
    let expected: Vec<u32> = (0..64).map(|t| if t < 32 { t + 32 } else { 9 }).collect();
    assert_eq!(Run { block: 64, ..Run::default() }.words(body, &[0]), expected);
}

/// Warp 1 fills a buffer four times, warp 0 adds up what it finds: a ring of one stage with two mbarriers.
#[test]
fn mbarriers_order_a_pipeline() {
    let body = "mov.b32 %r10, tile;\nadd.u32 %r11, %r10, 512;\nadd.u32 %r12, %r10, 520;\nsetp.eq.u32 %p1, %t, 0;
@%p1 mbarrier.init.shared.b64 [%r11], 32;\n@%p1 mbarrier.init.shared.b64 [%r12], 32;\nbar.sync 0;
and.b32 %r1, %t, 31;\nshl.b32 %r1, %r1, 2;\nadd.u32 %r1, %r1, %r10;\nmov.b32 %r2, 0;\nmov.b32 %r3, 0;\nsetp.ge.u32 %p2, %t, 32;\n@%p2 bra FILL;
TAKE: and.b32 %r4, %r2, 1;
W1: mbarrier.try_wait.parity.shared.b64 %p3, [%r11], %r4;\n@!%p3 bra W1;
ld.shared.b32 %r5, [%r1];\nadd.u32 %r3, %r3, %r5;\nmbarrier.arrive.shared.b64 _, [%r12];
add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p4, %r2, 4;\n@%p4 bra TAKE;\nbra END;
FILL: and.b32 %r4, %r2, 1;\nxor.b32 %r4, %r4, 1;
W2: mbarrier.try_wait.parity.shared.b64 %p3, [%r12], %r4;\n@!%p3 bra W2;
mad.lo.u32 %r5, %r2, 100, %t;\nst.shared.b32 [%r1], %r5;\nmbarrier.arrive.shared.b64 %d1, [%r11];
add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p4, %r2, 4;\n@%p4 bra FILL;
END: st.global.b32 [%b], %r3;";
    let expected: Vec<u32> = (0..64).map(|t| if t < 32 { 600 + 4 * (t + 32) } else { 0 }).collect();
    let run = Run { block: 64, ..Run::default() };
    assert_eq!(run.words(body, &[0]), expected);
    // Who says that the buffer is free before reading it lets the producer overwrite what is being read.
    let (load, arrive) = ("ld.shared.b32 %r5, [%r1];", "mbarrier.arrive.shared.b64 _, [%r12];");
    let planted = body.replace(arrive, "").replace(load, &format!("{arrive}\n{load}"));
    let fault = run.fault(&planted);
    let race = ptx_sim::Race::ReadThenWrite;
    assert!(
        matches!(fault.kind, ptx_sim::FaultKind::SharedRace { race: found, .. } if found == race),
        "{fault}"
    );
}

#[test]
fn copies_arrive_at_an_mbarrier() {
    let body = "mov.b32 %r10, tile;\nadd.u32 %r11, %r10, 512;\nsetp.eq.u32 %p1, %t, 0;\n@%p1 mbarrier.init.shared.b64 [%r11], 32;
bar.sync 0;\nsetp.ge.u32 %p2, %t, 32;\nand.b32 %r1, %t, 31;\nshl.b32 %r1, %r1, 4;\nadd.u32 %r1, %r1, %r10;\nmov.b32 %r2, 0;
mul.wide.u32 %d1, %t, 16;\nadd.s64 %d1, %in, %d1;\n@%p2 bra TAKE;
cvt.u64.u32 %d2, %r1;\ncp.async.ca.shared.global [%d2], [%d1], 16;\ncp.async.mbarrier.arrive.noinc.shared.b64 [%r11];\nbra END;
TAKE: mbarrier.try_wait.parity.shared.b64 %p3, [%r11], 0;\n@!%p3 bra TAKE;\nld.shared.b32 %r2, [%r1+4];
END: st.global.b32 [%b], %r2;";
    let input: Vec<u32> = (0..128).collect();
    let expected: Vec<u32> = (0..64).map(|t| if t < 32 { 0 } else { 4 * (t - 32) + 1 }).collect();
    assert_eq!(Run { block: 64, ..Run::default() }.words(body, &input), expected);
}
