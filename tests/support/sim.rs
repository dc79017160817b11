//! Generated GPU code, run in the simulator with all its checks.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;

use nemo_ir::plan::{Extent, Geometry, Phase, TensorMap};
use nemo_ir::step::StepDims;
use nemo_ir::types::{Dtype, Symbol};
use nemo_kernels::nvptx;
use nemo_kernels::spec::{KernelSpec, Layout, Steps};
use nemo_kernels::target::Sm;
use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma_map::{self, DataType, OobFill, TensorSpec};
use ptx_sim::{Counts, Launch, Memory, Module, Options};

use crate::native::{Buffer, extent};

/// Largest T of each range of decode steps that kernels are made for here, as in plans.
const DECODE_ENDS: [u64; 4] = [1, 8, 64, 256];
/// Largest T of the steps that prefill kernels are made for here.
const PREFILL: u64 = 512;

/// The kernel of one spec for a GPU, in one form for each range of steps.
pub(crate) struct SimKernel {
    sm: Sm,
    phase: Phase,
    spec: KernelSpec,
    forms: RefCell<HashMap<Steps, Form>>,
    counts: RefCell<Counts>,
}

struct Form {
    module: Module,
    geometry: Geometry,
}

impl SimKernel {
    /// Decode kernels serve the steps in which each sequence has one token; all others go to the prefill kernel.
    pub(crate) fn new(sm: Sm, phase: Phase, spec: &KernelSpec) -> Self {
        let layouts = |layouts: &[Layout]| layouts.iter().map(aligned).collect();
        let (operands, results) = (layouts(&spec.operands), layouts(&spec.results));
        let spec = KernelSpec { operands, results, ..spec.clone() };
        Self { sm, phase, spec, forms: RefCell::default(), counts: RefCell::default() }
    }

    /// What the last launch cost.
    pub(crate) fn counts(&self) -> Ref<'_, Counts> {
        self.counts.borrow()
    }

    /// Launches the kernel; `args` are indices of buffers.
    ///
    /// # Panics
    /// When a check of the simulator fires.
    pub(crate) fn call(&self, buffers: &mut [Buffer], args: &[usize], dims: StepDims) {
        let steps = steps_for(self.phase, dims);
        let mut forms = self.forms.borrow_mut();
        let form = forms.entry(steps).or_insert_with(|| Form::of(self.sm, &self.spec, steps));
        let mut memory = Memory::new();
        let mut addresses = Vec::new();
        for (index, buffer) in buffers.iter().enumerate() {
            // A view lies as its layout says and no better.
            let place = args[..self.spec.operands.len()].iter().position(|arg| *arg == index);
            let align = place.map_or(Layout::ALIGNED, |place| self.spec.operands[place].align);
            let shift = if align < Layout::ALIGNED { align } else { 0 };
            let address = memory.alloc(buffer.bytes().len() as u64 + shift) + shift;
            memory.write(address, buffer.bytes()).expect("it was just allocated");
            if !buffer.is_written() {
                memory.mark_unwritten(address, buffer.bytes().len() as u64).expect("it was just allocated");
            }
            addresses.push(address);
        }
        let counters = memory.alloc(form.geometry.counters.max(1) * 4);
        memory.write(counters, &vec![0; form.geometry.counters as usize * 4]).expect("it was just allocated");
        let partials = memory.alloc(form.geometry.partials.max(1));
        let pointers: Vec<u64> = args.iter().map(|arg| addresses[*arg]).collect();
        let mut params: Vec<u8> = Vec::new();
        for pointer in pointers.iter().chain(&[counters, partials]) {
            params.extend(pointer.to_le_bytes());
        }
        for dim in [dims.tokens, dims.seqs, dims.rows, dims.pages] {
            params.extend((dim as i32).to_le_bytes());
        }
        for map in &form.geometry.maps {
            params.resize(params.len().next_multiple_of(64), 0);
            let bytes = buffers[args[map.arg]].bytes().len() as u64;
            params.extend(tensor_map(map, pointers[map.arg], bytes, dims));
        }
        let grid = form.geometry.grid.map(|extents| value(extents, dims) as u32);
        let launch = Launch {
            kernel: "kernel",
            grid,
            block: [form.geometry.threads, 1, 1],
            dynamic_shared: form.geometry.shared,
            params: &params,
        };
        let counts = ptx_sim::run(&form.module, &mut memory, &launch, &Options::default())
            .unwrap_or_else(|fault| panic!("{} for {steps}: {fault}", self.spec));
        *self.counts.borrow_mut() = counts;
        for (buffer, address) in buffers.iter_mut().zip(addresses) {
            memory.read(address, buffer.bytes_mut()).expect("it is still there");
        }
        let mut left = vec![0; form.geometry.counters as usize * 4];
        memory.read(counters, &mut left).expect("it is still there");
        assert!(left.iter().all(|byte| *byte == 0), "{}: counters are not zero again", self.spec);
    }
}

