//! Runs one op as generated code and through the interpreter, on the same tensors. On a CPU a fused op also
//! runs as the chain of kernels that it replaces, and must give the same bits.

use std::cell::Ref;
use std::collections::BTreeMap;
use std::fmt;

use gpu_check::launch::Prepared;
use half::bf16;
use nemo_ir::graph::{Block, BlockBuilder, Node};
use nemo_ir::interp::{Data, Numerics, Step, Tensor, run_block};
use nemo_ir::ops::{Attrs, OperandKind};
use nemo_ir::plan::{Geometry, Phase};
use nemo_ir::rope::RopeTable;
use nemo_ir::step::StepInput;
use nemo_ir::types::{Dim, Dtype, Symbol, Type};
use nemo_kernels::nvptx::Form;
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_kernels::target::{HostTarget, Sm};
use ptx_sim::Counts;

use crate::chain::Chain;
use crate::native::{Buffer, Kernels};
use crate::sim::{SimKernel, forms, prepared};

/// An operand of the op under test, step inputs aside.
#[derive(Debug, Clone)]
pub enum Given {
    /// An activation or a weight.
    Tensor {
        /// Its elements.
        tensor: Tensor,
        /// How they are stored.
        dtype: Dtype,
        /// What the first extent counts; `None` for weights.
        rows: Option<Symbol>,
        /// Elements from row to row, where that is not the width.
        stride: Option<usize>,
    },
    /// State: the first extent is the number of slots or pages.
    State {
        /// Its elements at the start.
        tensor: Tensor,
        /// How they are stored.
        dtype: Dtype,
        /// What the first extent counts.
        units: Symbol,
    },
    /// A table of angles.
    Table(RopeTable),
}

impl Given {
    /// An activation with dense rows.
    pub fn rows(tensor: Tensor, dtype: Dtype, rows: Symbol) -> Self {
        Self::Tensor { tensor, dtype, rows: Some(rows), stride: None }
    }

    /// A weight.
    pub fn weight(tensor: Tensor, dtype: Dtype) -> Self {
        Self::Tensor { tensor, dtype, rows: None, stride: None }
    }

    /// An activation whose rows are part of wider ones.
    pub fn view(tensor: Tensor, dtype: Dtype, rows: Symbol, stride: usize) -> Self {
        Self::Tensor { tensor, dtype, rows: Some(rows), stride: Some(stride) }
    }
}

/// An op with everything but the step and the state's contents.
#[derive(Debug)]
pub struct Case {
    /// Op name.
    pub op: &'static str,
    /// Attributes.
    pub attrs: Attrs,
    /// Operands in order, without step inputs.
    pub operands: Vec<Given>,
}

/// The first result of both sides, or the first state of an op without results, as real numbers; and
/// everything else that the op gives.
#[derive(Debug)]
pub struct Answers {
    /// What the generated code gave, exactly as stored.
    pub kernel: Vec<f64>,
    /// What the interpreter gave.
    pub reference: Vec<f64>,
    /// Further results, and states.
    pub others: Vec<Answers>,
    /// How the result is stored.
    pub dtype: Dtype,
}

/// What runs kernels in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// This machine's CPU.
    Host(HostTarget),
    /// A GPU in the simulator: the kernels of decode programs where a step fits them, or those of prefill programs alone.
    Sim(Sm, Phase),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(target) => write!(f, "{target}"),
            Self::Sim(sm, phase) => write!(f, "{}, {}", sm.name(), phase.name()),
        }
    }
}

impl From<HostTarget> for Backend {
    fn from(target: HostTarget) -> Self {
        Self::Host(target)
    }
}

enum Kernel {
    Host(Kernels),
    Sim(Box<SimKernel>),
}

