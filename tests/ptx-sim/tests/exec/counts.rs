//! Counts: sectors, banks, kinds.

use super::Run;
use ptx_sim::Counts;

fn counts(block: u32, body: &str) -> Counts {
    let run = Run { block, ..Run::default() };
    run.counts(body, &[0; 8192], 4096).unwrap_or_else(|fault| panic!("{fault}")).1
}

#[test]
fn sectors_of_a_packed_load() {
    let counts = counts(64, "ld.global.b32 %r1, [%a];");
    let loads = &counts.global_loads;
    assert_eq!((loads.requests, loads.bytes, loads.sectors, loads.ideal_sectors), (2, 256, 8, 8));
    assert_eq!(loads.full_fraction(), 1.0);
    assert_eq!((counts.unique_load_sectors, counts.unique_store_sectors), (8, 0));
    let touched: Vec<_> = counts.per_allocation.values().collect();
    assert_eq!(touched.len(), 1);
    assert_eq!((touched[0].bytes, touched[0].load_sectors), (8192, 8));
}

#[test]
fn sectors_of_a_strided_load() {
    let counts = counts(
        32,
        "mul.wide.u32 %d1, %t, 128;\nadd.s64 %d1, %in, %d1;\nld.global.b32 %r1, [%d1];\nld.global.b32 %r1, [%d1+4];",
    );
    let loads = &counts.global_loads;
    assert_eq!((loads.requests, loads.sectors, loads.ideal_sectors, loads.full_sectors), (2, 64, 8, 0));
    assert_eq!(counts.unique_load_sectors, 32);
}

#[test]
fn a_broadcast_asks_for_one_sector() {
    let counts = counts(32, "ld.global.b32 %r1, [%in];\nst.global.v4.b32 [%out], {%r1, %r1, %r1, %r1};");
    assert_eq!((counts.global_loads.sectors, counts.global_loads.ideal_sectors), (1, 1));
    assert_eq!(counts.global_stores.bytes, 512);
    assert_eq!(counts.unique_store_sectors, 1);
}

#[test]
fn bank_conflicts() {
    let replays = |body: &str| counts(32, body).shared_stores.replays;
    assert_eq!(replays("shl.b32 %r1, %t, 2;\nst.shared.b32 [%r1], %t;"), 0);
    assert_eq!(replays("shl.b32 %r1, %t, 3;\nst.shared.b32 [%r1], %t;"), 1, "stride 2");
    assert_eq!(replays("and.b32 %r1, %t, 7;\nshl.b32 %r1, %r1, 7;\nst.shared.b32 [%r1], %t;"), 7);
    assert_eq!(replays("st.shared.b32 [tile], %t;"), 0, "one word");
    assert_eq!(
        replays("shl.b32 %r1, %t, 4;\nst.shared.v4.b32 [%r1], {%t, %t, %t, %t};"),
        0,
        "16 bytes a lane"
    );
    let body = "and.b32 %r1, %t, 7;\nshl.b32 %r1, %r1, 7;\nst.shared.v4.b32 [%r1], {%t, %t, %t, %t};";
    assert_eq!(replays(body), 28, "four phases of eight rows in the same banks");
}

#[test]
fn instructions_by_kind() {
    let body = "setp.lt.u32 %p1, %t, 8;\n@%p1 fma.rn.f32 %r1, %r2, %r3, %r4;\nbar.sync 0;\nex2.approx.f32 %r1, %r1;
cvt.rn.f32.s32 %r2, %t;\nadd.f32 %r3, %r1, %r2;\nshfl.sync.bfly.b32 %r3, %r3, 1, 31, -1;\nst.local.b32 [stack], %r3;\nld.local.b32 %r3, [stack];";
    let counts = counts(64, body);
    let (warp, thread) = (&counts.warp_instructions, &counts.thread_instructions);
    assert_eq!((warp.fma, thread.fma), (2, 8));
    assert_eq!((warp.special, warp.convert, warp.float, warp.shuffle, warp.barrier), (2, 2, 2, 2, 2));
    assert_eq!((counts.local_loads, counts.local_stores, counts.barriers), (2, 2, 2));
    assert_eq!(thread.shuffle, 64);
    // Two parameters, five instructions of the preamble, setp, and the return.
    assert_eq!(warp.total(), 2 * (2 + 4 + 9 + 1));
    assert_eq!((counts.launches, counts.ctas, counts.warps), (1, 1, 2));
}

#[test]
fn counts_add_up() {
    let one = counts(64, "ld.global.b32 %r1, [%a];");
    let mut two = one.clone();
    two += &one;
    assert_eq!(two.global_loads.sectors, 16);
    assert_eq!(two.unique_load_sectors, 16);
    assert_eq!(two.per_allocation.values().map(|touched| touched.load_sectors).sum::<u64>(), 16);
    assert_eq!(two.thread_instructions.total(), 2 * one.thread_instructions.total());
    let json = serde_json::to_value(&two).expect("JSON");
    assert_eq!(json["global_loads"]["requests"], 4);
}
