//! What a kernel does, counted: bytes, operations, shares, and what each share keeps at hand.
//!
//! A fused op is counted by its recipe: the steps' arithmetic, but the traffic of the whole only. Steps before its
//! products are repeated by every share.

use nemo_ir::ops::{Attr, Op, OpArgs, OperandKind, Recipe, Source};
use nemo_ir::plan::Phase;
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Dim, Dtype, Symbol, Type};

use super::Situation;
use crate::device::Kind;

/// Element-wise operations of a transcendental function.
const FUNCTION: f64 = 16.0;

/// Rows of x that one share of a CPU's product norms before it multiplies: a tile of them, which it has room for however
/// few there are.
const ROWS_AT_HAND: u64 = 8;

/// The work of one kernel. Shares, and what they repeat and keep at hand, are those of a CPU's kernel; a GPU's geometry has
/// its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Bytes of weights and states, read once.
    pub memory_bytes: u64,
    /// Bytes of states, written once.
    pub written_bytes: u64,
    /// Bytes of activations, read or written once.
    pub activation_bytes: u64,
    /// Operations of products with bf16 on both sides.
    pub products_bf16: f64,
    /// Operations of other products.
    pub products_f32: f64,
    /// Rows of x that the products have; 0 where there are none.
    pub rows_of_products: f64,
    /// Bytes of those rows, as they are multiplied.
    pub x_bytes: u64,
    /// Operations of the scan's state.
    pub scan: f64,
    /// Operations of scores and their sums.
    pub attention: f64,
    /// Element-wise operations.
    pub elementwise: f64,
    /// Element-wise operations that each share repeats.
    pub prologue_flops: f64,
    /// Bytes that each share reads again for them.
    pub prologue_bytes: u64,
    /// Independent shares of the kernel.
    pub shares: f64,
    /// Bytes that one share keeps at hand.
    pub work_space: u64,
}

/// An op in its place: types of operands and results.
struct Placed<'a> {
    op: Op,
    operands: Vec<Option<&'a Type>>,
    attrs: Vec<Attr>,
    results: &'a [Type],
}

impl Placed<'_> {
    fn ty(&self, name: &str) -> Option<&Type> {
        let index = self.op.operands.iter().position(|operand| operand.name == name)?;
        self.operands[index]
    }

    fn int(&self, name: &str) -> u64 {
        match self.op.attrs.iter().position(|spec| spec.name == name).map(|index| self.attrs[index]) {
            Some(Attr::Int(n)) => n,
            other => unreachable!("`{}` has no integer `{name}` but {other:?}", self.op.name),
        }
    }
}

impl Work {
    /// Counts an op; `None` where no kernel can be had of it.
    pub fn of(
        op: Op,
        operands: &[Option<&Type>],
        attrs: &[Attr],
        results: &[Type],
        at: &Situation<'_>,
    ) -> Option<Self> {
        let placed = Placed { op, operands: operands.to_vec(), attrs: attrs.to_vec(), results };
        let mut work = traffic(&placed, at);
        match Recipe::of(op) {
            None => {
                step(&mut work, &placed, at);
                work.shares = shares(&placed, at);
            }
            Some(recipe) => fused(&mut work, recipe, &placed, at)?,
        }
        Some(work)
    }

    /// All operations.
    pub fn flops(&self) -> u64 {
        let once = self.products_bf16 + self.products_f32 + self.scan + self.attention + self.elementwise;
        (once + self.prologue_flops) as u64
    }
}

fn bytes(ty: &Type, at: &Situation<'_>) -> u64 {
    ty.bytes(|symbol| at.extent(symbol))
}

fn rows(ty: &Type, at: &Situation<'_>) -> f64 {
    ty.shape.first().map_or(1, |dim| dim.resolve(|symbol| at.extent(symbol))) as f64
}

fn elements(ty: &Type, at: &Situation<'_>) -> f64 {
    ty.elements(|symbol| at.extent(symbol)) as f64
}

/// What goes in and out of the whole op.
fn traffic(placed: &Placed<'_>, at: &Situation<'_>) -> Work {
    let mut work = Work::default();
    for (operand, ty) in placed.op.operands.iter().zip(&placed.operands) {
        let Some(ty) = ty else { continue };
        match operand.kind {
            // One row a token.
            OperandKind::Weight if placed.op.name == "embed" => {
                work.memory_bytes += ty.width().unwrap_or(0) * ty.dtype.bytes() * at.tokens;
            }
            OperandKind::Weight | OperandKind::OptionalWeight => work.memory_bytes += bytes(ty, at),
            // At temperature 0 the maxima say which tile to read.
            OperandKind::Value if placed.op.name == "sample_tiled" && operand.name == "logits" => {
                work.activation_bytes += placed.int("tile") * ty.dtype.bytes() * at.seqs;
            }
            // Only the rows that want logits are read.
            OperandKind::Value if placed.op.name.starts_with("gather_") => {
                let rows = at.extent(Symbol::L);
                work.activation_bytes += ty.width().unwrap_or(0) * ty.dtype.bytes() * rows;
            }
            OperandKind::Value => work.activation_bytes += bytes(ty, at),
            OperandKind::Table => {
                work.activation_bytes += ty.width().unwrap_or(0) * ty.dtype.bytes() * at.tokens;
            }
            OperandKind::State => state(&mut work, placed.op, ty, at),
            OperandKind::Step(_) => {}
        }
    }
    for (result, ty) in placed.results.iter().enumerate() {
        if placed.op.superseded(result).is_none() {
            work.activation_bytes += bytes(ty, at);
        }
    }
    work
}

