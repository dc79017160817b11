//! Planted errors: each is found, of the right kind, in the right line and lane.

use super::{Run, module};
use ptx_sim::{Checks, Fault, FaultKind, Launch, Memory, Module, Options, Race, Space, run};

/// Runs a body; the fault must stand at the line that the body marks with `// here`.
fn fault_of(run: &Run, body: &str) -> Fault {
    let fault = run.fault(body);
    let line = module(body).lines().position(|line| line.ends_with("// here")).expect("a marked line") + 1;
    assert_eq!(fault.line as usize, line, "{fault}");
    fault
}

fn block(block: u32) -> Run {
    Run { block, ..Run::default() }
}

#[test]
fn global_access_past_the_end() {
    let fault = fault_of(&block(32), "add.s64 %d1, %a, 4092;\nld.global.b32 %r1, [%d1]; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Global, bytes: 4, .. }), "{fault}");
    assert_eq!((fault.lane, fault.warp, fault.thread), (Some(1), Some(0), Some([1, 0, 0])));
    assert_eq!(&*fault.instruction, "ld.global.b32 %r1, [%d1]");
    let fault = fault_of(&block(32), "add.s64 %d1, %b, 4096;\nst.b32 [%d1], %t; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Global, .. }), "{fault}");
    let fault = fault_of(&block(32), "mov.b64 %d1, 0;\nld.b32 %r1, [%d1]; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { address: 0, .. }), "{fault}");
}

#[test]
fn access_of_freed_memory() {
    let module = Module::parse(&module("ld.global.b32 %r1, [%a];")).expect("PTX");
    let mut memory = Memory::new();
    let [from, to] = [memory.alloc(128), memory.alloc(128)];
    memory.write(from, &[0; 128]).expect("it fits");
    memory.free(from);
    let params: Vec<u8> = [from, to].iter().flat_map(|address| address.to_le_bytes()).collect();
    let launch = Launch { kernel: "k", grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, params: &params };
    let fault = run(&module, &mut memory, &launch, &Options::default()).expect_err("freed");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { .. }));
}

#[test]
fn shared_access_past_the_end() {
    let fault = fault_of(&block(32), "mov.b32 %r1, 1024;\nst.shared.b32 [%r1], %t; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Shared, address: 1024, .. }));
    // Dynamic shared memory begins where static ends, and is as long as the launch says.
    let body = "st.shared.b32 [dynamic+60], %t;\nmov.b32 %r2, dynamic;\nst.shared.b32 [%r2+64], %t; // here";
    let run = Run { dynamic_shared: 64, ..Run::default() };
    let fault = fault_of(&run, &format!("st.shared.b32 [tile], %t;\n{body}"));
    assert!(
        matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Shared, address: 1088, .. }),
        "{fault}"
    );
}

#[test]
fn local_and_parameter_access_past_the_end() {
    let fault = fault_of(&block(32), "mov.b64 %d1, stack;\nst.local.b32 [%d1+64], %t; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Local, .. }), "{fault}");
    let fault = fault_of(&block(32), "ld.param.b64 %d1, [k_param_1+8]; // here");
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { space: Space::Param, .. }), "{fault}");
    let fault =
        fault_of(&block(32), "mov.b64 %d1, table;\ncvta.const.u64 %d2, %d1;\nst.b32 [%d2], %t; // here");
    assert!(matches!(fault.kind, FaultKind::ReadOnly { space: Space::Const, .. }), "{fault}");
}

#[test]
fn misaligned_access() {
    let fault = fault_of(&block(32), "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a]; // here");
    assert!(matches!(fault.kind, FaultKind::Misaligned { space: Space::Global, bytes: 16, .. }), "{fault}");
    assert_eq!(fault.lane, Some(1));
    let fault = fault_of(&block(32), "st.shared.b32 [tile+2], %t; // here");
    assert!(matches!(fault.kind, FaultKind::Misaligned { space: Space::Shared, .. }), "{fault}");
}

