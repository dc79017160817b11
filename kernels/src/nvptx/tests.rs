//! The words of the emitter, each as the PTX that it becomes.

use inkwell::context::Context;
use nemo_ir::ops;
use nemo_ir::plan::{Extent, Geometry, Phase, TensorMap};
use nemo_ir::types::{Dtype, Symbol, Type};

use super::geometry;
use super::memory::Written;
use super::module::emit_text;
use super::{Any, Emit, Kernel, candidate};
use crate::spec::{KernelSpec, Layout, Steps};
use crate::target::Sm;

fn spec(op: &str, layouts: &[Layout]) -> KernelSpec {
    let (result, operands) = layouts.split_last().expect("a result");
    KernelSpec {
        op: ops::op(op).expect("the table has it"),
        attrs: vec![Dtype::Bf16.into()],
        operands: operands.to_vec(),
        results: vec![result.clone()],
        steps: Some(Steps { phase: Phase::Prefill, min_tokens: 1, max_tokens: 64, max_seqs: 4 }),
        form: None,
    }
}

fn rows(dtype: Dtype, width: u64) -> Layout {
    Layout::dense(Type::new(dtype, [Symbol::T.into(), width.into()])).aligned(16)
}

/// The PTX of one body.
fn ptx(
    sm: Sm,
    geometry: Geometry,
    body: impl for<'c, 'm> Fn(&Emit<'c, 'm>) -> Result<(), String> + 'static,
) -> String {
    let spec = spec("relu2", &[rows(Dtype::Bf16, 256), rows(Dtype::Bf16, 256)]);
    let context = Context::create();
    let made = emit_text(sm, &context, &[("k".to_owned(), &spec, Kernel::new(geometry, body))], false);
    made.expect("LLVM takes it").ptx
}

fn launch(threads: u32, shared: u32) -> Geometry {
    Geometry { shared, ..geometry::of([Extent::Const(1); 3], threads) }
}