/// Launches with what each must give.
pub(crate) struct Drawn {
    /// Kernels, and how they are launched.
    pub(crate) launches: Vec<(KernelSpec, Prepared)>,
    /// Bytes by room; `None` for what nobody has written.
    pub(crate) buffers: Vec<Option<Vec<u8>>>,
    /// Room, dtype and elements of results and states.
    pub(crate) expected: Vec<(usize, Dtype, Vec<f64>)>,
}

/// A compiled case with the state of all sides.
pub struct Machine {
    case: Case,
    block: Block,
    kernel: Kernel,
    chain: Option<Chain>,
    spec: KernelSpec,
    in_place: Option<(usize, usize)>,
    /// State bytes of the kernel's side, by operand.
    kernel_states: BTreeMap<usize, Vec<u8>>,
    chain_states: BTreeMap<usize, Vec<u8>>,
    reference_states: BTreeMap<String, Tensor>,
}

impl Machine {
    /// Compiles a case for what shall run it.
    pub fn new(backend: &Backend, case: Case) -> Self {
        let block = build(&case);
        let spec = spec_of(&block, &case);
        let (kernel, chain) = match backend {
            Backend::Host(target) => (
                Kernel::Host(Kernels::compile(target, &[("kernel".to_owned(), spec.clone())])),
                Chain::compile(target, &spec),
            ),
            Backend::Sim(sm, phase) => (Kernel::Sim(Box::new(SimKernel::new(*sm, *phase, &spec))), None),
        };
        let mut kernel_states = BTreeMap::new();
        let mut reference_states = BTreeMap::new();
        for (index, given) in case.operands.iter().enumerate() {
            if let Given::State { tensor, dtype, .. } = given {
                kernel_states.insert(index, stored(tensor, *dtype, None));
                reference_states.insert(format!("o{index}"), tensor.clone().rounded(*dtype));
            }
        }
        Self {
            case,
            block,
            kernel,
            chain,
            spec,
            in_place: None,
            chain_states: kernel_states.clone(),
            kernel_states,
            reference_states,
        }
    }

    /// Replaces the tensor of an operand, of the same type but for the number of rows.
    pub fn set(&mut self, operand: usize, new: Tensor) {
        match &mut self.case.operands[operand] {
            Given::Tensor { tensor, .. } => *tensor = new,
            other => panic!("operand {operand} is {other:?}"),
        }
    }

    /// The forms in which there is a kernel for a step; none on a CPU, where there is but one.
    pub fn forms(&self, step: &Step) -> Vec<Form> {
        match &self.kernel {
            Kernel::Host(_) => Vec::new(),
            Kernel::Sim(kernel) => kernel.forms(step.dims()),
        }
    }

    /// The same with the kernel built in that form, which it must have; without, a GPU's is of one of those it has.
    #[must_use]
    pub fn built_by(mut self, form: Form) -> Self {
        if let Kernel::Sim(kernel) = &mut self.kernel {
            kernel.build_by(form);
        }
        self
    }

    /// From now on the kernel writes a result, counted without states, over an operand.
    pub fn write_over(&mut self, operand: usize, result: usize) {
        self.in_place = Some((operand, result));
    }