#[test]
fn read_of_bytes_nobody_wrote() {
    let fault = fault_of(&block(32), "ld.global.b32 %r1, [%b]; // here");
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Global, .. }), "{fault}");
    let fault = fault_of(&block(32), "st.shared.b16 [tile], %h1;\nld.shared.b32 %r1, [tile]; // here");
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, .. }), "{fault}");
    let fault = fault_of(&block(32), "st.local.b32 [stack], %r1;\nld.local.b64 %d1, [stack]; // here");
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Local, .. }), "{fault}");
    let fault = fault_of(&block(32), "atom.global.add.u32 %r1, [%out], 1; // here");
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Global, .. }), "{fault}");
}

/// Each warp writes its words of the tile; those from `FIRST` on read the words of the other.
const EXCHANGE: &str = "shl.b32 %r1, %t, 2;
setp.ge.u32 %p1, %t, FIRST;
mov.b32 %r3, 0;
st.shared.b32 [%r1], %t;
SYNC
xor.b32 %r2, %r1, 128;
@%p1 ld.shared.b32 %r3, [%r2]; // here
st.global.b32 [%b], %r3;";

#[test]
fn shared_race_without_a_barrier() {
    let body = EXCHANGE.replace("SYNC", "// none");
    // Warp 0 runs first, so it finds nothing there.
    let fault = fault_of(&block(64), &body.replace("FIRST", "0"));
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, .. }), "{fault}");
    let fault = fault_of(&block(64), &body.replace("FIRST", "32"));
    assert!(matches!(fault.kind, FaultKind::SharedRace { race: Race::WriteThenRead, .. }), "{fault}");
    let words = block(64).words(&EXCHANGE.replace("SYNC", "bar.sync 0;").replace("FIRST", "0"), &[0]);
    assert_eq!(words, (0..64).map(|thread| thread ^ 32).collect::<Vec<_>>());
}

#[test]
fn race_of_a_read_and_a_later_write() {
    let body = EXCHANGE.replace("SYNC", "bar.sync 0;").replace("FIRST", "0").replace(" // here", "")
        + "\nsetp.ge.u32 %p2, %t, 32;\nMEND\n@%p2 st.shared.b32 [%r1], %r3; // here";
    let fault = fault_of(&block(64), &body.replace("MEND", ""));
    assert!(matches!(fault.kind, FaultKind::SharedRace { race: Race::ReadThenWrite, .. }), "{fault}");
    block(64).words(&body.replace("MEND", "bar.sync 0;"), &[0]);
}

#[test]
fn race_of_two_writes() {
    let fault = fault_of(&block(64), "st.shared.b32 [tile], %t; // here");
    let FaultKind::SharedRace { race: Race::WriteThenWrite, other, address: 0 } = &fault.kind else {
        panic!("{fault}")
    };
    assert_eq!((other.as_str(), fault.warp), ("warp 0", Some(1)));
    // Neighbouring halves of a word don't race, and atomics don't race with each other.
    block(64).words(
        "shl.b32 %r1, %t, 1;\nmov.b16 %h1, 3;\nst.shared.b16 [%r1], %h1;\nst.global.b32 [%b], %r1;",
        &[0],
    );
    block(64).words(
        "mov.b32 %r1, 0;\nsetp.eq.u32 %p1, %t, 0;\n@%p1 st.shared.b32 [tile], %r1;\nbar.sync 0;
red.shared.add.u32 [tile], 1;\nst.global.b32 [%b], %r1;",
        &[0],
    );
}

#[test]
fn named_barriers_order_only_those_who_meet() {
    // Warps 0 and 1 meet at barrier 1, warp 2 does not: it races with warp 0.
    let body = "shr.u32 %r5, %t, 5;\nsetp.eq.u32 %p1, %r5, 0;\nsetp.eq.u32 %p2, %r5, 2;
@%p1 st.shared.b32 [tile], %t;
@%p2 bra LAST;
bar.sync 1, 64;
ld.shared.b32 %r1, [tile];
bra END;
LAST: ld.shared.b32 %r1, [tile]; // here
END: st.global.b32 [%b], %r1;";
    let fault = fault_of(&block(96), body);
    assert!(matches!(fault.kind, FaultKind::SharedRace { race: Race::WriteThenRead, .. }), "{fault}");
    assert_eq!(fault.warp, Some(2));
    block(64).words(&body.replace(" // here", ""), &[0]);
}

const COPY: &str = "mul.wide.u32 %d1, %t, 16;
add.s64 %d2, %in, %d1;
mov.b64 %d3, tile;
add.s64 %d3, %d3, %d1;
cp.async.cg.shared.global [%d3], [%d2], 16;
cp.async.commit_group;
";

