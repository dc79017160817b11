//! What can be wrong: with a text, with an access to memory from outside, and with an execution.

use std::fmt;

/// Why a text is not a module that this crate can execute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}, in `{text}`")]
pub struct ParseError {
    /// Line of the text, from 1.
    pub line: u32,
    /// The statement as it stands there, its white space collapsed.
    pub text: String,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
}

/// The ways in which a text can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// A character, number, string or comment that is not PTX.
    #[error("{0}")]
    Lexical(&'static str),
    /// Another token stands where one was expected.
    #[error("expected {expected}, found {found}")]
    Syntax {
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// An opcode, or a modifier of it, that is not implemented.
    #[error("unknown instruction {0}")]
    UnknownInstruction(String),
    /// A directive that is not implemented.
    #[error("unknown directive {0}")]
    UnknownDirective(String),
    /// Operands that don't fit the opcode.
    #[error("operand {index} of {opcode} is not {expected}")]
    Operand {
        /// The opcode with its modifiers.
        opcode: String,
        /// Position of the operand, from 0.
        index: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// A name that nothing declares.
    #[error("nothing declares the name {0}")]
    UnknownName(String),
    /// A name that two statements declare.
    #[error("the name {0} is declared twice")]
    DuplicateName(String),
    /// Something legal that is not implemented.
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// Why the host cannot access memory of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// No allocation holds all these bytes.
    #[error("no allocation holds the {bytes} bytes at {address:#x}")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// How many.
        bytes: u64,
    },
}

/// A state space of PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Device memory.
    Global,
    /// The memory of a CTA.
    Shared,
    /// The memory of a thread.
    Local,
    /// Parameters of a kernel or of a function.
    Param,
    /// Constants of a module.
    Const,
    /// Any of them, told apart by the address.
    Generic,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Param => "param",
            Self::Const => "const",
            Self::Generic => "generic",
        })
    }
}

/// Which two accesses of a race met, the earlier one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Race {
    /// One wrote, the other reads.
    WriteThenRead,
    /// One read, the other writes.
    ReadThenWrite,
    /// Both write.
    WriteThenWrite,
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteThenRead => "reads what another wrote",
            Self::ReadThenWrite => "overwrites what another read",
            Self::WriteThenWrite => "overwrites what another wrote",
        })
    }
}

/// Where and why an execution stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: Box<str>,
    /// Index of the CTA in the grid.
    pub cta: [u32; 3],
    /// Warp in the CTA, where one warp is to blame.
    pub warp: Option<u32>,
    /// Lane in the warp, where one lane is to blame.
    pub lane: Option<u32>,
    /// Index of the thread in the CTA, where one thread is to blame.
    pub thread: Option<[u32; 3]>,
    /// Line of the PTX text, from 1; 0 before the first instruction.
    pub line: u32,
    /// The instruction as it stands there.
    pub instruction: Box<str>,
    /// What happened.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.cta;
        write!(f, "kernel {}, CTA ({x}, {y}, {z})", self.kernel)?;
        if let Some(warp) = self.warp {
            write!(f, ", warp {warp}")?;
        }
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if self.line > 0 {
            write!(f, ", line {} `{}`", self.line, self.instruction)?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl std::error::Error for Fault {}

/// What stopped an execution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The module has no such kernel.
    #[error("the module has no kernel of this name")]
    NoKernel,
    /// The parameter block has another size than the kernel's parameters.
    #[error("the parameter block has {found} bytes, the kernel takes {expected}")]
    ParameterBytes {
        /// Bytes that the parameters take.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A CTA larger than the kernel, or any CTA, may have; or an empty one.
    #[error("a CTA of {threads} threads, where 1 to {limit} are allowed")]
    BlockSize {
        /// Threads asked for.
        threads: u64,
        /// Most that are allowed.
        limit: u32,
    },
    /// Static and dynamic shared memory are more than a card has.
    #[error("{bytes} bytes of shared memory, where a CTA has at most {limit}")]
    SharedBytes {
        /// Bytes asked for.
        bytes: u64,
        /// Most that are allowed.
        limit: u64,
    },
    /// An access that no allocation, array or parameter holds.
    #[error("{bytes} bytes of {space} memory at {address:#x} are out of bounds")]
    OutOfBounds {
        /// State space.
        space: Space,
        /// First byte.
        address: u64,
        /// How many.
        bytes: u64,
    },
    /// An address that is no multiple of the access size.
    #[error("{bytes} bytes of {space} memory at {address:#x} are misaligned")]
    Misaligned {
        /// State space.
        space: Space,
        /// First byte.
        address: u64,
        /// Alignment that the access needs.
        bytes: u64,
    },
    /// A read of bytes that nobody wrote.
    #[error("{bytes} bytes of {space} memory at {address:#x} are read, not all of them were ever written")]
    Unwritten {
        /// State space.
        space: Space,
        /// First byte.
        address: u64,
        /// How many.
        bytes: u64,
    },
    /// A store to memory that is only read.
    #[error("{space} memory at {address:#x} cannot be written")]
    ReadOnly {
        /// State space.
        space: Space,
        /// First byte.
        address: u64,
    },
    /// Two warps touch the same bytes of shared memory, and nothing orders them.
    #[error("race on shared memory at {address:#x}: it {race} ({other}) with no barrier between")]
    SharedRace {
        /// First byte of the granule.
        address: u64,
        /// Which accesses met.
        race: Race,
        /// Who made the earlier access.
        other: String,
    },
    /// Shared memory is touched while an asynchronous copy to it was not waited for.
    #[error(
        "shared memory at {address:#x} is the destination of an asynchronous copy that was not waited for"
    )]
    CopyInFlight {
        /// First byte of the granule.
        address: u64,
    },
    /// Two CTAs write the same byte of global memory, neither atomically.
    #[error("global memory at {address:#x} was also written by CTA {other} (linear index) in this launch")]
    GlobalRace {
        /// The byte.
        address: u64,
        /// Linear index of the other CTA.
        other: u32,
    },
    /// Only a part of a warp's live threads is at a CTA barrier.
    #[error("a barrier is reached by lanes {active:#010x} only, {live:#010x} are alive")]
    DivergentBarrier {
        /// Lanes at the barrier.
        active: u32,
        /// Lanes that have not exited.
        live: u32,
    },
    /// A `.sync` instruction names lanes that don't execute it.
    #[error("the instruction names lanes {named:#010x}, only {active:#010x} execute it")]
    DivergentSync {
        /// Lanes in the member mask.
        named: u32,
        /// Lanes that execute.
        active: u32,
    },
    /// A barrier with a thread count that cannot be right.
    #[error("barrier {id} waits for {count} threads: {problem}")]
    BarrierCount {
        /// Number of the barrier.
        id: u32,
        /// Threads it waits for.
        count: u32,
        /// Why that cannot be right.
        problem: &'static str,
    },
    /// Every live warp waits for something that nobody is left to do.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// More instructions than allowed: a loop that does not end, or a wait for another CTA.
    #[error("no end after {limit} warp instructions")]
    InstructionLimit {
        /// The limit.
        limit: u64,
    },
    /// An mbarrier is used where none was initialised, or beyond its count.
    #[error("mbarrier at {address:#x}: {problem}")]
    Mbarrier {
        /// Address in shared memory.
        address: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A tensor map or tile that no copy can use.
    #[error("tensor copy: {0}")]
    TensorCopy(String),
    /// An operand that the instruction does not define a result for.
    #[error("{0}")]
    Undefined(&'static str),
    /// The instruction `trap`.
    #[error("the kernel trapped")]
    Trap,
}
