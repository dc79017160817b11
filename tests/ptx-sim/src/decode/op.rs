//! The decoded form of an instruction: a function on lanes and the indices of its registers, or, where more
//! than registers are touched, what the executor has to know.

use crate::error::Space;

/// A 32-bit register of all lanes. Registers of 16 bits have zeros in the upper half.
pub(crate) type L32 = [u32; 32];
/// A 64-bit register of all lanes.
pub(crate) type L64 = [u64; 32];

/// Index of a 16- or 32-bit register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct W(pub u32);
/// Index of a 64-bit register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct D(pub u32);
/// Index of a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct P(pub u32);

/// A guard: the instruction executes in lanes where the predicate, flipped, is true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub p: P,
    pub flip: u32,
}

/// What kind of work an instruction is, for the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Moves, integer arithmetic, logic, comparisons, selections.
    Integer,
    /// Floating-point arithmetic but for `Fma` and `Special`.
    Float,
    /// Fused multiply-adds.
    Fma,
    /// Approximations: ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh; and divisions.
    Special,
    /// Conversions.
    Convert,
    /// Loads and stores.
    Memory,
    /// Atomics and reductions on memory.
    Atomic,
    /// Matrix products, ldmatrix.
    Tensor,
    /// Asynchronous copies and their groups.
    Copy,
    /// Shuffles, votes, reductions across lanes.
    Shuffle,
    /// Barriers, mbarriers, fences.
    Barrier,
    /// Branches, calls, returns.
    Branch,
    /// Second part of an instruction that decodes to two: counted nowhere.
    Part,
}

/// Number of kinds that are counted.
pub(crate) const KINDS: usize = Kind::Part as usize;

pub(crate) type FnW1 = fn(&mut L32, &L32);
pub(crate) type FnW2 = fn(&mut L32, &L32, &L32);
pub(crate) type FnW3 = fn(&mut L32, &L32, &L32, &L32);
pub(crate) type FnW4 = fn(&mut L32, &L32, &L32, &L32, &L32);
pub(crate) type FnD1 = fn(&mut L64, &L64);
pub(crate) type FnD2 = fn(&mut L64, &L64, &L64);
pub(crate) type FnD3 = fn(&mut L64, &L64, &L64, &L64);
pub(crate) type FnWD = fn(&mut L32, &L64);
pub(crate) type FnDW = fn(&mut L64, &L32);
pub(crate) type FnDWW = fn(&mut L64, &L32, &L32);
pub(crate) type FnDWWD = fn(&mut L64, &L32, &L32, &L64);
pub(crate) type FnDDW = fn(&mut L64, &L64, &L32);
pub(crate) type FnDDWW = fn(&mut L64, &L64, &L32, &L32);
pub(crate) type FnDDDWW = fn(&mut L64, &L64, &L64, &L32, &L32);
/// A comparison: the lanes in which it holds.
pub(crate) type FnCmpW = fn(&L32, &L32) -> u32;
pub(crate) type FnCmpD = fn(&L64, &L64) -> u32;
/// A carrying operation of one lane: operands and carry in, result and carry out.
pub(crate) type FnCarryW = fn(u32, u32, u32, bool) -> (u32, bool);
pub(crate) type FnCarryD = fn(u64, u64, u64, bool) -> (u64, bool);
/// An atomic operation: old value and the two operands give the new value.
pub(crate) type FnAtomic = fn(u64, u64, u64) -> u64;

/// How a comparison is combined with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// Where the result of a comparison goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetDst {
    pub p: P,
    /// Takes the opposite.
    pub q: Option<P>,
    pub with: Option<(Logic, P, u32)>,
}

/// A base register and a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addr {
    pub base: AddrBase,
    pub offset: i64,
}

/// Register that holds an address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AddrBase {
    W(W),
    D(D),
}

/// A register of either width, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reg {
    W(W),
    D(D),
    Sink,
}

/// How a loaded value fills a register that is wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extend {
    Zero,
    /// Sign of so many bits, into registers of so many.
    Sign {
        from: u32,
        to: u32,
    },
}

/// A load or store.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub space: Space,
    pub addr: Addr,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: u8,
    pub regs: Vec<Reg>,
    pub extend: Extend,
    /// Bytes per lane, a power of two: the alignment too.
    pub bytes: u8,
    /// Volatile, relaxed, acquire or release: no data race with others of its like.
    pub strong: bool,
}

/// An atomic or reduction.
#[derive(Debug, Clone)]
pub(crate) struct Atomic {
    pub space: Space,
    pub addr: Addr,
    /// 2, 4 or 8.
    pub bytes: u8,
    pub f: FnAtomic,
    pub dst: Reg,
    pub b: Reg,
    pub c: Reg,
}

/// `cp.async`.
#[derive(Debug, Clone)]
pub(crate) struct AsyncCopy {
    pub to: Addr,
    pub from: Addr,
    pub bytes: u8,
    /// How many bytes are read; the others become zero.
    pub source_bytes: Option<W>,
    /// Where true, nothing is read.
    pub ignore: Option<(P, u32)>,
}