#[test]
fn sums_and_votes() {
    let text = ptx(Sm::Sm86, launch(128, 36), |e| {
        let (space, flag) = (e.shared(32, 16), e.shared(4, 4));
        let place = e.at(e.arg(0), Dtype::F32, e.thread());
        let value = e.load_scalar(place, Dtype::F32, Written::Now);
        let sum = e.cta_sum(value, space);
        let largest = e.cta_combine(value, f64::NEG_INFINITY, space, |a, b| e.fmax(a, b));
        let negative = e.fcmp(inkwell::FloatPredicate::OLT, value, e.float(0.0));
        let count = e.ballot(negative);
        let other = e.shuffle(e.fadd(sum, largest), e.word(3));
        e.warp_barrier();
        e.when(e.is_last_cta(e.counters(), e.ctas(0), flag), || {
            e.store(place, Dtype::F32, &[other], 1);
            let count = e.shuffle_xor_int(e.shuffle_int(count, e.word(0)), 1);
            e.store_int(e.counters(), e.word(1), count);
        });
        Ok(())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn functions() {
    let text = ptx(Sm::Sm86, launch(32, 0), |e| {
        let place = e.at(e.arg(0), Dtype::Bf16, e.times(e.thread(), 8));
        let x = e.load(place, Dtype::Bf16, (8, 8), Written::Before);
        let y = [
            e.exp(x[0]),
            x[1],
            e.divide(x[2], x[3]),
            e.rsqrt(x[4]),
            e.silu(x[5]),
            e.softplus(x[6]),
            e.round(Dtype::Bf16, x[7]),
        ];
        let y: Vec<_> = y.into_iter().chain([e.maximum(e.sqrt(x[7]), x[0])]).collect();
        e.store(e.at(e.arg(1), Dtype::Bf16, e.times(e.thread(), 8)), Dtype::Bf16, &y, 8);
        Ok(())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn counts_in_shared_memory() {
    let text = ptx(Sm::Sm86, launch(32, 4), |e| {
        let place = e.shared(4, 4);
        let before = e.shared_add(place, e.thread());
        e.store_int(e.arg(0), e.thread(), before);
        Ok(())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn tensor_cores() {
    let text = ptx(Sm::Sm86, launch(32, 1024), |e| {
        let shared = e.shared(1024, 128);
        let lane = e.offset(shared, e.times(e.thread(), 16));
        e.copy_async(lane, e.offset(e.arg(0), e.times(e.thread(), 16)), e.word(16));
        e.copies_commit();
        e.copies_wait(0);
        e.barrier();
        let a = e.ldmatrix(lane, false);
        let b = e.ldmatrix(lane, true);
        let sums = e.mma(a, [b[0], b[1]], [e.float(0.0); 4]);
        e.store(e.at(e.arg(1), Dtype::F32, e.times(e.thread(), 4)), Dtype::F32, &sums, 4);
        Ok(())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn warpgroups() {
    let map = TensorMap {
        arg: 0,
        dtype: Dtype::Bf16,
        rows: Extent::each(Symbol::T),
        columns: 256,
        row_bytes: 512,
        box_rows: 64,
        box_columns: 64,
        swizzle: 128,
    };
    let geometry = Geometry { maps: vec![map], ..launch(128, 16392) };
    let text = ptx(Sm::Sm90, geometry, |e| {
        let (a, b) = (e.shared(8192, 1024), e.shared(8192, 1024));
        let barrier = e.shared(8, 8);
        let first = e.cmp(inkwell::IntPredicate::EQ, e.thread(), e.word(0));
        e.when(first, || {
            e.mbarrier_init(barrier, 1);
            e.mbarriers_ready();
        });
        e.barrier();
        e.when(first, || {
            e.mbarrier_expect(barrier, e.word(16384));
            e.copy_box(a, e.map(0), (e.word(0), e.word(0)), barrier);
            e.copy_box(b, e.map(0), (e.word(64), e.word(0)), barrier);
        });
        e.mbarrier_wait(barrier, e.word(0));
        let zeros = e.wgmma_begin(&[e.float(0.0).into(); 32]);
        let mut sums: Vec<_> = zeros.into_iter().map(Any::into_float_value).collect();
        for k in 0..4 {
            let (a, b) = (e.offset(a, e.word(32 * k)), e.offset(b, e.word(32 * k)));
            sums = e.wgmma(e.descriptor(a), e.descriptor(b), &sums);
        }
        e.wgmma_commit();
        e.wgmma_wait(1);
        sums = e.wgmma_end(&sums);
        e.wgmma_fence();
        let weights = [0, 1, 2, 3].map(|at| e.bits(sums[at]));
        let ready = e.wgmma_begin(&weights.map(Any::from));
        let weights = std::array::from_fn(|at| ready[at].into_int_value());
        sums = e.wgmma_registers(weights, e.descriptor_by_rows(b, 8192), &sums);
        e.wgmma_commit();
        sums = e.wgmma_end(&sums);
        e.proxy_fence();
        e.store(e.at(e.arg(1), Dtype::F32, e.times(e.thread(), 32)), Dtype::F32, &sums, 4);
        e.mbarrier_arrive(barrier);
        Ok(())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn a_family_that_miscounts_shared_memory_is_found_out() {
    let spec = spec("relu2", &[rows(Dtype::Bf16, 256), rows(Dtype::Bf16, 256)]);
    let context = Context::create();
    let kernel = Kernel::new(launch(32, 8), |e| {
        e.shared(16, 16);
        Ok(())
    });
    let error = emit_text(Sm::Sm86, &context, &[("k".to_owned(), &spec, kernel)], false).unwrap_err();
    assert!(
        error.to_string().ends_with("it uses 16 bytes of shared memory, and its geometry says 8"),
        "{error}"
    );
}

#[test]
fn an_access_is_as_wide_as_the_alignment() {
    for (width, align, vector) in [(256, 16, 8), (4, 16, 4), (6, 16, 2), (7, 16, 1), (256, 4, 2), (256, 2, 1)]
    {
        assert_eq!(Layout { align, ..rows(Dtype::Bf16, width) }.vector(), vector, "{width} at {align}");
    }
    let narrow = spec("relu2", &[rows(Dtype::Bf16, 6), rows(Dtype::Bf16, 6)]);
    assert_eq!(candidate(Sm::Sm86, &narrow).unwrap().geometry.grid[0], Extent::Const(1));
}