#[test]
fn shared_memory_is_touched_before_its_copy_was_waited_for() {
    let fault = fault_of(&block(32), &format!("{COPY}ld.shared.b32 %r1, [%d3]; // here"));
    assert!(matches!(fault.kind, FaultKind::CopyInFlight { .. }), "{fault}");
    let fault = fault_of(&block(32), &format!("{COPY}st.shared.b32 [%d3+4], %t; // here"));
    assert!(matches!(fault.kind, FaultKind::CopyInFlight { .. }), "{fault}");
    // Waiting for all but the last group waits for none.
    let body = format!("{COPY}cp.async.wait_group 1;\nld.shared.b32 %r1, [%d3]; // here");
    assert!(matches!(fault_of(&block(32), &body).kind, FaultKind::CopyInFlight { .. }));
    let body = format!("{COPY}cp.async.wait_group 0;\nld.shared.b32 %r1, [%d3];\nst.global.b32 [%b], %r1;");
    let input: Vec<u32> = (0..128).collect();
    assert_eq!(block(32).words(&body, &input), (0..32).map(|lane| 4 * lane).collect::<Vec<_>>());
}

#[test]
fn a_copy_is_waited_for_but_no_barrier_follows() {
    let body = format!(
        "{COPY}cp.async.wait_all;\nSYNC\nxor.b32 %r1, %t, 32;\nshl.b32 %r1, %r1, 4;\nsetp.ge.u32 %p1, %t, 32;
mov.b32 %r2, 0;\n@%p1 ld.shared.b32 %r2, [%r1]; // here\nst.global.b32 [%b], %r2;"
    );
    let fault = fault_of(&block(64), &body.replace("SYNC", "//"));
    assert!(matches!(fault.kind, FaultKind::SharedRace { race: Race::WriteThenRead, .. }), "{fault}");
    let input: Vec<u32> = (0..256).collect();
    let words = block(64).words(&body.replace("SYNC", "bar.sync 0;"), &input);
    let expected = |thread: u32| if thread < 32 { 0 } else { 4 * (thread - 32) };
    assert_eq!(words, (0..64).map(expected).collect::<Vec<_>>());
}

#[test]
fn a_copy_overwrites_what_others_still_read() {
    let body = format!(
        "setp.ge.u32 %p1, %t, 32;\nshl.b32 %r1, %t, 4;\nst.shared.b32 [%r1], %t;\nbar.sync 0;\nxor.b32 %r2, %r1, 512;
ld.shared.b32 %r3, [%r2];\n{}",
        COPY.replace("cp.async.cg", "@%p1 cp.async.cg").replace("[%d2], 16;", "[%d2], 16; // here")
    );
    let fault = fault_of(&block(64), &body);
    assert!(matches!(fault.kind, FaultKind::SharedRace { race: Race::ReadThenWrite, .. }), "{fault}");
}

#[test]
fn part_of_a_warp_reaches_a_barrier() {
    let body =
        "setp.lt.u32 %p1, %t, 16;\n@%p1 bra HALF;\nbra END;\nHALF: bar.sync 0; // here\nEND: mov.b32 %r1, 0;";
    let fault = fault_of(&block(64), body);
    assert_eq!(fault.kind, FaultKind::DivergentBarrier { active: 0xffff, live: u32::MAX });
    let body = "setp.lt.u32 %p1, %t, 16;\n@%p1 shfl.sync.idx.b32 %r1, %t, 0, 31, -1; // here";
    let fault = fault_of(&block(32), body);
    assert_eq!(fault.kind, FaultKind::DivergentSync { named: u32::MAX, active: 0xffff });
    // Threads that have exited are not waited for.
    block(64).words("setp.ge.u32 %p1, %t, 48;\nst.global.b32 [%b], %t;\n@%p1 exit;\nbar.sync 0;", &[0]);
}

