//! What the verifier finds.

use thiserror::Error;

use crate::ops::TypeError;

/// A broken rule of the graph IR. Values and nodes are named as in the text form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// A name that the text form could not read back.
    #[error("block `{block}`: the {what} name `{name}` is not {wanted}")]
    Name {
        /// Block name.
        block: String,
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// The pattern.
        wanted: &'static str,
    },
    /// Two nodes of one kind, or two outputs, of one name.
    #[error("block `{block}` has two {what}s named `{name}`")]
    Duplicate {
        /// Block name.
        block: String,
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A type or table that a node of its kind cannot have.
    #[error("block `{block}`: {node} should be {wanted}, found {found}")]
    Leaf {
        /// Block name.
        block: String,
        /// The node.
        node: String,
        /// What such a node can have.
        wanted: &'static str,
        /// What it has.
        found: String,
    },
    /// Operands that depend on themselves.
    #[error("block `{block}`: {node} depends on its own result")]
    Cycle {
        /// Block name.
        block: String,
        /// The first op on or behind the cycle.
        node: String,
    },
    /// An edge that fits no operand or result.
    #[error("block `{block}`: {node} should have {wanted}, found {found}")]
    Edge {
        /// Block name.
        block: String,
        /// The node.
        node: String,
        /// Legal edges.
        wanted: String,
        /// Those there are.
        found: String,
    },
    /// An operand of another kind than the table declares.
    #[error("block `{block}`: {node} takes {wanted} as `{operand}`, found {found}")]
    OperandKind {
        /// Block name.
        block: String,
        /// The op.
        node: String,
        /// Operand name.
        operand: &'static str,
        /// Kind that the table declares.
        wanted: String,
        /// The value there is.
        found: String,
    },
    /// Operand types or attributes that the op does not take.
    #[error("block `{block}`: {node}: {error}")]
    Type {
        /// Block name.
        block: String,
        /// The op.
        node: String,
        /// What is wrong.
        error: TypeError,
    },
    /// An attribute that is not a number.
    #[error("block `{block}`: {node} needs a number as `{attr}`, found NaN")]
    NotANumber {
        /// Block name.
        block: String,
        /// The op.
        node: String,
        /// Attribute name.
        attr: &'static str,
    },
    /// Result types other than the table infers.
    #[error("block `{block}`: {node} gives {wanted}, declared {found}")]
    Results {
        /// Block name.
        block: String,
        /// The op.
        node: String,
        /// Inferred types.
        wanted: String,
        /// Declared types.
        found: String,
    },
    /// Two ops write one state value.
    #[error("block `{block}`: state {state} is written by {first} and by {second}, expected one writer")]
    TwoWriters {
        /// Block name.
        block: String,
        /// The state value.
        state: String,
        /// A writer.
        first: String,
        /// Another.
        second: String,
    },
    /// A read that nothing orders before the write of the same state value.
    #[error(
        "block `{block}`: {reader} reads state {state}, which {writer} supersedes without depending on it"
    )]
    UnorderedRead {
        /// Block name.
        block: String,
        /// The op that reads.
        reader: String,
        /// The state value.
        state: String,
        /// The op that writes.
        writer: String,
    },
    /// A value that nothing uses.
    #[error("block `{block}`: {value} is not used")]
    Unused {
        /// Block name.
        block: String,
        /// The value.
        value: String,
    },
    /// An output that is a state, a weight, or nothing.
    #[error("block `{block}`: output `{output}` should be an input or the result of an op, found {found}")]
    Output {
        /// Block name.
        block: String,
        /// Output name.
        output: String,
        /// What it refers to.
        found: String,
    },
    /// A block without outputs.
    #[error("block `{0}` gives nothing, expected at least one output")]
    NoOutputs(String),
    /// Two blocks of one name.
    #[error("the program has two blocks named `{0}`")]
    DuplicateBlock(String),
    /// A block that no call runs.
    #[error("block `{0}` is never called")]
    NeverCalled(String),
    /// A program that does nothing.
    #[error("the program has no calls")]
    NoCalls,
    /// A call of a block that is not there.
    #[error("call {call} runs block {block}, and the program has {blocks}")]
    NoBlock {
        /// Index of the call.
        call: usize,
        /// The block it names.
        block: usize,
        /// Blocks in the program.
        blocks: usize,
    },
    /// A weight prefix that the text form could not read back.
    #[error("call {call} of block `{block}`: the prefix `{prefix}` is not {wanted}")]
    Prefix {
        /// Index of the call.
        call: usize,
        /// Block name.
        block: String,
        /// The prefix.
        prefix: String,
        /// The pattern.
        wanted: &'static str,
    },
    /// An input that the call before does not give.
    #[error("call {call} of block `{block}` takes `{input}`: {wanted}, the call before gives {found}")]
    CallInput {
        /// Index of the call.
        call: usize,
        /// Block name.
        block: String,
        /// Input name.
        input: String,
        /// Its type.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A call that cannot keep its state.
    #[error("call {call} of block `{block}` needs a layer, because the block has state")]
    NoLayer {
        /// Index of the call.
        call: usize,
        /// Block name.
        block: String,
    },
    /// Two calls that would share a state.
    #[error("calls {first} and {call} both keep state `{state}` of layer {layer}")]
    SharedState {
        /// Index of the first call.
        first: usize,
        /// Index of the second.
        call: usize,
        /// State name.
        state: String,
        /// The layer.
        layer: u32,
    },
    /// A weight that two calls take with different types.
    #[error("call {call} takes weight `{weight}` as {found}, an earlier one as {wanted}")]
    WeightType {
        /// Index of the later call.
        call: usize,
        /// Full name.
        weight: String,
        /// Type in the earlier call.
        wanted: String,
        /// Type in this one.
        found: String,
    },
}
