//! Bulk copies of memory that was written in part: who reads the rest is at fault, wherever it lies by then.

use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma_map::{DataType, OobFill, TensorMap, TensorSpec};
use ptx_sim::{FaultKind, Launch, Memory, Module, Options, Space, run};

use super::{Run, module};

/// Brings `COUNT` bytes of the output, of which the first `WRITTEN` words were written, to the tile.
const COPY: &str = "setp.lt.u32 %p1, %t, WRITTEN;
mov.b32 %r9, 0x3f803f80;
@%p1 st.global.b32 [%b], %r9;
mov.b32 %r10, tile;
add.u32 %r11, %r10, 1008;
setp.eq.u32 %p1, %t, 0;
@%p1 mbarrier.init.shared.b64 [%r11], 1;
bar.sync 0;
@!%p1 bra WAIT;
mbarrier.arrive.expect_tx.shared::cta.b64 %d1, [%r11], COUNT;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r10], [%out], COUNT, [%r11];
WAIT: mbarrier.try_wait.parity.shared.b64 %p3, [%r11], 0;
@!%p3 bra WAIT;
";

/// Sums of 16 products: ones in registers by eight columns of the tile.
const PRODUCT: &str = "cvt.u64.u32 %d2, %r10;
shr.u64 %d2, %d2, 4;
or.b64 %d2, %d2, 0x0000000800080000;
mov.b32 %r1, 0x3f803f80;
mov.b32 %r2, 0;
mov.b32 %r3, 0;
mov.b32 %r4, 0;
mov.b32 %r5, 0;
wgmma.fence.sync.aligned;
setp.eq.u32 %p2, 0, 1;
wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r2, %r3, %r4, %r5}, {%r1, %r1, %r1, %r1}, %d2, %p2, 1, 1, 0;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0; // here
st.global.b32 [%b], %r2;";

fn copy(written: u32, count: u32, then: &str) -> String {
    COPY.replace("WRITTEN", &written.to_string()).replace("COUNT", &count.to_string()) + then
}

fn block(threads: u32) -> Run {
    Run { block: threads, ..Run::default() }
}

#[test]
fn bytes_that_nobody_wrote_stay_so_when_they_are_copied() {
    // The copy itself is no fault, nor are those of its bytes that were written.
    let words = block(32)
        .words(&copy(6, 64, "ld.shared.v2.b32 {%r1, %r2}, [tile+16];\nst.global.b32 [%b], %r2;"), &[0]);
    assert_eq!(words, [0x3f80_3f80; 32]);
    for place in [24, 28, 60] {
        let fault = block(32).fault(&copy(6, 64, &format!("ld.shared.b32 %r1, [tile+{place}]; // here")));
        assert!(
            matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, address, .. } if address == place),
            "{fault}"
        );
    }
    // Who writes them in shared memory may read them.
    let zeros =
        "st.shared.b32 [tile+24], 0;\nbar.sync 0;\nld.shared.b32 %r1, [tile+24];\nst.global.b32 [%b], %r1;";
    assert_eq!(block(32).words(&copy(6, 64, &zeros.replace("st.shared", "@%p1 st.shared")), &[0]), [0; 32]);
}

#[test]
fn a_copy_over_written_bytes_makes_them_unwritten() {
    let body = copy(0, 64, "ld.shared.b32 %r1, [tile+8]; // here");
    let body = body.replace("bar.sync 0;", "@%p1 st.shared.b32 [tile+8], %t;\nbar.sync 0;");
    let fault = block(32).fault(&body);
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, address: 8, .. }), "{fault}");
}

#[test]
fn products_of_bytes_that_nobody_wrote() {
    let words = block(128).words(&copy(64, 256, PRODUCT), &[0]);
    assert_eq!(words, [16.0_f32.to_bits(); 128]);
    let fault = block(128).fault(&copy(60, 256, PRODUCT));
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, .. }), "{fault}");
}

/// A box of 4 rows of 16 bytes, of a matrix with 3, where all but the second row were written.
#[test]
fn rows_of_a_box_that_nobody_wrote() {
    let body = |row: u32| {
        format!(
            "mov.b32 %r10, tile;\nadd.u32 %r11, %r10, 512;\nsetp.eq.u32 %p1, %t, 0;
@%p1 mbarrier.init.shared.b64 [%r11], 1;\nbar.sync 0;\nmov.b32 %r1, 0;\n@!%p1 bra WAIT;
mbarrier.arrive.expect_tx.shared::cta.b64 %d1, [%r11], 64;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r10], [%in, {{%r1, %r1}}], [%r11];
WAIT: mbarrier.try_wait.parity.shared.b64 %p3, [%r11], 0;\n@!%p3 bra WAIT;
ld.shared.b32 %r2, [tile+{}]; // here\nst.global.b32 [%b], %r2;",
            16 * row
        )
    };
    let run_row = |row| {
        let module = Module::parse(&module(&body(row))).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = Memory::new();
        let [map, matrix, out] = [128, 48, 128].map(|bytes| memory.alloc(bytes));
        let spec = TensorSpec {
            dtype: DataType::U32,
            rank: 2,
            address: matrix,
            dims: [4, 3, 1, 1, 1],
            strides: [16, 0, 0, 0],
            box_dims: [4, 4, 1, 1, 1],
            element_strides: [1; 5],
            swizzle: Swizzle::None,
            fill: OobFill::Zero,
        };
        let bytes = TensorMap::new(spec).expect("a legal map").encode();
        memory.write(map, &bytes).expect("it was just allocated");
        memory.write(matrix, &[1; 48]).expect("it was just allocated");
        memory.mark_unwritten(matrix + 16, 16).expect("it was just allocated");
        let params: Vec<u8> = [map, out].iter().flat_map(|address| address.to_le_bytes()).collect();
        let launch =
            Launch { kernel: "k", grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, params: &params };
        run(&module, &mut memory, &launch, &Options::default()).map(|_| {
            let mut word = [0; 4];
            memory.read(out, &mut word).expect("it was just allocated");
            word
        })
    };
    for (row, found) in [(0, 1), (2, 1), (3, 0)] {
        assert_eq!(run_row(row).unwrap_or_else(|fault| panic!("{fault}")), [found; 4], "row {row}");
    }
    let fault = run_row(1).expect_err("nobody wrote it");
    assert!(matches!(fault.kind, FaultKind::Unwritten { space: Space::Shared, address: 16, .. }), "{fault}");
}
