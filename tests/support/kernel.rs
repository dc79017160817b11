//! Runs one op as generated host code and through the interpreter, on the same tensors.
#![allow(unsafe_code, reason = "calls generated code")]

use std::collections::BTreeMap;

use half::bf16;
use nemo_ir::graph::{Block, BlockBuilder, Node};
use nemo_ir::interp::{Data, Numerics, Step, Tensor, run_block};
use nemo_ir::ops::{Attrs, OperandKind};
use nemo_ir::rope::RopeTable;
use nemo_ir::step::StepInput;
use nemo_ir::types::{Dim, Dtype, Symbol, Type};
use nemo_kernels::host::{Listings, compile};
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_kernels::target::HostTarget;
use nemort::device::host::object;

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

/// Results of both sides: the first result that is no state, as real numbers.
#[derive(Debug)]
pub struct Answers {
    /// What the generated code gave, exactly as stored.
    pub kernel: Vec<f64>,
    /// What the interpreter gave.
    pub reference: Vec<f64>,
}

/// A compiled case with the state of both sides.
pub struct Machine {
    case: Case,
    block: Block,
    code: object::Code,
    spec: KernelSpec,
    /// State bytes of the kernel's side, by operand.
    kernel_states: BTreeMap<usize, Vec<u8>>,
    reference_states: BTreeMap<String, Tensor>,
}

impl Machine {
    /// Compiles a case for a target.
    pub fn new(target: &HostTarget, case: Case) -> Self {
        let block = build(&case);
        let spec = spec_of(&block, &case);
        let object = compile(target, &[("kernel".to_owned(), spec.clone())], Listings::default())
            .unwrap_or_else(|error| panic!("{error}"));
        let code = object::load(&object.elf).unwrap_or_else(|error| panic!("{error}"));
        let mut kernel_states = BTreeMap::new();
        let mut reference_states = BTreeMap::new();
        for (index, given) in case.operands.iter().enumerate() {
            if let Given::State { tensor, dtype, .. } = given {
                kernel_states.insert(index, stored(tensor, *dtype, None));
                reference_states.insert(format!("o{index}"), tensor.clone().rounded(*dtype));
            }
        }
        Self { case, block, code, spec, kernel_states, reference_states }
    }

    /// Replaces the tensor of an operand, of the same type but for the number of rows.
    pub fn set(&mut self, operand: usize, new: Tensor) {
        match &mut self.case.operands[operand] {
            Given::Tensor { tensor, .. } => *tensor = new,
            other => panic!("operand {operand} is {other:?}"),
        }
    }

    /// Runs one step on both sides with the kernel's work shared by `threads`.
    pub fn run(&mut self, step: &Step, threads: u32) -> Answers {
        let kernel = self.run_kernel(step, threads);
        let reference = self.run_reference(step);
        assert_eq!(kernel.len(), reference.len());
        Answers { kernel, reference }
    }

    fn run_reference(&mut self, step: &Step) -> Vec<f64> {
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
        // Of an op that only writes state, the state is the answer.
        let result = outputs
            .get("r")
            .unwrap_or_else(|| states.values().next().expect("an op gives a result or a state"));
        reals(result)
    }

    fn run_kernel(&mut self, step: &Step, threads: u32) -> Vec<f64> {
        let mut buffers: Vec<Vec<u8>> = Vec::new();
        let mut places = Vec::new();
        for (index, given) in self.case.operands.iter().enumerate() {
            let bytes = match given {
                Given::Tensor { tensor, dtype, stride, .. } => stored(tensor, *dtype, *stride),
                Given::State { .. } => self.kernel_states[&index].clone(),
                Given::Table(table) => f32_bytes(&table.rows(table.positions)),
            };
            places.push(buffers.len());
            buffers.push(bytes);
        }
        let op = self.spec.op;
        for operand in op.operands {
            if let OperandKind::Step(input) = operand.kind {
                places.push(buffers.len());
                buffers.push(step_bytes(step, input));
            }
        }
        let dims = step.dims();
        let count = |symbol: Symbol| match symbol {
            Symbol::T => dims.tokens,
            Symbol::R => dims.seqs,
            Symbol::L => dims.rows,
            Symbol::P => dims.pages,
            Symbol::S | Symbol::N => 0,
        };
        for result in &self.spec.results {
            places.push(buffers.len());
            // Poison: an element that the kernel forgets is a NaN.
            buffers.push(vec![0xFF; result.ty.bytes(count) as usize]);
        }
        // Files promise element alignment and no more: every buffer is moved off any better one.
        let element = |bytes: &[u8]| if bytes.len().is_multiple_of(4) { 4 } else { 2 };
        let mut shifted: Vec<Vec<u8>> = Vec::new();
        let mut starts = Vec::new();
        for bytes in &buffers {
            let mut room = vec![0u8; bytes.len() + 64];
            let at = barely_aligned(&room, element(bytes));
            room[at..at + bytes.len()].copy_from_slice(bytes);
            shifted.push(room);
            starts.push(at);
        }
        let pointers: Vec<*mut u8> =
            places.iter().map(|place| shifted[*place][starts[*place]..].as_mut_ptr()).collect();
        let function = self.code.function("kernel").unwrap_or_else(|error| panic!("{error}"));
        for thread in 0..threads {
            // SAFETY: the pointers are to buffers of the sizes that the spec and the step imply, which
            // live until the call returns; `function` was compiled from that spec.
            unsafe { function(pointers.as_ptr(), &raw const dims, thread, threads) };
        }
        for (index, given) in self.case.operands.iter().enumerate() {
            if matches!(given, Given::State { .. }) {
                let len = buffers[index].len();
                self.kernel_states.insert(index, shifted[index][starts[index]..][..len].to_vec());
            }
        }
        if let Some(result) = self.spec.results.first() {
            let place = places[self.spec.operands.len()];
            let bytes = &mut shifted[place][starts[place]..][..buffers[place].len()];
            return loaded(bytes, result.ty.dtype);
        }
        let (index, dtype) = self
            .case
            .operands
            .iter()
            .enumerate()
            .find_map(|(index, given)| match given {
                Given::State { dtype, .. } => Some((index, *dtype)),
                _ => None,
            })
            .expect("an op gives a result or a state");
        loaded(&self.kernel_states[&index], dtype)
    }
}

/// An offset at which the room is aligned to `element` bytes and to no more.
fn barely_aligned(room: &[u8], element: usize) -> usize {
    let aligned = |at: &usize| (room.as_ptr() as usize + at) % (2 * element) == element;
    (0..64).find(aligned).expect("some byte of any sixteen is such a place")
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
    if case.op == "kv_append" {
        // Its result is state, which a block does not give: the harness compares the state itself.
        builder.output("k", values[0]);
    } else {
        builder.output("r", results[0]);
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
    KernelSpec { op, attrs: attrs.clone(), operands, results }
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
    let mut bytes = Vec::new();
    for row in values.chunks(width.max(1)) {
        for x in row.iter().copied().chain(std::iter::repeat_n(f64::NAN, gap)) {
            match dtype {
                Dtype::F32 => bytes.extend((x as f32).to_le_bytes()),
                Dtype::Bf16 => bytes.extend(bf16::from_f32(x as f32).to_le_bytes()),
                Dtype::I32 => bytes.extend((x as i32).to_le_bytes()),
                Dtype::F16 | Dtype::U8 => panic!("no kernel takes {dtype}"),
            }
        }
    }
    bytes
}

fn loaded(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
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
