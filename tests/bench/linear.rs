//! Speed of the `linear` kernel against what this machine can do: streaming reads for one row, bf16 dot
//! products for many. Each figure is the median of rounds in which all are measured in turn.
//!
//! `cargo bench -p nemo-tests --bench linear`
#![allow(unsafe_code, reason = "calls generated code")]

use std::hint::black_box;
use std::time::Instant;

use nemo_ir::ops;
use nemo_ir::step::StepDims;
use nemo_ir::types::{Dim, Dtype, Symbol, Type};
use nemo_kernels::host::{Listings, compile};
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_kernels::target::HostTarget;
use nemort::device::host::memory::Region;
use nemort::device::host::object::{self, KernelFn};
use nemort::device::host::pool::{Pinning, Pool, default_threads};
use nemort::device::host::{bandwidth, peak};

const ROUNDS: usize = 7;

struct Shape {
    what: &'static str,
    rows: u64,
    outputs: u64,
    k: u64,
}

const SHAPES: [Shape; 6] = [
    Shape { what: "9B in_proj, decode", rows: 1, outputs: 22656, k: 4480 },
    Shape { what: "9B down_proj, decode", rows: 1, outputs: 4480, k: 15680 },
    Shape { what: "mini up_proj, decode", rows: 1, outputs: 4480, k: 1280 },
    Shape { what: "mini up_proj, prefill 512", rows: 512, outputs: 4480, k: 1280 },
    Shape { what: "mini down_proj, prefill 512", rows: 512, outputs: 1280, k: 4480 },
    Shape { what: "9B down_proj, prefill 512", rows: 512, outputs: 4480, k: 15680 },
];

fn main() {
    // Arguments that cargo passes to every bench are of no interest here.
    let target = HostTarget::detect().expect("this bench needs x86-64-v3");
    for threads in [1, default_threads()] {
        let mut pool = Pool::new(threads, Pinning::default()).expect("threads can be started");
        let stream = bandwidth::buffer(&mut pool).expect("a buffer to read");
        println!("{target}, {threads} threads");
        for shape in &SHAPES {
            measure(&target, &mut pool, shape, &stream);
        }
    }
}

fn measure(target: &HostTarget, pool: &mut Pool, shape: &Shape, stream: &Region) {
    let matrix = |rows: Dim, width| Layout::dense(Type::new(Dtype::Bf16, [rows, Dim::Const(width)]));
    let spec = KernelSpec {
        op: ops::op("linear").expect("the table has it"),
        attrs: vec![Dtype::Bf16.into()],
        operands: vec![matrix(Symbol::T.into(), shape.k), matrix(shape.outputs.into(), shape.k)],
        results: vec![matrix(Symbol::T.into(), shape.outputs)],
        steps: None,
        form: None,
    };
    let object = compile(target, &[("linear".to_owned(), spec)], Listings::default()).expect("it compiles");
    let code = object::load(&object.elf).expect("it loads");
    let function = code.function("linear").expect("it is there");
    // Enough copies of the weight that none is in cache when its turn comes.
    let bytes = shape.outputs * shape.k * 2;
    let copies = if shape.rows == 1 { (400 << 20) / bytes + 1 } else { 1 };
    // In large pages, like the weights that the runtime makes.
    let mut weights = Region::new(copies * bytes).expect("room for the weights");
    weights.bytes_mut().fill(0x3C);
    let weights: &[u16] = weights.slice((copies * bytes / 2) as usize);
    let x = vec![0x3F80u16; (shape.rows * shape.k) as usize];
    let mut y = vec![0u16; (shape.rows * shape.outputs) as usize];
    let mut times = Vec::new();
    let mut reads = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..ROUNDS {
        reads.push(bandwidth::measure(pool, stream) / 1e9);
        peaks.push(peak::measure(pool) / 1e9);
        let start = Instant::now();
        for copy in 0..copies {
            let weight = &weights[(copy * bytes / 2) as usize..];
            run(pool, function, &x, weight, &mut y, shape.rows);
        }
        times.push(start.elapsed().as_secs_f64() / copies as f64);
        black_box(&y);
    }
    let time = median(&mut times);
    let (read, peak) = (median(&mut reads), median(&mut peaks));
    let rate = bytes as f64 / time / 1e9;
    let flops = 2.0 * (shape.rows * shape.outputs * shape.k) as f64 / time / 1e9;
    println!(
        "  {:28} {:8.1} us  {rate:6.1} GB/s = {:3.0} % of {read:.1}  {flops:7.1} GFLOP/s = {:3.0} % of {peak:.0}",
        shape.what,
        time * 1e6,
        100.0 * rate / read,
        100.0 * flops / peak
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Pointers that threads may share.
struct Shared([*mut u8; 3]);
// SAFETY: the kernel writes disjoint parts of y from its threads and only reads the rest.
unsafe impl Sync for Shared {}

fn run(pool: &mut Pool, function: KernelFn, x: &[u16], weight: &[u16], y: &mut [u16], rows: u64) {
    let args =
        Shared([x.as_ptr().cast_mut().cast(), weight.as_ptr().cast_mut().cast(), y.as_mut_ptr().cast()]);
    let args = &args;
    let dims = StepDims { tokens: rows, seqs: 1, rows: 1, pages: 0 };
    pool.run(&move |worker| {
        // SAFETY: the buffers have the sizes of the spec and outlive the call.
        unsafe { function(args.0.as_ptr(), &raw const dims, worker.thread, worker.threads) };
    });
}