#[test]
fn warps_wait_at_different_barriers() {
    let body =
        "setp.lt.u32 %p1, %t, 32;\n@%p1 bra ONE;\nbar.sync 2;\nbra END;\nONE: bar.sync 1; // here\nEND: ret;";
    let fault = fault_of(&block(64), body);
    let FaultKind::Deadlock(what) = &fault.kind else { panic!("{fault}") };
    assert!(what.contains("warp 0 at barrier 1") && what.contains("warp 1 at barrier 2"), "{what}");
    let fault = fault_of(&block(64), "setp.ge.u32 %p1, %t, 32;\n@%p1 exit;\nbar.sync 0, 64; // here");
    assert!(matches!(fault.kind, FaultKind::Deadlock(_)), "{fault}");
}

#[test]
fn wrong_counts_of_a_barrier() {
    let fault = fault_of(&block(32), "bar.sync 0, 48; // here");
    assert!(matches!(fault.kind, FaultKind::BarrierCount { id: 0, count: 48, .. }), "{fault}");
    let fault = fault_of(&block(32), "mov.b32 %r1, 16;\nbar.sync %r1; // here");
    assert!(matches!(fault.kind, FaultKind::BarrierCount { id: 16, .. }), "{fault}");
}

#[test]
fn an_mbarrier_nobody_completes() {
    let body =
        "mov.b32 %r1, tile;\nsetp.eq.u32 %p1, %t, 0;\n@%p1 mbarrier.init.shared.b64 [%r1], 2;\nbar.sync 0;
@%p1 mbarrier.arrive.shared.b64 _, [%r1];
WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [%r1], 0; // here\n@!%p2 bra WAIT;";
    let fault = fault_of(&block(64), body);
    assert!(matches!(fault.kind, FaultKind::Deadlock(_)), "{fault}");
    let fault = fault_of(&block(32), "mbarrier.arrive.shared.b64 %d1, [tile]; // here");
    assert!(matches!(fault.kind, FaultKind::Mbarrier { .. }), "{fault}");
}

#[test]
fn a_loop_without_an_end() {
    let options = Options { instruction_limit: Some(10_000), ..Options::default() };
    let run = Run { options, ..Run::default() };
    // The value that is waited for would have to come from another CTA.
    let fault =
        run.fault("AGAIN: ld.volatile.global.b32 %r1, [%in];\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra AGAIN;");
    assert_eq!(fault.kind, FaultKind::InstructionLimit { limit: 10_000 });
}

#[test]
fn two_ctas_write_the_same_byte() {
    let run = Run { grid: 2, ..Run::default() };
    let fault = fault_of(&run, "st.global.b32 [%b], %t; // here");
    assert!(matches!(fault.kind, FaultKind::GlobalRace { other: 0, .. }), "{fault}");
    assert_eq!(fault.cta, [1, 0, 0]);
    let options =
        Options { checks: Checks { global_races: false, ..Checks::default() }, ..Options::default() };
    let run = Run { grid: 2, options, ..Run::default() };
    assert!(run.counts("st.global.b32 [%b], %t;", &[0; 4], 256).is_ok());
}

#[test]
fn trap_and_uniform_branches() {
    let fault = fault_of(&block(32), "trap; // here");
    assert_eq!(fault.kind, FaultKind::Trap);
    let fault = fault_of(&block(32), "setp.lt.u32 %p1, %t, 5;\n@%p1 bra.uni END; // here\nEND: ret;");
    assert!(matches!(fault.kind, FaultKind::Undefined(_)), "{fault}");
}

#[test]
fn launches_that_cannot_be() {
    let module = Module::parse(&module("")).expect("PTX");
    let mut memory = Memory::new();
    let launch = Launch { kernel: "k", grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, params: &[0; 16] };
    let kind = |launch: Launch<'_>, memory: &mut Memory| {
        run(&module, memory, &launch, &Options::default()).expect_err("it cannot be").kind
    };
    assert_eq!(kind(Launch { kernel: "other", ..launch }, &mut memory), FaultKind::NoKernel);
    let found = kind(Launch { params: &[0; 8], ..launch }, &mut memory);
    assert_eq!(found, FaultKind::ParameterBytes { expected: 16, found: 8 });
    let found = kind(Launch { block: [1025, 1, 1], ..launch }, &mut memory);
    assert_eq!(found, FaultKind::BlockSize { threads: 1025, limit: 1024 });
    let found = kind(Launch { dynamic_shared: 300_000, ..launch }, &mut memory);
    assert!(matches!(found, FaultKind::SharedBytes { .. }));
}
