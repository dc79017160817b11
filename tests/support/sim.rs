//! Generated GPU code, run in the simulator with all its checks.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use gpu_check::card::matrix_map;
use gpu_check::launch::{Map, Places, Prepared, Room};
use half::bf16;
use nemo_ir::ops::OperandKind;
use nemo_ir::plan::{Extent, Geometry, Phase, TensorMap};
use nemo_ir::step::{PAGE_TOKENS, StepDims, StepInput};
use nemo_ir::types::{Dtype, Symbol};
use nemo_kernels::nvptx::{self, Candidate, Form, NvptxError};
use nemo_kernels::spec::{KernelSpec, Layout, Steps};
use nemo_kernels::target::Sm;
use ptx_sim::{Counts, Launch, Memory, Module, Options};

use crate::native::{Buffer, extent};

/// Largest T of each range of decode steps that kernels are made for here, as in plans.
const DECODE_ENDS: [u64; 5] = [1, 8, 16, 64, 256];
/// Largest T of the steps that prefill kernels are made for here.
const PREFILL: u64 = 512;

/// The kernel of one spec for a GPU, in one form for each range of steps.
pub(crate) struct SimKernel {
    sm: Sm,
    phase: Phase,
    spec: KernelSpec,
    compiled: RefCell<HashMap<Steps, Compiled>>,
    counts: RefCell<Counts>,
}

struct Compiled {
    module: Module,
    geometry: Geometry,
}

impl SimKernel {
    /// Decode kernels serve the steps in which each sequence has one token; all others go to the prefill kernel.
    pub(crate) fn new(sm: Sm, phase: Phase, spec: &KernelSpec) -> Self {
        Self { sm, phase, spec: placed(spec), compiled: RefCell::default(), counts: RefCell::default() }
    }

    /// The forms in which there is a kernel for a step.
    pub(crate) fn forms(&self, dims: StepDims) -> Vec<Form> {
        let all = forms(self.sm, self.phase, &self.spec, dims).unwrap_or_else(|error| panic!("{error}"));
        all.into_iter().filter_map(|(spec, _)| spec.form).collect()
    }

    /// From now on it is built in that form.
    pub(crate) fn build_by(&mut self, form: Form) {
        self.spec.form = Some(form);
        self.compiled.borrow_mut().clear();
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
        let mut compiled = self.compiled.borrow_mut();
        let kernel = compiled.entry(steps).or_insert_with(|| Compiled::of(self.sm, &self.spec, steps));
        let launch = prepared(&self.spec, &kernel.geometry, buffers, args, dims);
        let mut memory = Memory::new();
        let mut rooms = Vec::new();
        for (buffer, room) in buffers.iter().zip(&launch.rooms) {
            let address = memory.alloc(room.bytes + room.shift) + room.shift;
            memory.write(address, buffer.bytes()).expect("it was just allocated");
            if !buffer.is_written() {
                memory.mark_unwritten(address, room.bytes).expect("it was just allocated");
            }
            rooms.push(address);
        }
        for (arg, bytes) in nobodys(&self.spec, buffers, args) {
            let length = bytes.end - bytes.start;
            memory.mark_unwritten(rooms[arg] + bytes.start, length).expect("it was just allocated");
        }
        let counters = memory.alloc(launch.counters.max(1) * 4);
        memory.write(counters, &vec![0; launch.counters as usize * 4]).expect("it was just allocated");
        let partials = memory.alloc(launch.partials.max(1));
        let places = Places { rooms, counters, partials };
        let params = launch.parameters(&places, matrix_map).unwrap_or_else(|error| panic!("{error}"));
        let run = Launch {
            kernel: "kernel",
            grid: launch.grid,
            block: [launch.threads, 1, 1],
            dynamic_shared: launch.shared,
            params: &params,
        };
        let counts = ptx_sim::run(&kernel.module, &mut memory, &run, &Options::default())
            .unwrap_or_else(|fault| panic!("{} for {steps}: {fault}", self.spec));
        *self.counts.borrow_mut() = counts;
        for (buffer, address) in buffers.iter_mut().zip(places.rooms) {
            memory.read(address, buffer.bytes_mut()).expect("it is still there");
        }
        let mut left = vec![0; launch.counters as usize * 4];
        memory.read(counters, &mut left).expect("it is still there");
        assert!(left.iter().all(|byte| *byte == 0), "{}: counters are not zero again", self.spec);
    }
}

/// What one decode step of one sequence costs that has `context` tokens in its cache, all values zero.
///
/// # Panics
/// When a check of the simulator fires.
pub fn cost_of_a_token(sm: Sm, spec: &KernelSpec, context: u64) -> Counts {
    let pages = (context + 1).div_ceil(PAGE_TOKENS);
    let dims = StepDims { tokens: 1, seqs: 1, rows: 1, pages };
    let value = |symbol| match symbol {
        Symbol::S => 1,
        Symbol::N => pages,
        symbol => extent(dims, symbol),
    };
    let ints = |ints: &[i32]| ints.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let mut buffers = Vec::new();
    let places = (0..spec.op.operands.len()).filter(|index| spec.present(*index).is_some());
    for (layout, place) in spec.operands.iter().zip(places) {
        let bytes = match spec.op.operands[place].kind {
            OperandKind::Step(StepInput::SeqStart) => ints(&[0, 1]),
            OperandKind::Step(StepInput::Context | StepInput::Positions) => ints(&[context as i32]),
            OperandKind::Step(StepInput::Pages) => ints(&(0..pages as i32).collect::<Vec<_>>()),
            _ => {
                let gap = layout.row_stride - layout.ty.width().unwrap_or(layout.row_stride);
                vec![0; (layout.ty.bytes(value) + gap * layout.dtype().bytes()) as usize]
            }
        };
        buffers.push(Buffer::new(&bytes));
    }
    buffers.extend(spec.results.iter().map(|result| Buffer::poisoned(&result.ty, dims)));
    let args: Vec<usize> = (0..buffers.len()).collect();
    let kernel = SimKernel::new(sm, Phase::Decode, spec);
    kernel.call(&mut buffers, &args, dims);
    kernel.counts.into_inner()
}

