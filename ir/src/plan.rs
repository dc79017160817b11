//! The plan: everything the runtime interprets. Buffers with offsets in one arena, kernel launches
//! with their arguments, and where each weight and each piece of state comes from. It is data.
//!
//! Blocks stand once and calls bind their weights and states, as in the graph IR, so a plan is as
//! long as the model has distinct layers plus one line a layer.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::rope::RopeTable;
use crate::step::StepInput;
use crate::types::Dtype;

mod geometry;

pub use geometry::{Extent, Geometry, TensorMap, Workspace};

/// Which of a model's two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// One token per sequence: T = R, and row i belongs to sequence i.
    Decode,
    /// A ragged mix of chunks and single tokens of several sequences.
    Prefill,
}

impl Phase {
    /// Both phases.
    pub const ALL: [Self; 2] = [Self::Decode, Self::Prefill];

    /// `decode` or `prefill`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Prefill => "prefill",
        }
    }
}

/// Everything that one target needs, beside its machine code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Target name with every feature spelled out, as in the manifest.
    pub target: String,
    /// Machine shape that the runtime checks and sizes its pools by.
    pub limits: Limits,
    /// Symbols of the kernel object, named once; launches refer to them by index.
    pub kernels: Vec<Kernel>,
    /// Checkpoint tensors, by index.
    pub weights: Vec<Weight>,
    /// State that lives between steps, by index.
    pub states: Vec<State>,
    /// Constants that the runtime computes at load.
    pub tables: Vec<RopeTable>,
    /// What kernels on a GPU combine their results in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// For each phase one program or several, each for a range of T: the ranges of a phase start at 1 and
    /// follow each other.
    pub programs: Vec<Program>,
}

impl Plan {
    /// Index of the program that runs steps of `phase` with `tokens` tokens; no other one does.
    pub fn program_for(&self, phase: Phase, tokens: u64) -> Option<usize> {
        self.programs.iter().position(|program| program.phase == phase && program.tokens().contains(&tokens))
    }
}

/// The largest step that the plan's buffers hold, and what the model allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Vocabulary: token ids are below it, and it is the width of the logits.
    pub vocab: u64,
    /// Positions that a sequence may reach.
    pub max_context: u64,
    /// Sequences in one step.
    pub max_seqs: u64,
    /// Tokens in one prefill step.
    pub chunk: u64,
}

/// One function of the kernel object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Symbol in the object file.
    pub symbol: String,
    /// The op family and shapes that it implements, for people.
    pub what: String,
    /// How many pointers it takes.
    pub args: usize,
    /// How it is launched on a GPU; absent on a CPU, where every thread calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
}

/// A checkpoint tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Accepted names, the usual one first.
    pub names: Vec<String>,
    /// Shape as stored.
    pub shape: Vec<u64>,
    /// How it reaches the kernels.
    pub placement: Placement,
}

/// How a stored tensor reaches the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "as", content = "dtype")]
pub enum Placement {
    /// Read in place from the mapped file, at any alignment; the stored dtype must be this one.
    InPlace(Dtype),
    /// Small: converted to f32 at load, from f32, bf16 or f16.
    WidenedToF32,
}

/// State that one call reads and writes, for every slot or page that the engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `layers.N.ssm`, `layers.N.conv`, `layers.N.kv`.
    pub name: String,
    /// What one unit of it belongs to.
    pub per: StateUnit,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one unit: `[heads, state, head_dim]`, `[conv - 1, channels]` or `[2, kv_heads, 64, head_dim]`.
    pub shape: Vec<u64>,
}

impl State {
    /// Bytes of one unit.
    pub fn unit_bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes()
    }
}

/// What a unit of state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateUnit {
    /// A sequence's slot.
    Slot,
    /// A KV page of 64 tokens.
    Page,
}

/// The launches of one phase, for steps of some sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Which phase.
    pub phase: Phase,
    /// Smallest T that it serves; in decode T = R.
    pub min_tokens: u64,
    /// Largest T that it serves; the arena is laid out for it.
    pub max_tokens: u64,
    /// Largest R: as many as there are tokens, up to [`Limits::max_seqs`].
    pub max_seqs: u64,
    /// Bytes of the arena; every buffer is inside.
    pub arena_bytes: u64,
    /// Distinct blocks.
    pub blocks: Vec<Block>,
    /// The blocks in the order in which they run.
    pub calls: Vec<Call>,
}

impl Program {
    /// The values of T that it serves.
    pub fn tokens(&self) -> RangeInclusive<u64> {
        self.min_tokens..=self.max_tokens
    }
}

/// The launches of one distinct block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Name in the graph IR.
    pub name: String,
    /// In order; each waits for the one before.
    pub launches: Vec<Launch>,
}

/// One kernel launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// The op it computes, for profiles and people.
    pub op: String,
    /// Arguments in the kernel's order.
    pub args: Vec<Arg>,
}

/// One pointer argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// Byte offset in the arena.
    Arena(u64),
    /// The n-th weight that the call binds.
    Weight(usize),
    /// The n-th state that the call binds.
    State(usize),
    /// Index into [`Plan::tables`].
    Table(usize),
    /// An input of the step.
    Step(StepInput),
    /// The step's `logits f32[L,V]`.
    Logits,
    /// The step's `next i32[R]`.
    Next,
}

/// One run of a block with its weights and states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Index into [`Program::blocks`].
    pub block: usize,
    /// Slot in the layer list, where the block is a layer.
    pub layer: Option<u32>,
    /// Indices into [`Plan::weights`].
    pub weights: Vec<usize>,
    /// Indices into [`Plan::states`].
    pub states: Vec<usize>,
}