/// Slots are read and written; pages are appended to by token, and read by whole context.
fn state(work: &mut Work, op: Op, ty: &Type, at: &Situation<'_>) {
    let unit = ty.bytes(|_| 1);
    if ty.shape.first() == Some(&Dim::symbol(Symbol::S)) {
        work.memory_bytes += unit * at.seqs;
        work.written_bytes += unit * at.seqs;
        return;
    }
    let token = unit / PAGE_TOKENS;
    if op.name == "paged_attention" {
        // What the step itself appends was just written.
        work.memory_bytes += token * at.context * at.seqs;
        work.activation_bytes += token * at.tokens;
    } else {
        work.written_bytes += token * at.tokens;
    }
}

/// The arithmetic of one op that is not fused.
fn step(work: &mut Work, placed: &Placed<'_>, at: &Situation<'_>) {
    let result = placed.results.first().map_or(0.0, |ty| elements(ty, at));
    let sixteen_bits = placed.results.first().is_some_and(|ty| ty.dtype != Dtype::F32);
    let rounding = if sixteen_bits { result } else { 0.0 };
    let each = match placed.op.name {
        "linear" => {
            let (Some(x), Some(weight)) = (placed.ty("x"), placed.ty("weight")) else { return };
            let flops = 2.0 * rows(x, at) * elements(weight, at);
            work.rows_of_products = rows(x, at);
            work.x_bytes = bytes(x, at);
            if x.dtype == Dtype::Bf16 && weight.dtype == Dtype::Bf16 {
                work.products_bf16 += flops;
            } else {
                work.products_f32 += flops;
            }
            work.elementwise += rounding;
            return;
        }
        "ssd_recurrent" => {
            let Some(state) = placed.ty("ssm") else { return };
            // Decay, update and output: two multiply-adds and a product an element of state.
            work.scan += 5.0 * at.tokens as f64 * elements(state, at);
            return;
        }
        "ssd_chunked" => {
            work.scan += chunked(placed, at);
            return;
        }
        "paged_attention" => {
            let Some(q) = placed.ty("q") else { return };
            let tokens = (at.tokens / at.seqs.max(1)).max(1) as f64;
            let seen = at.context as f64 + tokens / 2.0;
            // On a CPU, several rows of a head share the keys and values that they widen; a single one has them for itself.
            let alone = if at.device.kind == Kind::Cpu && tokens < 2.0 { 3.0 } else { 1.0 };
            work.attention += 4.0 * elements(q, at) * seen * alone;
            return;
        }
        "causal_conv1d" => {
            let taps = placed.ty("weight").and_then(Type::width).unwrap_or(0) as f64;
            2.0 * taps + FUNCTION + 3.0
        }
        "dt_softplus" => 2.0 * FUNCTION,
        "rms_norm" => 5.0,
        "gated_rms_norm" => 8.0 + FUNCTION,
        "relu2" => 3.0,
        "swiglu" => FUNCTION + 3.0,
        "rope" => 3.0,
        // Two passes over what is read: for the largest, and for its place.
        "sample" | "sample_tiled" => {
            work.elementwise += 4.0 * work.activation_bytes as f64 / 4.0;
            return;
        }
        "tile_max" => {
            work.elementwise += 2.0 * placed.ty("x").map_or(0.0, |ty| elements(ty, at));
            return;
        }
        "add" | "embed" | "gather_rows" | "kv_append" | "slice" => 1.0,
        other => unreachable!("the cost of `{other}` is not stated"),
    };
    work.elementwise += result * each + rounding;
}

/// Products of matrices inside chunks of each head, and of its state; scores belong to a group.
fn chunked(placed: &Placed<'_>, at: &Situation<'_>) -> f64 {
    let Some([_, Dim::Const(heads), Dim::Const(state), Dim::Const(head_dim)]) =
        placed.ty("ssm").map(|ty| &ty.shape[..])
    else {
        return 0.0;
    };
    let (heads, state, head_dim) = (*heads as f64, *state as f64, *head_dim as f64);
    let chunk = placed.int("chunk").min(at.tokens / at.seqs.max(1)).max(1) as f64;
    let groups = placed.int("groups") as f64;
    let tokens = at.tokens as f64;
    let scores = groups * chunk * state;
    let inside = heads * chunk * head_dim / 2.0;
    let through_state = 2.0 * heads * state * head_dim;
    2.0 * tokens * (scores + inside + through_state) + tokens * heads * chunk * FUNCTION / 2.0
}

