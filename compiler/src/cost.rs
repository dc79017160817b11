//! What a kernel costs: a static roofline, from its op, its types and the facts of a device.
//!
//! On a CPU, `seconds = max(streaming, arithmetic) + a share of the lesser + prologue + launch`. The share is a tenth, and
//! all of it where products have several rows. Each rate is lowered where the kernel has fewer shares than there are cores;
//! the sum is infinite where what a share keeps at hand does not fit. On a GPU the kernel's own geometry says how it
//! is shared, and there may be several to choose from: [`gpu`]. No clock is read, so the same model compiles to the same
//! bytes.

pub mod gpu;
mod work;

use nemo_ir::ops::{Attr, Op, Operand, OperandKind};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Symbol, Type};
use nemo_kernels::nvptx::Form;
use nemo_kernels::spec::{KernelSpec, Layout, Steps};
use serde::{Deserialize, Serialize};

use crate::device::Device;

pub use work::Work;

/// Tokens that a sequence is taken to have cached already when it decodes.
pub const CONTEXT: u64 = 1024;

/// The step that a program is optimised for.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The device.
    pub device: &'a Device,
    /// The phase.
    pub phase: Phase,
    /// T: tokens in the step.
    pub tokens: u64,
    /// R: sequences in the step.
    pub seqs: u64,
    /// Tokens that each sequence has cached already.
    pub context: u64,
    /// The range of steps that the kernel is for: what a GPU's is made for.
    pub steps: Steps,
}

impl<'a> Situation<'a> {
    /// A token of each of some sequences that have some context.
    pub fn decode(device: &'a Device, seqs: u64) -> Self {
        let steps = Steps { phase: Phase::Decode, min_tokens: 1, max_tokens: seqs, max_seqs: seqs };
        Self { device, phase: Phase::Decode, tokens: seqs, seqs, context: CONTEXT, steps }
    }

    /// The first tokens of one prompt.
    pub fn prefill(device: &'a Device, tokens: u64) -> Self {
        let steps = Steps { phase: Phase::Prefill, min_tokens: 1, max_tokens: tokens, max_seqs: 1 };
        Self { device, phase: Phase::Prefill, tokens, seqs: 1, context: 0, steps }
    }
}

impl Situation<'_> {
    /// The value of a symbol; the units of state are counted by their readers.
    pub fn extent(&self, symbol: Symbol) -> u64 {
        match symbol {
            Symbol::T => self.tokens,
            // In decode every row wants logits, in prefill the last of each sequence.
            Symbol::R | Symbol::L => self.seqs,
            Symbol::P | Symbol::S | Symbol::N => 1,
        }
    }
}

/// Share of the lesser of streaming and arithmetic that the greater does not hide: loads wait for addresses, sums for
/// their last terms.
const SERIAL: f64 = 0.1;

/// A kernel's predicted cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes that move between memory and the kernel: weights, states, activations, each once.
    pub bytes: u64,
    /// Floating-point operations, repeated work included.
    pub flops: u64,
    /// Seconds, launch included; infinite where the kernel cannot be had.
    pub seconds: f64,
    /// The form that it is for, on a GPU.
    pub form: Option<Form>,
}

impl Cost {
    /// A kernel that cannot be had.
    pub const IMPOSSIBLE: Self = Self { bytes: 0, flops: 0, seconds: f64::INFINITY, form: None };

    /// What is no kernel: a view, a leaf, a projection.
    pub const NOTHING: Self = Self { bytes: 0, flops: 0, seconds: 0.0, form: None };
}

/// Predicts one kernel. `operands` has an entry per operand of the table, `None` where an optional weight is absent
/// or a step input stands.
pub fn kernel(
    op: Op,
    operands: &[Option<&Type>],
    attrs: &[Attr],
    results: &[Type],
    at: &Situation<'_>,
) -> Cost {
    if op.name == "slice" {
        return Cost::NOTHING;
    }
    if let Some(sm) = at.device.sm() {
        let spec = spec(op, operands, attrs, results, at.steps);
        return gpu::choose(sm, &spec, at).map_or(Cost::IMPOSSIBLE, |(_, cost)| cost);
    }
    let Some(work) = Work::of(op, operands, attrs, results, at) else { return Cost::IMPOSSIBLE };
    if work.work_space > at.device.work_space_bytes {
        return Cost::IMPOSSIBLE;
    }
    Cost {
        bytes: work.memory_bytes + work.activation_bytes,
        flops: work.flops(),
        seconds: seconds(&work, at.device),
        form: None,
    }
}

/// A GPU's kernel whose tensors lie without gaps and as well as they can.
fn spec(op: Op, operands: &[Option<&Type>], attrs: &[Attr], results: &[Type], steps: Steps) -> KernelSpec {
    let layout = |ty: Type| Layout::dense(ty).aligned(Layout::ALIGNED);
    let operand = |(operand, ty): (&Operand, &Option<&Type>)| match operand.kind {
        OperandKind::Step(input) => Some(layout(input.ty())),
        _ => ty.map(|ty| layout(ty.clone())),
    };
    let values = results.iter().enumerate().filter(|(index, _)| op.superseded(*index).is_none());
    KernelSpec {
        op,
        attrs: attrs.to_vec(),
        operands: op.operands.iter().zip(operands).filter_map(operand).collect(),
        results: values.map(|(_, ty)| layout(ty.clone())).collect(),
        steps: Some(steps),
        form: None,
    }
}

/// On a CPU.
fn seconds(work: &Work, device: &Device) -> f64 {
    let giga = |rate: f64| rate * 1e9;
    let units = device.units as f64;
    // A kernel with fewer shares than units leaves the rest idle; one that has a few more waits for the last ones.
    let shares = work.shares.max(1.0);
    let filled = (shares / ((shares / units).ceil() * units)).max(1.0 / units);
    // One core draws most of the bandwidth that all draw together.
    let memory = giga(device.bandwidth_gb_s) * device.efficiency.memory * filled.max(0.6);
    let cache = giga(device.cache_bandwidth_gb_s) * device.efficiency.cache;
    // Activations are found in the cache by the next kernel, as far as half of it goes.
    let from_cache = work.activation_bytes.min(device.cache_bytes / 2);
    let from_memory = work.memory_bytes + (work.activation_bytes - from_cache);
    // Caches write back what they hold while memory is read.
    let in_memory = from_memory.max(work.written_bytes);
    let streaming = in_memory as f64 / memory + from_cache as f64 / (cache * filled);
    let peak = |bf16: bool| if bf16 { device.products_gflop_s.bf16 } else { device.products_gflop_s.f32 };
    let products = work.products_bf16 / (giga(peak(true)) * device.efficiency.products)
        + work.products_f32 / (giga(peak(false)) * device.efficiency.products)
        + work.scan / (giga(peak(false)) * device.efficiency.scan)
        + work.attention / (giga(peak(false)) * device.efficiency.attention);
    let vector = giga(device.vector_gflop_s) * device.efficiency.elementwise;
    let elementwise = work.elementwise / vector;
    // What every share repeats is repeated by all cores at once, each at its own speed and ahead of the rest; one of
    // them reads what the whole kernel reads anyway.
    let repeated = work.prologue_flops / (vector / units)
        + work.prologue_bytes as f64 * (units.min(shares) - 1.0) / cache;
    let arithmetic = (products + elementwise) / filled;
    // Products ask for weights ahead of time where they have one row only.
    let serial = if work.rows_of_products > 1.0 { 1.0 } else { SERIAL };
    streaming.max(arithmetic) + serial * streaming.min(arithmetic) + repeated + device.launch_us * 1e-6
}