impl Form {
    fn of(sm: Sm, spec: &KernelSpec, steps: Steps) -> Self {
        let spec = KernelSpec { steps: Some(steps), ..spec.clone() };
        let geometry = nvptx::geometry_of(sm, &spec).unwrap_or_else(|error| panic!("{error}"));
        let module = nvptx::compile(sm, &[("kernel".to_owned(), spec)], false);
        let ptx = module.unwrap_or_else(|error| panic!("{error}")).ptx;
        let module = Module::parse(&ptx).unwrap_or_else(|error| panic!("{error}"));
        Self { module, geometry }
    }
}

/// Dense tensors begin at a multiple of 16 bytes, views at one that their rows keep, and no better.
fn aligned(layout: &Layout) -> Layout {
    let dense = layout.ty.width().is_none_or(|width| width == layout.row_stride);
    let row_bytes = layout.row_stride * layout.dtype().bytes();
    layout.clone().aligned(if dense { Layout::ALIGNED } else { 1 << row_bytes.trailing_zeros() })
}

/// The range of steps whose kernel runs this one.
fn steps_for(phase: Phase, dims: StepDims) -> Steps {
    if phase == Phase::Decode && dims.tokens == dims.seqs {
        let end = DECODE_ENDS.iter().position(|end| dims.tokens <= *end).expect("not more than the last");
        let min_tokens = if end == 0 { 1 } else { DECODE_ENDS[end - 1] + 1 };
        let max_tokens = DECODE_ENDS[end];
        return Steps { phase, min_tokens, max_tokens, max_seqs: max_tokens };
    }
    let max_tokens = dims.tokens.max(PREFILL);
    Steps { phase: Phase::Prefill, min_tokens: 1, max_tokens, max_seqs: dims.seqs.max(8) }
}

fn value(extents: Extent, dims: StepDims) -> u64 {
    extents.value(|symbol| extent(dims, symbol))
}

fn tensor_map(map: &TensorMap, address: u64, bytes: u64, dims: StepDims) -> [u8; 128] {
    let rows = match map.rows {
        Extent::Per { symbol: Symbol::S | Symbol::N, .. } => bytes / map.row_bytes,
        rows => value(rows, dims),
    };
    let (extents, boxes) = ([rows, map.columns], [map.box_rows, map.box_columns]);
    matrix_map(map.dtype, address, extents, map.row_bytes, boxes, map.swizzle)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The tensor map of a matrix: rows and columns, of the matrix and of a box.
pub(crate) fn matrix_map(
    dtype: Dtype,
    address: u64,
    [rows, columns]: [u64; 2],
    row_bytes: u64,
    [box_rows, box_columns]: [u32; 2],
    swizzle: u32,
) -> Result<[u8; 128], String> {
    let dtype = match dtype {
        Dtype::Bf16 => DataType::Bf16,
        Dtype::F32 => DataType::F32,
        other => return Err(format!("no kernel reads boxes of {other}")),
    };
    let swizzle = match swizzle {
        0 => Swizzle::None,
        32 => Swizzle::B32,
        64 => Swizzle::B64,
        128 => Swizzle::B128,
        other => return Err(format!("there is no swizzle over {other} bytes")),
    };
    let spec = TensorSpec {
        dtype,
        rank: 2,
        address,
        dims: [columns, rows, 1, 1, 1],
        strides: [row_bytes, 0, 0, 0],
        box_dims: [box_columns, box_rows, 1, 1, 1],
        element_strides: [1; 5],
        swizzle,
        fill: OobFill::Zero,
    };
    tma_map::TensorMap::new(spec).map(|map| map.encode()).map_err(|error| error.to_string())
}
