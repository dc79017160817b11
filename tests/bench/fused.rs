//! Time of fused kernels over that of the chains that they replace. Both are measured in turn, round by
//! round; a ratio below 1 is a gain. Barriers between launches are part of it, as in a step.
//!
//! `cargo bench -p nemo-tests --bench fused [-- OP…]`
#![allow(unsafe_code, reason = "calls generated code")]

use std::time::Instant;

use nemo_ir::ops::{self, Attrs, OpArgs, OperandKind, Recipe, Source};
use nemo_ir::step::{StepDims, StepInput};
use nemo_ir::types::{Dim, Dtype, Symbol, Type};
use nemo_kernels::host::{Listings, compile};
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_kernels::target::HostTarget;
use nemort::device::host::memory::Region;
use nemort::device::host::object::{self, KernelFn};
use nemort::device::host::pool::{Pinning, Pool, default_threads};

const ROUNDS: usize = 9;
const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;

/// Hidden width, width of the MLP, heads of the scan; the rest is the same in both models.
const MODELS: [(&str, u64, u64, u64); 2] = [("9B", 4480, 15680, 128), ("mini", 1280, 4480, 40)];

fn main() {
    let target = HostTarget::detect().expect("this bench needs x86-64-v3");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut counts = vec![1, default_threads()];
    counts.dedup();
    for threads in counts {
        let mut pool = Pool::new(threads, Pinning::default()).expect("threads can be started");
        println!("{target}, {threads} threads");
        for (model, hidden, mlp, heads) in MODELS {
            let mut compare = |name: &str, rows, spec: &KernelSpec| {
                if !wanted.is_empty() && wanted.iter().all(|word| word != name) {
                    return;
                }
                let (fused, chain) = Comparison::new(&target, spec, rows).measure(&mut pool);
                println!(
                    "  {:36} {:10.1} us, chain {:10.1} us: {:.3}",
                    format!("{name} {model}, {rows} rows"),
                    fused * 1e6,
                    chain * 1e6,
                    fused / chain
                );
            };
            compare("norm_linear", 1, &norm_linear(hidden, 22656 * hidden / 4480));
            compare("norm_linear_relu2", 1, &norm_linear_relu2(hidden, mlp));
            compare("linear_add", 1, &linear_add(mlp, hidden));
            compare("conv_ssd_norm", 1, &conv_ssd_norm(heads));
            if model == "9B" {
                compare("norm_linear_conv", 1, &norm_linear_conv(hidden, heads));
                compare("ssd_recurrent_packed", 1, &ssd_recurrent_packed(heads));
                // Llama 3.1 8B.
                compare("norm_linear_swiglu", 1, &norm_linear_swiglu(4096, 14336));
                compare("norm_linear_rope_qkv", 1, &norm_linear_rope_qkv(4096));
                compare("norm_linear_swiglu", 512, &norm_linear_swiglu(4096, 14336));
                compare("norm_linear_rope_qkv", 512, &norm_linear_rope_qkv(4096));
            }
            compare("norm_linear_relu2", 512, &norm_linear_relu2(hidden, mlp));
            compare("linear_add", 512, &linear_add(mlp, hidden));
        }
    }
}

fn rows(dtype: Dtype, width: u64) -> Layout {
    Layout::dense(Type::new(dtype, [Dim::from(Symbol::T), width.into()]))
}

fn fixed<const N: usize>(dtype: Dtype, shape: [u64; N]) -> Layout {
    Layout::dense(Type::new(dtype, shape.map(Dim::from)))
}

fn norm_linear(k: u64, n: u64) -> KernelSpec {
    let attrs: Attrs = vec![1e-5.into(), k.into(), BF16.into(), BF16.into()];
    spec("norm_linear", attrs, vec![rows(BF16, k), fixed(F32, [k]), fixed(BF16, [n, k])])
}

fn norm_linear_relu2(k: u64, n: u64) -> KernelSpec {
    let attrs: Attrs = vec![1e-5.into(), k.into(), BF16.into(), BF16.into(), BF16.into()];
    spec("norm_linear_relu2", attrs, vec![rows(BF16, k), fixed(F32, [k]), fixed(BF16, [n, k])])
}