/// The parts of states that nobody has written, by buffer: a test has NaN there.
fn nobodys(spec: &KernelSpec, buffers: &[Buffer], args: &[usize]) -> Vec<(usize, Range<u64>)> {
    let places = (0..spec.op.operands.len()).filter(|place| spec.present(*place).is_some());
    let mut parts: Vec<(usize, Range<u64>)> = Vec::new();
    for ((place, layout), arg) in places.zip(&spec.operands).zip(args) {
        if spec.op.operands[place].kind != OperandKind::State {
            continue;
        }
        let size = layout.dtype().bytes();
        let elements = (0..).step_by(size as usize).zip(buffers[*arg].bytes().chunks(size as usize));
        for (at, _) in elements.filter(|(_, element)| is_nan(layout.dtype(), element)) {
            match parts.last_mut() {
                Some((last, bytes)) if last == arg && bytes.end == at => bytes.end += size,
                _ => parts.push((*arg, at..at + size)),
            }
        }
    }
    parts
}

fn is_nan(dtype: Dtype, element: &[u8]) -> bool {
    match (dtype, element) {
        (Dtype::Bf16, &[low, high]) => bf16::from_le_bytes([low, high]).is_nan(),
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).is_nan(),
        _ => false,
    }
}

/// The launch of a spec's kernel for a step.
pub(crate) fn prepared(
    spec: &KernelSpec,
    geometry: &Geometry,
    buffers: &[Buffer],
    args: &[usize],
    dims: StepDims,
) -> Prepared {
    let room = |(index, buffer): (usize, &Buffer)| {
        // A view lies as its layout says and no better.
        let place = args[..spec.operands.len()].iter().position(|arg| *arg == index);
        let align = place.map_or(Layout::ALIGNED, |place| spec.operands[place].align);
        let shift = if align < Layout::ALIGNED { align } else { 0 };
        Room { bytes: buffer.bytes().len() as u64, shift }
    };
    let rooms: Vec<Room> = buffers.iter().enumerate().map(room).collect();
    let map = |map: &TensorMap| Map {
        arg: map.arg,
        dtype: map.dtype,
        rows: match map.rows {
            Extent::Per { symbol: Symbol::S | Symbol::N, .. } => rooms[args[map.arg]].bytes / map.row_bytes,
            rows => value(rows, dims),
        },
        columns: map.columns,
        row_bytes: map.row_bytes,
        box_rows: map.box_rows,
        box_columns: map.box_columns,
        swizzle: map.swizzle,
    };
    Prepared {
        grid: geometry.grid.map(|extents| value(extents, dims) as u32),
        threads: geometry.threads,
        shared: geometry.shared,
        maps: geometry.maps.iter().map(map).collect(),
        rooms,
        args: args.to_vec(),
        counters: geometry.counters,
        partials: geometry.partials,
        dims: [dims.tokens, dims.seqs, dims.rows, dims.pages].map(|dim| dim as i32),
    }
}

/// The kernels that can run a step, one for each form: spec, and how it is launched.
pub(crate) fn forms(
    sm: Sm,
    phase: Phase,
    spec: &KernelSpec,
    dims: StepDims,
) -> Result<Vec<(KernelSpec, Geometry)>, NvptxError> {
    let spec = KernelSpec { steps: Some(steps_for(phase, dims)), ..placed(spec) };
    let by = |made: Candidate| (KernelSpec { form: Some(made.form), ..spec.clone() }, made.geometry);
    Ok(nvptx::candidates(sm, &spec)?.into_iter().map(by).collect())
}

/// One of the forms of a spec: that which it names, or else which of them is a matter of its text, so that the
/// kernels of many specs are of all forms.
fn one_of(sm: Sm, spec: &KernelSpec) -> Result<(KernelSpec, Geometry), NvptxError> {
    if spec.form.is_some() {
        return Ok((spec.clone(), nvptx::candidate(sm, spec)?.geometry));
    }
    let candidates = nvptx::candidates(sm, spec)?;
    let mut hasher = DefaultHasher::new();
    spec.to_string().hash(&mut hasher);
    let made = &candidates[(hasher.finish() % candidates.len() as u64) as usize];
    Ok((KernelSpec { form: Some(made.form), ..spec.clone() }, made.geometry.clone()))
}

/// A spec with the alignment that its tensors have here.
fn placed(spec: &KernelSpec) -> KernelSpec {
    let layouts = |layouts: &[Layout]| layouts.iter().map(aligned).collect();
    KernelSpec { operands: layouts(&spec.operands), results: layouts(&spec.results), ..spec.clone() }
}

impl Compiled {
    fn of(sm: Sm, spec: &KernelSpec, steps: Steps) -> Self {
        let spec = KernelSpec { steps: Some(steps), ..spec.clone() };
        let (spec, geometry) = one_of(sm, &spec).unwrap_or_else(|error| panic!("{error}"));
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