    /// What the last step cost in the simulator; `None` on a CPU.
    pub fn counts(&self) -> Option<Ref<'_, Counts>> {
        match &self.kernel {
            Kernel::Host(_) => None,
            Kernel::Sim(kernel) => Some(kernel.counts()),
        }
    }

    /// Runs one step on all sides, on a CPU with the kernel's work shared by `threads`.
    ///
    /// # Panics
    /// When a fused op's kernel gives other bits than its chain.
    pub fn run(&mut self, step: &Step, threads: u32) -> Answers {
        let kernel = self.run_beside_chain(step, threads);
        let reference = self.run_reference(step);
        assert_eq!(kernel.len(), reference.len());
        let answers = kernel.iter().zip(reference).map(|((bytes, dtype), reference)| {
            let kernel = loaded(bytes, *dtype);
            assert_eq!(kernel.len(), reference.len());
            Answers { kernel, reference, others: Vec::new(), dtype: *dtype }
        });
        let mut answers: Vec<_> = answers.collect();
        let mut first = answers.remove(0);
        first.others = answers;
        first
    }

    /// As [`Machine::run`], for steps that the interpreter refuses: the bytes of results, then of states.
    pub fn run_beside_chain(&mut self, step: &Step, threads: u32) -> Vec<(Vec<u8>, Dtype)> {
        let kernel = self.run_kernel(step, threads);
        self.run_chain(step, threads, &kernel);
        kernel
    }

    /// One step of the interpreter, with the launches that must give the same, one for each form of the kernel.
    ///
    /// # Panics
    /// Where the target has no kernel for it.
    pub(crate) fn draw(&mut self, sm: Sm, phase: Phase, step: &Step) -> Drawn {
        let (buffers, args) = self.memory(step, &self.stored_states());
        let dims = step.dims();
        let forms = forms(sm, phase, &self.spec, dims).unwrap_or_else(|error| panic!("{error}"));
        let launch = |(spec, geometry): (KernelSpec, Geometry)| {
            let launch = prepared(&spec, &geometry, &buffers, &args, dims);
            (spec, launch)
        };
        let launches = forms.into_iter().map(launch).collect();
        let bytes = |buffer: &Buffer| buffer.is_written().then(|| buffer.bytes().to_vec());
        let buffers = buffers.iter().map(bytes).collect();
        let results = args[self.spec.operands.len()..].iter().zip(&self.spec.results);
        let mut rooms: Vec<_> = results.map(|(room, result)| (*room, result.dtype())).collect();
        for index in self.kernel_states.keys() {
            let Given::State { dtype, .. } = self.case.operands[*index] else { unreachable!("a state") };
            rooms.push((*index, dtype));
        }
        let expected = rooms.into_iter().zip(self.run_reference(step));
        let expected = expected.map(|((room, dtype), values)| (room, dtype, values)).collect();
        Drawn { launches, buffers, expected }
    }

    /// The reference's states, as kernels have them.
    fn stored_states(&self) -> BTreeMap<usize, Vec<u8>> {
        let stored = |index: &usize| {
            let Given::State { dtype, .. } = self.case.operands[*index] else { unreachable!("a state") };
            (*index, stored(&self.reference_states[&format!("o{index}")], dtype, None))
        };
        self.kernel_states.keys().map(stored).collect()
    }

    /// What arguments point to: operands, then results; and which, by argument.
    fn memory(&self, step: &Step, states: &BTreeMap<usize, Vec<u8>>) -> (Vec<Buffer>, Vec<usize>) {
        let mut buffers = self.buffers(step, states);
        let mut args: Vec<usize> = (0..buffers.len()).collect();
        for (index, result) in self.spec.results.iter().enumerate() {
            let over = self.in_place.filter(|(_, result)| *result == index);
            args.push(over.map_or(buffers.len(), |(operand, _)| operand));
            if over.is_none() {
                buffers.push(Buffer::poisoned(&result.ty, step.dims()));
            }
        }
        (buffers, args)
    }

    /// Results, then states.
    fn run_reference(&mut self, step: &Step) -> Vec<Vec<f64>> {
        let mut inputs = BTreeMap::new();
        let mut weights = BTreeMap::new();
        for (index, given) in self.case.operands.iter().enumerate() {
            if let Given::Tensor { tensor, dtype, rows, .. } = given {
                let map = if rows.is_some() { &mut inputs } else { &mut weights };
                map.insert(format!("o{index}"), tensor.clone().rounded(*dtype));
            }
        }
        let weight = |name: &str, _: &Type| weights[name].clone();
        let states = &mut self.reference_states;
        let outputs = run_block(&self.block, &inputs, weight, states, step, Numerics::Declared)
            .unwrap_or_else(|error| panic!("{error}"));
        let results = (0..self.spec.results.len()).map(|index| reals(&outputs[&format!("r{index}")]));
        let states =
            self.kernel_states.keys().map(|index| reals(&self.reference_states[&format!("o{index}")]));
        results.chain(states).collect()
    }

    /// Results, then states, with their dtypes.
    fn run_kernel(&mut self, step: &Step, threads: u32) -> Vec<(Vec<u8>, Dtype)> {
        let (mut buffers, args) = self.memory(step, &self.kernel_states);
        match &self.kernel {
            Kernel::Host(kernels) => kernels.call("kernel", &mut buffers, &args, step.dims(), threads),
            Kernel::Sim(kernel) => kernel.call(&mut buffers, &args, step.dims()),
        }
        for (index, bytes) in &mut self.kernel_states {
            *bytes = buffers[*index].bytes().to_vec();
        }
        let places = args[self.spec.operands.len()..].iter().zip(&self.spec.results);
        let results = places.map(|(place, result)| (buffers[*place].bytes().to_vec(), result.dtype()));
        let states = self.kernel_states.iter().map(|(index, bytes)| {
            let Given::State { dtype, .. } = self.case.operands[*index] else { unreachable!("a state") };
            (bytes.clone(), dtype)
        });
        results.chain(states).collect()
    }

    /// The same through the chain, bit by bit.
    fn run_chain(&mut self, step: &Step, threads: u32, kernel: &[(Vec<u8>, Dtype)]) {
        let Some(chain) = &self.chain else { return };
        let mut buffers = self.buffers(step, &self.chain_states);
        // Another number of threads: the bits do not depend on it.
        let results = chain.run(&mut buffers, step.dims(), threads % 3 + 1);
        for (index, bytes) in &mut self.chain_states {
            *bytes = buffers[*index].bytes().to_vec();
        }
        let all = results.iter().chain(self.chain_states.values());
        for (index, (one, (other, dtype))) in all.zip(kernel).enumerate() {
            if one == other {
                continue;
            }
            let (one, other) = (loaded(one, *dtype), loaded(other, *dtype));
            let mut pairs = one.iter().zip(&other).enumerate();
            let wrong = pairs.find(|(_, (a, b))| a.to_bits() != b.to_bits());
            let op = self.spec.op.name;
            panic!("`{op}`: result {index} differs from that of the chain, first at {wrong:?}");
        }
    }

    /// What the operands point to: those of the case, then the step's inputs.
    fn buffers(&self, step: &Step, states: &BTreeMap<usize, Vec<u8>>) -> Vec<Buffer> {
        let of_given = |(index, given): (usize, &Given)| match given {
            Given::Tensor { tensor, dtype, stride, .. } => Buffer::new(&stored(tensor, *dtype, *stride)),
            Given::State { .. } => Buffer::new(&states[&index]),
            Given::Table(table) => Buffer::new(&f32_bytes(&table.rows(table.positions))),
        };
        let mut buffers: Vec<_> = self.case.operands.iter().enumerate().map(of_given).collect();
        for operand in self.spec.op.operands {
            if let OperandKind::Step(input) = operand.kind {
                buffers.push(Buffer::new(&step_bytes(step, input)));
            }
        }
        buffers
    }
}