fn linear_add(k: u64, n: u64) -> KernelSpec {
    let operands = vec![rows(BF16, k), fixed(BF16, [n, k]), rows(BF16, n)];
    spec("linear_add", vec![BF16.into(), BF16.into()], operands)
}

fn conv_ssd_norm(heads: u64) -> KernelSpec {
    let (groups, head_dim, state, taps) = (8, 80, 128, 4);
    let (inner, shared) = (heads * head_dim, groups * state);
    let packed = inner + 2 * shared;
    let slots = |rest: &[u64]| {
        let shape: Vec<Dim> =
            [Dim::from(Symbol::S)].into_iter().chain(rest.iter().map(|n| Dim::from(*n))).collect();
        shape
    };
    let operands = vec![
        rows(BF16, packed),
        fixed(F32, [packed, taps]),
        fixed(F32, [packed]),
        Layout::dense(Type { dtype: BF16, shape: slots(&[taps - 1, packed]) }),
        rows(BF16, heads),
        fixed(F32, [heads]),
        fixed(F32, [heads]),
        fixed(F32, [heads]),
        Layout::dense(Type { dtype: F32, shape: slots(&[heads, state, head_dim]) }),
        rows(BF16, inner),
        fixed(F32, [inner]),
    ];
    let attrs: Attrs = vec![
        BF16.into(),
        inner.into(),
        shared.into(),
        0.0.into(),
        f64::INFINITY.into(),
        heads.into(),
        groups.into(),
        F32.into(),
        1e-5.into(),
        (inner / groups).into(),
        BF16.into(),
    ];
    spec("conv_ssd_norm", attrs, operands)
}

fn ssd_recurrent_packed(heads: u64) -> KernelSpec {
    let (inner, shared) = (heads * 80, 8 * 128);
    let shape = vec![Symbol::S.into(), heads.into(), 128.into(), 80.into()];
    let operands = vec![
        rows(BF16, inner + 2 * shared),
        rows(BF16, heads),
        fixed(F32, [heads]),
        fixed(F32, [heads]),
        fixed(F32, [heads]),
        Layout::dense(Type { dtype: F32, shape }),
    ];
    let bounds: [ops::Attr; 2] = [0.0.into(), f64::INFINITY.into()];
    let mut attrs: Attrs = vec![inner.into(), shared.into()];
    attrs.extend(bounds);
    attrs.extend([ops::Attr::from(heads), 8.into(), F32.into()]);
    spec("ssd_recurrent_packed", attrs, operands)
}

fn norm_linear_conv(k: u64, heads: u64) -> KernelSpec {
    let inner = heads * 80;
    let middle = inner + 2 * 8 * 128;
    let state = vec![Symbol::S.into(), 3.into(), middle.into()];
    let operands = vec![
        rows(BF16, k),
        fixed(F32, [k]),
        fixed(BF16, [inner + middle + heads, k]),
        fixed(F32, [middle, 4]),
        fixed(F32, [middle]),
        Layout::dense(Type { dtype: BF16, shape: state }),
    ];
    let attrs: Attrs = vec![
        1e-5.into(),
        k.into(),
        BF16.into(),
        inner.into(),
        middle.into(),
        heads.into(),
        BF16.into(),
        BF16.into(),
    ];
    spec("norm_linear_conv", attrs, operands)
}

fn norm_linear_swiglu(k: u64, n: u64) -> KernelSpec {
    let attrs: Attrs = vec![1e-5.into(), k.into(), BF16.into(), BF16.into(), BF16.into()];
    let weight = || fixed(BF16, [n, k]);
    spec("norm_linear_swiglu", attrs, vec![rows(BF16, k), fixed(F32, [k]), weight(), weight()])
}

/// 32 query heads and 8 KV heads of 128.
fn norm_linear_rope_qkv(k: u64) -> KernelSpec {
    let kv = vec![Symbol::N.into(), 2.into(), 8.into(), 64.into(), 128.into()];
    let operands = vec![
        rows(BF16, k),
        fixed(F32, [k]),
        fixed(BF16, [32 * 128, k]),
        fixed(BF16, [8 * 128, k]),
        fixed(BF16, [8 * 128, k]),
        fixed(F32, [1024, 128]),
        Layout::dense(Type { dtype: BF16, shape: kv }),
    ];
    let attrs: Attrs = vec![1e-5.into(), k.into(), BF16.into(), BF16.into(), BF16.into()];
    spec("norm_linear_rope_qkv", attrs, operands)
}

