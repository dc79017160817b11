//! What the parser makes of a text.

use super::Special;
use crate::error::Space;

/// A module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub version: (u32, u32),
    pub target: String,
    /// Variables of the module and of all functions; parameters too.
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}

/// Index into [`Tree::variables`].
pub(crate) type VarId = usize;

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u32,
    pub size: u64,
    /// Declared `.extern` and without a size: the dynamic shared memory.
    pub external: bool,
    /// Its first bytes; the rest is zero. `None`: no initialiser.
    pub init: Option<Vec<u8>>,
    /// Addresses to be put into the bytes: offset, variable, addend.
    pub addresses: Vec<(usize, String, i64, bool)>,
    pub line: u32,
}

/// A kernel or function.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub name: String,
    pub entry: bool,
    pub returns: Vec<VarId>,
    pub params: Vec<VarId>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Number of registers of each class: pred, 16, 32, 64, 128 bits.
    pub registers: [u32; 5],
    /// For each scope its parent; scope 0 is its own.
    pub scopes: Vec<usize>,
    /// Most threads a CTA may have by the directives.
    pub max_threads: Option<u32>,
    pub line: u32,
}

/// Class of a register by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Pred,
    B16,
    B32,
    B64,
    B128,
}

impl Class {
    /// Bytes of it in memory; 0 for a predicate.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::Pred => 0,
            Self::B16 => 2,
            Self::B32 => 4,
            Self::B64 => 8,
            Self::B128 => 16,
        }
    }
}

/// A register of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reg {
    pub class: Class,
    pub index: u32,
}

/// A statement of a body.
#[derive(Debug)]
pub(crate) struct Statement {
    pub line: u32,
    pub start: usize,
    pub end: usize,
    pub scope: usize,
    pub kind: StatementKind,
}

/// What a statement is.
#[derive(Debug)]
pub(crate) enum StatementKind {
    Label(String),
    /// A list of labels under a label.
    Targets(String, Vec<String>),
    Instruction {
        /// Predicate and whether it is negated.
        guard: Option<(Reg, bool)>,
        opcode: String,
        operands: Vec<Operand>,
    },
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Reg(Reg),
    /// `!%p`.
    Not(Reg),
    /// `%a|%b`; either may be a sink.
    Pair(Box<Operand>, Box<Operand>),
    /// An integer, as its 64 bits.
    Int(u64),
    F32(u32),
    F64(u64),
    Special(Special),
    /// Address of a variable.
    Variable(VarId, i64),
    /// A label or function.
    Name(String),
    Address(Address),
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `_`.
    Sink,
}

/// `[base+offset]`, or `[base, {coordinates}]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Address {
    pub base: Base,
    pub offset: i64,
    pub coordinates: Vec<Operand>,
}

/// What an address starts at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Base {
    Reg(Reg),
    Variable(VarId),
    Absolute,
}