/// `shfl.sync` mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

/// `vote.sync` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// `redux.sync` operation on all values.
pub(crate) type FnRedux = fn(u32, u32) -> u32;

/// What is done to an mbarrier.
#[derive(Debug, Clone)]
pub(crate) enum MbarrierOp {
    Init {
        count: W,
    },
    Inval,
    /// Arrives `count` times after expecting `expect` bytes. `drop` lowers the count of later phases.
    Arrive {
        state: Option<D>,
        count: Option<W>,
        expect: Option<W>,
        drop: bool,
    },
    ExpectTx {
        bytes: W,
    },
    CompleteTx {
        bytes: W,
    },
    /// Waits for the phase of a state.
    TestState {
        p: P,
        state: D,
    },
    /// Waits for the phase of a parity.
    TestParity {
        p: P,
        parity: W,
    },
    /// Arrives once the thread's copies have landed.
    CopyArrive {
        noinc: bool,
    },
    PendingCount {
        dst: W,
        state: D,
    },
}

/// What `bar` does beside waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BarrierOp {
    Sync,
    Arrive,
    /// Counts, ands or ors a predicate over the CTA.
    Popc {
        dst: W,
        p: P,
        flip: u32,
    },
    And {
        dst: P,
        p: P,
        flip: u32,
    },
    Or {
        dst: P,
        p: P,
        flip: u32,
    },
}

/// An instruction without its guard.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Something that no value can show: fences, prefetches, sleeps.
    Nop,
    W1(FnW1, W, W),
    W2(FnW2, W, W, W),
    W3(FnW3, W, W, W, W),
    W4(FnW4, W, [W; 4]),
    D1(FnD1, D, D),
    D2(FnD2, D, D, D),
    D3(FnD3, D, D, D, D),
    WD(FnWD, W, D),
    DW(FnDW, D, W),
    Dww(FnDWW, D, W, W),
    Dwwd(FnDWWD, D, W, W, D),
    Ddw(FnDDW, D, D, W),
    Ddww(FnDDWW, D, D, W, W),
    Dddww(FnDDDWW, D, D, D, W, W),
    CarryW {
        f: FnCarryW,
        dst: W,
        args: [W; 3],
        uses: bool,
        sets: bool,
    },
    CarryD {
        f: FnCarryD,
        dst: D,
        args: [D; 3],
        uses: bool,
        sets: bool,
    },
    CmpW(FnCmpW, SetDst, W, W),
    CmpD(FnCmpD, SetDst, D, D),
    SelW(W, W, W, P),
    SelD(D, D, D, P),
    P1(fn(u32) -> u32, P, P),
    P2(fn(u32, u32) -> u32, P, P, P),
    /// A conversion without a loop of its own.
    ToFloat(Box<super::convert::ToFloat>, Reg, Reg),
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    IsSpace(Space, P, D),
    Shuffle {
        mode: Shuffle,
        dst: W,
        valid: Option<P>,
        a: W,
        b: W,
        c: W,
        members: W,
    },
    Vote {
        vote: Vote,
        dst: Reg,
        p: P,
        flip: u32,
        dst_p: Option<P>,
        members: Option<W>,
    },
    Match {
        all: bool,
        dst: W,
        valid: Option<P>,
        a: Reg,
        members: W,
    },
    Redux {
        f: FnRedux,
        dst: W,
        a: W,
        members: W,
    },
    Elect {
        dst: Reg,
        p: P,
        members: W,
    },
    ActiveMask(W),
    WarpSync {
        members: W,
    },
    Barrier {
        op: BarrierOp,
        id: W,
        threads: Option<W>,
    },
    Mbarrier {
        op: MbarrierOp,
        addr: Addr,
        space: Space,
    },
    AsyncCopy(Box<AsyncCopy>),
    CommitGroup,
    /// Until at most so many groups of the thread are open; `None`: all copies, in groups or not.
    WaitGroup(Option<u32>),
    Tensor(Box<super::tensor::TensorOp>),
    Branch {
        target: u32,
        uniform: bool,
        join: u32,
    },
    BranchIndexed {
        index: W,
        targets: Box<[u32]>,
        join: u32,
    },
    Call {
        target: u32,
    },
    /// Copies bytes within the frames of threads.
    CopyFrame {
        to: u32,
        from: u32,
        bytes: u32,
    },
    Return,
    Exit,
    Trap,
    /// Number of instructions that the warp has executed.
    Clock(Reg),
}

/// Where a join is that no instruction reaches: lanes end instead.
pub(crate) const NO_JOIN: u32 = u32::MAX;

/// A decoded instruction.
#[derive(Debug, Clone)]
pub(crate) struct Instr {
    pub op: Op,
    pub guard: Option<Guard>,
    pub kind: Kind,
    pub line: u32,
    /// Where its text stands.
    pub text: (u32, u32),
}