/// The spec of an op with its step inputs and results.
fn spec(name: &str, attrs: Attrs, mut operands: Vec<Layout>) -> KernelSpec {
    let op = ops::op(name).expect("the table has it");
    operands.extend(op.operands.iter().filter_map(|operand| match operand.kind {
        OperandKind::Step(input) => Some(Layout::dense(input.ty())),
        _ => None,
    }));
    let results = results(op, &attrs, &operands);
    let dense = |(index, ty)| op.superseded(index).is_none().then(|| Layout::dense(ty));
    let results = results.into_iter().enumerate().filter_map(dense).collect();
    KernelSpec { op, attrs, operands, results, steps: None, form: None }
}

fn results(op: ops::Op, attrs: &Attrs, operands: &[Layout]) -> Vec<Type> {
    let types: Vec<&Type> = operands.iter().map(|layout| &layout.ty).collect();
    let args = OpArgs::new(op, &types, attrs).expect("the operands fit the op");
    (op.infer)(&args).expect("they have types")
}

/// A place in a buffer, and how a tensor lies there.
#[derive(Clone)]
struct Place {
    buffer: usize,
    offset: u64,
    layout: Layout,
}

/// A fused op and its chain over the same buffers.
struct Comparison {
    code: object::Code,
    buffers: Vec<Region>,
    /// Copies of the weights, so that none is in cache when its turn comes.
    copies: u64,
    fused: Vec<Place>,
    chain: Vec<(String, Vec<Place>)>,
    dims: StepDims,
}

impl Comparison {
    fn new(target: &HostTarget, fused: &KernelSpec, tokens: u64) -> Self {
        let dims = StepDims { tokens, seqs: 1, rows: 1, pages: tokens.div_ceil(64) };
        let mut this = Self {
            code: object::load(&compile(target, &[], Listings::default()).expect("nothing compiles").elf)
                .expect("it loads"),
            buffers: Vec::new(),
            copies: 1,
            fused: Vec::new(),
            chain: Vec::new(),
            dims,
        };
        let weight: u64 = fused
            .op
            .operands
            .iter()
            .zip(&fused.operands)
            .filter(|(operand, layout)| operand.kind == OperandKind::Weight && layout.ty.shape.len() == 2)
            .map(|(_, layout)| bytes(&layout.ty, dims))
            .sum();
        if tokens == 1 {
            this.copies = ((256 << 20) / weight.max(4 << 20)).max(1);
        }
        for (operand, layout) in fused.op.operands.iter().zip(&fused.operands) {
            let place = this.room(layout, operand.kind == OperandKind::Weight);
            if operand.kind == OperandKind::Step(StepInput::SeqStart) {
                let end = &mut this.buffers[place.buffer].bytes_mut()[4..8];
                end.copy_from_slice(&(tokens as i32).to_le_bytes());
            }
            this.fused.push(place);
        }
        let operands = this.fused.clone();
        for result in &fused.results {
            let place = this.room(result, false);
            this.fused.push(place);
        }
        let mut specs = vec![("fused".to_owned(), fused.clone())];
        let recipe = Recipe::of(fused.op).expect("it is fused");
        let mut values: Vec<Vec<Place>> = Vec::new();
        for (index, step) in recipe.steps.iter().enumerate() {
            let given = |source: &Source| match *source {
                Source::Operand(operand) => operands[operand].clone(),
                Source::Step { step, result } => values[step][result].clone(),
            };
            let mut args: Vec<Place> = step.operands.iter().flatten().map(given).collect();
            let attrs = step.attrs(&fused.attrs);
            let layouts: Vec<Layout> = args.iter().map(|place| place.layout.clone()).collect();
            let types = results(step.op, &attrs, &layouts);
            if let ("slice", ops::Attr::Int(offset)) =
                (step.op.name, attrs.first().copied().unwrap_or(0.into()))
            {
                // A view, as in a plan.
                let of = args[0].clone();
                let layout = Layout { row_stride: of.layout.row_stride, ..Layout::dense(types[0].clone()) };
                let offset = of.offset + offset * layout.dtype().bytes();
                values.push(vec![Place { offset, layout, ..of }]);
                continue;
            }
            let mut own = Vec::new();
            let mut dense = Vec::new();
            for (result, ty) in types.into_iter().enumerate() {
                if let Some(state) = step.op.superseded(result) {
                    own.push(given(&step.operands[state].expect("a state is given")));
                    continue;
                }
                let layout = Layout::dense(ty);
                let place = this.room(&layout, false);
                dense.push(layout);
                args.push(place.clone());
                own.push(place);
            }
            let symbol = format!("step{index}");
            let spec =
                KernelSpec { op: step.op, attrs, operands: layouts, results: dense, steps: None, form: None };
            specs.push((symbol.clone(), spec));
            this.chain.push((symbol, args));
            values.push(own);
        }
        let object = compile(target, &specs, Listings::default()).expect("the kernels compile");
        this.code = object::load(&object.elf).expect("they load");
        this
    }

