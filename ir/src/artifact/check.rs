//! Plan validation: after it, nothing that the runtime indexes by a plan is out of bounds, and every
//! kernel gets as many pointers as it says it takes.
//!
//! What it cannot see is what the machine code does with those pointers: how far a kernel goes from each
//! of them, and that this stays inside the arena, the weight or the state behind it. That is the
//! compiler's promise, which `nemoc` checks against its own plan before writing; the artifact's digests
//! keep plan and code together as they were written, and do not say who wrote them.

use thiserror::Error;

use crate::plan::{Arg, Block, Call, Geometry, Phase, Plan, Program};
use crate::rope::RopeTable;

/// Vocabulary, positions, tokens and sequences are i32 in the step contract.
const MAX_COUNT: u64 = i32::MAX as u64;

/// No tensor, state unit or arena is larger: 2^46 bytes, so that sums of a few stay far from overflow.
const MAX_BYTES: u64 = 1 << 46;

/// Most shared memory that a CTA can have on any GPU of today.
const MAX_SHARED: u32 = 227 << 10;

/// What is wrong with a plan, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {what}")]
pub struct PlanFault {
    /// Where in the plan.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

fn fault<T>(place: impl Into<String>, what: impl Into<String>) -> Result<T, PlanFault> {
    Err(PlanFault { place: place.into(), what: what.into() })
}

fn require(
    holds: bool,
    place: impl FnOnce() -> String,
    what: impl FnOnce() -> String,
) -> Result<(), PlanFault> {
    if holds { Ok(()) } else { fault(place(), what()) }
}

/// Checks that every index of a plan is in range, every buffer begins inside its arena, every launch has
/// its kernel's number of arguments, and every size is sane.
///
/// # Errors
/// The first fault found.
pub fn validate(plan: &Plan) -> Result<(), PlanFault> {
    let limits = plan.limits;
    for (name, value) in [
        ("vocab", limits.vocab),
        ("max_context", limits.max_context),
        ("max_seqs", limits.max_seqs),
        ("chunk", limits.chunk),
    ] {
        let place = || format!("limits.{name}");
        require((1..=MAX_COUNT).contains(&value), place, || format!("{value} is not in 1..={MAX_COUNT}"))?;
    }
    for (index, kernel) in plan.kernels.iter().enumerate() {
        let place = || format!("kernels[{index}]");
        require(!kernel.symbol.is_empty(), place, || "it has no symbol".to_owned())?;
        if let Some(geometry) = &kernel.geometry {
            check_geometry(plan, kernel.args, geometry, place)?;
        }
    }
    for (index, weight) in plan.weights.iter().enumerate() {
        let place = || format!("weights[{index}]");
        require(!weight.names.is_empty(), place, || "it has no name".to_owned())?;
        sized(&weight.shape, 4, place)?;
    }
    for state in &plan.states {
        sized(&state.shape, state.dtype.bytes(), || format!("state `{}`", state.name))?;
    }
    for (index, table) in plan.tables.iter().enumerate() {
        check_table(plan, index, table)?;
    }
    require(
        plan.programs.iter().any(|program| program.phase == Phase::Prefill),
        || "programs".to_owned(),
        || "there is no prefill program".to_owned(),
    )?;
    for phase in Phase::ALL {
        check_ranges(plan, phase)?;
    }
    for program in &plan.programs {
        check_program(plan, program, &place(program))?;
    }
    Ok(())
}

/// How messages call a program.
fn place(program: &Program) -> String {
    format!("program `{}` {:?}", program.phase.name(), program.tokens())
}

/// The ranges of a phase's programs start at 1 and follow each other, so that each step has one program. Where the last
/// ends, the runtime's steps end: it need not be at the limits.
fn check_ranges(plan: &Plan, phase: Phase) -> Result<(), PlanFault> {
    let mut next = 1;
    for program in plan.programs.iter().filter(|program| program.phase == phase) {
        let here = || place(program);
        let (first, last) = (program.min_tokens, program.max_tokens);
        require(1 <= first && first <= last && last <= MAX_COUNT, here, || {
            format!("{first}..={last} is no range of tokens in 1..={MAX_COUNT}")
        })?;
        require(first <= next, here, || {
            format!("no {} program before it serves {next}..={} tokens", phase.name(), first - 1)
        })?;
        require(first >= next, here, || {
            let last = last.min(next - 1);
            format!("a {} program before it serves {first}..={last} tokens too", phase.name())
        })?;
        next = last + 1;
    }
    Ok(())
}

/// The extents are positive and their product, in bytes, is within [`MAX_BYTES`].
fn sized(shape: &[u64], bytes: u64, place: impl Fn() -> String) -> Result<(), PlanFault> {
    let total = shape.iter().try_fold(bytes, |product, extent| product.checked_mul(*extent));
    match total {
        Some(total) if total > 0 && total <= MAX_BYTES => Ok(()),
        Some(0) => fault(place(), format!("shape {shape:?} has an extent of 0")),
        _ => fault(place(), format!("shape {shape:?} is too large")),
    }
}

/// Launches within what every GPU takes, inside the plan's workspace.
fn check_geometry(
    plan: &Plan,
    args: usize,
    geometry: &Geometry,
    place: impl Fn() -> String + Copy,
) -> Result<(), PlanFault> {
    let threads = geometry.threads;
    require((1..=1024).contains(&threads), place, || format!("a CTA of {threads} threads, not 1..=1024"))?;
    require(geometry.shared <= MAX_SHARED, place, || {
        format!("{} bytes of shared memory are more than the {MAX_SHARED} there can be", geometry.shared)
    })?;
    let has = plan.workspace.unwrap_or_default();
    for (what, takes, has) in [
        ("counters", geometry.counters, has.counters),
        ("bytes of partial results", geometry.partials, has.partials),
    ] {
        require(takes <= has, place, || format!("it takes {takes} {what}, and the workspace has {has}"))?;
    }
    require(
        has.counters <= MAX_COUNT && has.partials <= MAX_BYTES,
        || "workspace".to_owned(),
        || format!("{} counters and {} bytes are too large", has.counters, has.partials),
    )?;
    for map in &geometry.maps {
        in_range("argument of a tensor map", map.arg, args, place)?;
    }
    Ok(())
}

fn check_table(plan: &Plan, index: usize, table: &RopeTable) -> Result<(), PlanFault> {
    let place = || format!("tables[{index}]");
    require(table.head_dim > 0 && table.head_dim.is_multiple_of(2), place, || {
        format!("head_dim {} is not even and positive", table.head_dim)
    })?;
    sized(&[table.positions, table.head_dim], 4, place)?;
    require(table.positions >= plan.limits.max_context, place, || {
        format!("{} positions are fewer than max_context {}", table.positions, plan.limits.max_context)
    })?;
    require(table.theta.is_finite() && table.theta > 0.0, place, || {
        format!("theta {} is not positive", table.theta)
    })
}

fn check_program(plan: &Plan, program: &Program, place: &str) -> Result<(), PlanFault> {
    let here = || place.to_owned();
    // A program runs every step of its range, so it has room for all the sequences that such a step may have.
    let max_seqs = plan.limits.max_seqs.min(program.max_tokens);
    require(program.max_seqs == max_seqs, here, || {
        format!("max_seqs is {}, but its largest steps have {max_seqs} sequences", program.max_seqs)
    })?;
    require(program.arena_bytes <= MAX_BYTES, here, || {
        format!("an arena of {} bytes is too large", program.arena_bytes)
    })?;
    for block in &program.blocks {
        check_block(plan, program, block, place)?;
    }
    for (index, call) in program.calls.iter().enumerate() {
        check_call(plan, program, call, &format!("{place}, call {index}"))?;
    }
    Ok(())
}

fn check_block(plan: &Plan, program: &Program, block: &Block, place: &str) -> Result<(), PlanFault> {
    for (index, launch) in block.launches.iter().enumerate() {
        let here = || format!("{place}, block `{}`, launch {index} ({})", block.name, launch.op);
        in_range("kernel", launch.kernel, plan.kernels.len(), here)?;
        let (takes, has) = (plan.kernels[launch.kernel].args, launch.args.len());
        require(takes == has, here, || format!("it has {has} arguments, but the kernel takes {takes}"))?;
        for arg in &launch.args {
            match *arg {
                Arg::Arena(offset) => require(offset < program.arena_bytes, here, || {
                    format!("offset {offset} is past the arena of {} bytes", program.arena_bytes)
                })?,
                Arg::Table(table) => in_range("table", table, plan.tables.len(), here)?,
                // Which weights and states there are depends on the call.
                Arg::Weight(_) | Arg::State(_) | Arg::Step(_) | Arg::Logits | Arg::Next => {}
            }
        }
    }
    Ok(())
}

fn check_call(plan: &Plan, program: &Program, call: &Call, place: &str) -> Result<(), PlanFault> {
    let here = || place.to_owned();
    in_range("block", call.block, program.blocks.len(), here)?;
    for weight in &call.weights {
        in_range("weight", *weight, plan.weights.len(), here)?;
    }
    for state in &call.states {
        in_range("state", *state, plan.states.len(), here)?;
    }
    let block = &program.blocks[call.block];
    for arg in block.launches.iter().flat_map(|launch| &launch.args) {
        match *arg {
            Arg::Weight(n) => in_range("bound weight", n, call.weights.len(), here)?,
            Arg::State(n) => in_range("bound state", n, call.states.len(), here)?,
            Arg::Arena(_) | Arg::Table(_) | Arg::Step(_) | Arg::Logits | Arg::Next => {}
        }
    }
    Ok(())
}

fn in_range(what: &str, index: usize, count: usize, place: impl FnOnce() -> String) -> Result<(), PlanFault> {
    require(index < count, place, || format!("{what} {index}, of which there are {count}"))
}