/// Shares into which an op divides on a CPU.
fn shares(placed: &Placed<'_>, at: &Situation<'_>) -> f64 {
    let result = placed.results.first();
    let (rows, width) = result.map_or((1.0, 1.0), |ty| (rows(ty, at), ty.width().unwrap_or(1) as f64));
    let state_heads = |name: &str| match placed.ty(name).map(|ty| &ty.shape[..]) {
        Some([_, Dim::Const(heads), ..]) => *heads as f64,
        _ => 1.0,
    };
    match placed.op.name {
        "linear" => (width / 8.0).ceil(),
        "rms_norm" | "gated_rms_norm" => rows * width / (placed.int("group").max(1) as f64),
        "ssd_recurrent" => at.seqs as f64 * state_heads("ssm"),
        "ssd_chunked" => state_heads("ssm"),
        "paged_attention" => {
            let heads = match placed.ty("kv").map(|ty| &ty.shape[..]) {
                Some([_, _, Dim::Const(heads), ..]) => *heads as f64,
                _ => 1.0,
            };
            rows * heads
        }
        // A sequence is one share's, whatever the device has.
        "sample" | "sample_tiled" => at.seqs as f64,
        "tile_max" => rows * width,
        "kv_append" => at.tokens as f64,
        _ => (width / 16.0).ceil(),
    }
}

/// Counts a fused op by its steps.
fn fused(work: &mut Work, recipe: &Recipe, placed: &Placed<'_>, at: &Situation<'_>) -> Option<()> {
    if placed.op.name.ends_with("linear_conv") && at.phase != Phase::Decode {
        return None;
    }
    let first_product = recipe.steps.iter().position(|step| step.op.name == "linear");
    let mut types: Vec<Vec<Type>> = Vec::with_capacity(recipe.steps.len());
    let mut most_shares: f64 = 0.0;
    for (index, part) in recipe.steps.iter().enumerate() {
        let operands: Vec<Option<&Type>> = part
            .operands
            .iter()
            .map(|source| match *source {
                Some(Source::Operand(n)) => placed.operands[n],
                Some(Source::Step { step, result }) => types[step].get(result),
                None => None,
            })
            .collect();
        let attrs = part.attrs(&placed.attrs);
        let steps: Vec<Type> = part.op.operands.iter().filter_map(|o| step_type(o.kind)).collect();
        let mut given = steps.iter();
        let all: Vec<&Type> = part
            .op
            .operands
            .iter()
            .zip(&operands)
            .filter_map(|(operand, ty)| match operand.kind {
                OperandKind::Step(_) => given.next(),
                _ => *ty,
            })
            .collect();
        let results = (part.op.infer)(&OpArgs::new(part.op, &all, &attrs).ok()?).ok()?;
        if part.op.name != "slice" {
            let inner = Placed { op: part.op, operands, attrs, results: &results };
            let mut own = Work::default();
            step(&mut own, &inner, at);
            if first_product.is_some_and(|product| index < product) {
                prologue(work, &inner, own, at);
            } else {
                work.add(&own);
                most_shares = most_shares.max(shares(&inner, at));
            }
        }
        types.push(results);
    }
    work.shares = match placed.op.name {
        // The convolution's channels of b and c belong to all heads of a group, and are updated in place.
        "conv_ssd" | "conv_ssd_norm" => {
            let columns = (placed.int("inner") + 2 * placed.int("shared")) / placed.int("groups").max(1);
            work.work_space = 4 * columns * 2;
            at.seqs as f64 * placed.int("groups") as f64
        }
        // A row is one share's: its norm needs the whole of it.
        "add_rms_norm" => at.tokens as f64,
        "gather_rms_norm" => at.extent(Symbol::L) as f64,
        // A share is a whole tile of logits.
        "linear_tile_max" | "gather_norm_linear_tile_max" => placed.results[1].width().unwrap_or(1) as f64,
        _ => most_shares,
    };
    Some(())
}

fn step_type(kind: OperandKind) -> Option<Type> {
    match kind {
        OperandKind::Step(input) => Some(input.ty()),
        _ => None,
    }
}

/// What a step before the products adds: every share repeats it, for the rows that it is about to multiply.
fn prologue(work: &mut Work, inner: &Placed<'_>, own: Work, at: &Situation<'_>) {
    if inner.op.name == "gather_rows" {
        return;
    }
    work.prologue_flops += own.elementwise;
    let read = inner.operands.iter().flatten().map(|ty| bytes(ty, at)).sum::<u64>();
    work.prologue_bytes += read;
    if let Some(ty) = inner.results.first() {
        let row = ty.width().unwrap_or(0) * ty.dtype.bytes();
        work.work_space += row * ROWS_AT_HAND;
    }
}

impl Work {
    fn add(&mut self, other: &Self) {
        self.products_bf16 += other.products_bf16;
        self.products_f32 += other.products_f32;
        self.rows_of_products = self.rows_of_products.max(other.rows_of_products);
        self.x_bytes = self.x_bytes.max(other.x_bytes);
        self.scan += other.scan;
        self.attention += other.attention;
        self.elementwise += other.elementwise;
    }
}