fn build(case: &Case) -> Block {
    let mut builder = BlockBuilder::new("case");
    let mut values = Vec::new();
    for (index, given) in case.operands.iter().enumerate() {
        let name = format!("o{index}");
        let dims = |tensor: &Tensor| tensor.shape().iter().map(|n| Dim::from(*n as u64)).collect::<Vec<_>>();
        values.push(match given {
            Given::Tensor { tensor, dtype, rows, .. } => {
                let mut shape = dims(tensor);
                match rows {
                    Some(symbol) => {
                        shape[0] = (*symbol).into();
                        builder.input(name, Type::new(*dtype, shape))
                    }
                    None => builder.weight(name, Type::new(*dtype, shape)),
                }
            }
            Given::State { tensor, dtype, units } => {
                let mut shape = dims(tensor);
                shape[0] = (*units).into();
                builder.state(name, Type::new(*dtype, shape))
            }
            Given::Table(table) => builder.table(*table),
        });
    }
    let results =
        builder.results(case.op, &values, case.attrs.clone()).unwrap_or_else(|error| panic!("{error}"));
    let op = nemo_ir::ops::op(case.op).expect("the builder has found it");
    let values_of = (0..results.len()).filter(|index| op.superseded(*index).is_none());
    let mut outputs: Vec<_> = values_of.map(|index| results[index]).collect();
    if outputs.is_empty() {
        // A block gives something; the harness compares the state itself.
        outputs.push(values[0]);
    }
    for (index, value) in outputs.into_iter().enumerate() {
        builder.output(format!("r{index}"), value);
    }
    builder.finish()
}