    fn room(&mut self, layout: &Layout, is_weight: bool) -> Place {
        let copies = if is_weight && layout.ty.shape.len() == 2 { self.copies } else { 1 };
        // `seq_start` has one more element than its type says.
        let mut region = Region::new(copies * bytes(&layout.ty, self.dims) + 64).expect("room");
        if layout.dtype() != Dtype::I32 {
            region.bytes_mut().fill(0x3C);
        }
        self.buffers.push(region);
        Place { buffer: self.buffers.len() - 1, offset: 0, layout: layout.clone() }
    }

    /// Median seconds of the fused kernel and of the chain.
    fn measure(&mut self, pool: &mut Pool) -> (f64, f64) {
        let call = |(symbol, args): &(String, Vec<Place>)| {
            (self.code.function(symbol).expect("it is there"), args.clone())
        };
        let fused = vec![call(&("fused".to_owned(), self.fused.clone()))];
        let chain: Vec<_> = self.chain.iter().map(call).collect();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            first.push(self.run(pool, &fused));
            second.push(self.run(pool, &chain));
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        (median(first), median(second))
    }

    fn run(&mut self, pool: &mut Pool, launches: &[(KernelFn, Vec<Place>)]) -> f64 {
        let dims = self.dims;
        let copies = self.copies;
        let start = Instant::now();
        for copy in 0..copies {
            let calls: Vec<(KernelFn, Shared)> = launches
                .iter()
                .map(|(function, args)| {
                    let pointer = |place: &Place| {
                        let bytes = bytes(&place.layout.ty, dims);
                        let region = &mut self.buffers[place.buffer];
                        let is_copied = region.bytes_mut().len() as u64 >= copies * bytes && copies > 1;
                        let is_weight = place.layout.ty.shape.iter().all(|dim| matches!(dim, Dim::Const(_)));
                        let matrix = place.layout.ty.shape.len() == 2;
                        let shift = if is_copied && is_weight && matrix { copy * bytes } else { 0 };
                        region.bytes_mut()[(place.offset + shift) as usize..].as_mut_ptr()
                    };
                    (*function, Shared(args.iter().map(pointer).collect()))
                })
                .collect();
            let calls = &calls;
            pool.run(&move |worker| {
                for (index, (function, args)) in calls.iter().enumerate() {
                    if index > 0 {
                        worker.barrier();
                    }
                    // SAFETY: the buffers have the sizes of the spec and outlive the call.
                    unsafe { function(args.0.as_ptr(), &raw const dims, worker.thread, worker.threads) };
                }
            });
        }
        start.elapsed().as_secs_f64() / copies as f64
    }
}

fn bytes(ty: &Type, dims: StepDims) -> u64 {
    ty.bytes(|symbol| match symbol {
        Symbol::T => dims.tokens,
        Symbol::R | Symbol::S | Symbol::N => 1,
        Symbol::L => dims.rows,
        Symbol::P => dims.pages,
    })
}

/// Pointers that threads may share.
struct Shared(Vec<*mut u8>);
// SAFETY: kernels write disjoint parts of their results from their threads and only read the rest.
unsafe impl Sync for Shared {}