fn spec_of(block: &Block, case: &Case) -> KernelSpec {
    let node = block
        .graph
        .node_indices()
        .find(|node| matches!(block.graph[*node], Node::Op { .. }))
        .expect("the case has an op");
    let Node::Op { op, attrs, results } = &block.graph[node] else { unreachable!("found above") };
    let operands = block
        .operands(node)
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let mut layout = Layout::dense(block.ty(value));
            if let Some(Given::Tensor { stride: Some(stride), .. }) = case.operands.get(index) {
                layout.row_stride = *stride as u64;
            }
            layout
        })
        .collect();
    let is_state =
        |ty: &&Type| !matches!(ty.shape[0], dim if dim == Symbol::S.into() || dim == Symbol::N.into());
    let results = results.iter().filter(is_state).map(|ty| Layout::dense(ty.clone())).collect();
    KernelSpec { op, attrs: attrs.clone(), operands, results, steps: None, form: None }
}

fn reals(tensor: &Tensor) -> Vec<f64> {
    match tensor.data() {
        Data::Real(data) => data.clone(),
        Data::Int(data) => data.iter().map(|n| f64::from(*n)).collect(),
    }
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn stored(tensor: &Tensor, dtype: Dtype, stride: Option<usize>) -> Vec<u8> {
    let width = *tensor.shape().last().expect("tensors have extents");
    let gap = stride.map_or(0, |stride| stride - width);
    let values = reals(tensor);
    let rows = values.chunks(width.max(1));
    let values: Vec<f64> =
        rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f64::NAN, gap))).collect();
    stored_values(&values, dtype)
}

pub(crate) fn stored_values(values: &[f64], dtype: Dtype) -> Vec<u8> {
    let mut bytes = Vec::new();
    for x in values {
        match dtype {
            Dtype::F32 => bytes.extend((*x as f32).to_le_bytes()),
            Dtype::Bf16 => bytes.extend(bf16::from_f32(*x as f32).to_le_bytes()),
            Dtype::I32 => bytes.extend((*x as i32).to_le_bytes()),
            Dtype::F16 | Dtype::U8 => panic!("no kernel takes {dtype}"),
        }
    }
    bytes
}

pub(crate) fn loaded(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
    let word = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    match dtype {
        Dtype::F32 => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(word(b)))).collect(),
        Dtype::I32 => bytes.chunks(4).map(|b| f64::from(i32::from_le_bytes(word(b)))).collect(),
        Dtype::Bf16 => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        Dtype::F16 | Dtype::U8 => panic!("no kernel gives {dtype}"),
    }
}

fn step_bytes(step: &Step, input: StepInput) -> Vec<u8> {
    match step.tensor(input).data() {
        Data::Real(data) => f32_bytes(&data.iter().map(|x| *x as f32).collect::<Vec<_>>()),
        Data::Int(data) => data.iter().flat_map(|n| n.to_le_bytes()).collect(),
    }
}
