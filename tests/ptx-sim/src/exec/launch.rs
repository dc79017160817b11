//! A launch from its parameters to its counts.

use super::shared::Shared;
use super::warp::{State, Warp};
use super::{Machine, Stop, barrier::Barriers};
use crate::check::Checks;
use crate::count::{Counts, Tally};
use crate::decode::{Const, Kernel, Module};
use crate::error::{Fault, FaultKind};
use crate::layout::SHARED_WINDOW;
use crate::memory::Memory;
use crate::parse::{Special, collapse};
use std::collections::HashMap;

/// Most threads of a CTA.
const MAX_THREADS: u32 = 1024;
/// Most shared memory of a CTA on any card.
const MAX_SHARED: u64 = 227 * 1024;

/// A launch of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name of the kernel.
    pub kernel: &'a str,
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter block: every parameter at its natural alignment, as [`Kernel::params`] says.
    pub params: &'a [u8],
}

/// Which CTAs of a grid are executed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CtaRange {
    /// All of them.
    #[default]
    All,
    /// Those whose linear index (x fastest) lies in the range.
    Range(std::ops::Range<u64>),
}

/// How a launch is executed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which CTAs are executed.
    pub ctas: CtaRange,
    /// What is checked.
    pub checks: Checks,
    /// Most instructions that the warps of all CTAs may execute together.
    pub instruction_limit: Option<u64>,
}

impl Default for Options {
    /// All CTAs, all checks, and a limit of 2^32 instructions.
    fn default() -> Self {
        Self { ctas: CtaRange::All, checks: Checks::default(), instruction_limit: Some(1 << 32) }
    }
}

/// Executes a launch.
///
/// CTAs run one after another in the order of their linear index. Memory keeps what was written even if a fault
/// ends the launch.
pub fn run(
    module: &Module,
    memory: &mut Memory,
    launch: &Launch<'_>,
    options: &Options,
) -> Result<Counts, Fault> {
    let early = |kind| Fault {
        kernel: launch.kernel.into(),
        cta: [0; 3],
        warp: None,
        lane: None,
        thread: None,
        line: 0,
        instruction: Box::default(),
        kind,
    };
    let kernel = module.kernel(launch.kernel).ok_or_else(|| early(FaultKind::NoKernel))?;
    check_shape(kernel, launch).map_err(early)?;
    let globals = memory.variables(module);
    let threads: u32 = launch.block.iter().product();
    let warps = threads.div_ceil(32);
    let align = u64::from(kernel.code.dynamic_align);
    let dynamic_start = u64::from(kernel.code.static_shared).next_multiple_of(align);
    let shared_bytes = dynamic_start + u64::from(launch.dynamic_shared);
    let total: u64 = launch.grid.iter().map(|&ctas| u64::from(ctas)).product();
    let range = match &options.ctas {
        CtaRange::All => 0..total,
        CtaRange::Range(range) => range.start.min(total)..range.end.min(total),
    };
    let limit = options.instruction_limit.unwrap_or(u64::MAX);
    let mut machine = Machine {
        module,
        kernel,
        code: &kernel.code.instructions,
        memory,
        params: launch.params,
        checks: options.checks,
        tally: Tally::default(),
        budget: limit,
        limit,
        cta: 0,
        shared: Shared::new(shared_bytes as usize, warps as usize, kernel.code.granule, options.checks),
        barriers: Barriers::default(),
        progress: 0,
        products: Vec::new(),
        bulk_stores: Vec::new(),
        many_ctas: range.end.saturating_sub(range.start) > 1,
    };
    let mut places = Places { globals, dynamic_start, shared_bytes, launch, index: [0; 3] };
    let mut pool: Vec<Warp> = (0..warps).map(|id| Warp::new(id, threads, &kernel.code)).collect();
    let mut result = Ok(());
    for cta in range {
        let [x, y] = [u64::from(launch.grid[0]), u64::from(launch.grid[1])];
        places.index = [(cta % x) as u32, (cta / x % y) as u32, (cta / (x * y)) as u32];
        machine.cta = cta as u32;
        machine.shared.restart();
        machine.barriers = Barriers::default();
        machine.products.clear();
        machine.bulk_stores.clear();
        for warp in &mut pool {
            warp.restart();
            places.fill(warp, kernel);
        }
        machine.tally.counts.ctas += 1;
        machine.tally.counts.warps += u64::from(warps);
        result = run_cta(&mut machine, &mut pool)
            .map_err(|(warp, stop)| fault(&machine, &pool, launch, places.index, warp, *stop));
        if result.is_err() {
            break;
        }
    }
    machine.tally.counts.launches = 1;
    let mut counts = machine.tally.finish();
    memory.finish_launch(&mut counts);
    result.map(|()| counts)
}

fn check_shape(kernel: &Kernel, launch: &Launch<'_>) -> Result<(), FaultKind> {
    if launch.params.len() != kernel.param_bytes() {
        return Err(FaultKind::ParameterBytes { expected: kernel.param_bytes(), found: launch.params.len() });
    }
    let threads: u64 = launch.block.iter().map(|&threads| u64::from(threads)).product();
    let limit = kernel.max_threads().unwrap_or(MAX_THREADS).min(MAX_THREADS);
    if threads == 0 || threads > u64::from(limit) {
        return Err(FaultKind::BlockSize { threads, limit });
    }
    let bytes = u64::from(kernel.static_shared_bytes()) + u64::from(launch.dynamic_shared);
    if bytes > MAX_SHARED {
        return Err(FaultKind::SharedBytes { bytes, limit: MAX_SHARED });
    }
    Ok(())
}

/// Runs the warps of one CTA in turns. An error carries the warp that stopped, if one did.
fn run_cta(machine: &mut Machine<'_>, warps: &mut [Warp]) -> Result<(), (Option<usize>, Box<Stop>)> {
    loop {
        let before = machine.progress;
        for at in 0..warps.len() {
            if matches!(warps[at].state, State::Ready | State::Polling) {
                machine.turn(&mut warps[at]).map_err(|stop| (Some(at), stop))?;
                machine.settle_barriers(warps);
            }
        }
        if warps.iter().all(|warp| warp.state == State::Done) {
            return machine.flush_bulk_stores().map_err(|stop| (None, stop));
        }
        if machine.progress == before {
            return Err((None, Stop::warp(FaultKind::Deadlock(describe(machine, warps)))));
        }
    }
}

/// Who waits for what.
fn describe(machine: &Machine<'_>, warps: &[Warp]) -> String {
    let mut parts = Vec::new();
    let mut done = 0;
    for warp in warps {
        let line = warp.waits_at().map_or(0, |at| machine.code[at].line);
        match warp.state {
            State::Done => done += 1,
            State::AtBarrier(id) => parts.push(format!("warp {} at barrier {id} in line {line}", warp.id)),
            State::Polling => parts.push(format!("warp {} at an mbarrier in line {line}", warp.id)),
            State::Ready => parts.push(format!("warp {} in line {line}", warp.id)),
        }
    }
    if done > 0 {
        parts.push(format!("{done} warps have exited"));
    }
    parts.join(", ")
}

fn fault(
    machine: &Machine<'_>,
    warps: &[Warp],
    launch: &Launch<'_>,
    cta: [u32; 3],
    warp: Option<usize>,
    stop: Stop,
) -> Fault {
    let blamed = warp.or_else(|| warps.iter().position(|warp| warp.state != State::Done));
    let at = blamed.and_then(|warp| warps[warp].waits_at());
    let (line, instruction) = at.map_or((0, Box::default()), |at| {
        let instruction = &machine.code[at];
        let (start, end) = instruction.text;
        (instruction.line, collapse(&machine.module.source[start as usize..end as usize]).into())
    });
    let thread = match (warp, stop.lane) {
        (Some(warp), Some(lane)) => {
            let linear = warp as u32 * 32 + lane;
            let [x, y, _] = launch.block;
            Some([linear % x, linear / x % y, linear / (x * y)])
        }
        _ => None,
    };
    Fault {
        kernel: machine.kernel.name().into(),
        cta,
        warp: warp.map(|warp| warp as u32),
        lane: stop.lane,
        thread,
        line,
        instruction,
        kind: stop.kind,
    }
}

/// What constants and special registers stand for in a launch.
struct Places<'a> {
    globals: HashMap<usize, u64>,
    dynamic_start: u64,
    shared_bytes: u64,
    launch: &'a Launch<'a>,
    index: [u32; 3],
}

impl Places<'_> {
    /// Sets the registers that hold a value from the start.
    fn fill(&self, warp: &mut Warp, kernel: &Kernel) {
        let id = warp.id;
        for &(register, value) in &kernel.code.w_consts {
            let lanes = &mut warp.w[register as usize];
            (0..32).for_each(|lane| lanes[lane] = self.value(value, id, lane as u32) as u32);
        }
        for &(register, value) in &kernel.code.d_consts {
            let lanes = &mut warp.d[register as usize];
            (0..32).for_each(|lane| lanes[lane] = self.value(value, id, lane as u32));
        }
    }

    fn value(&self, value: Const, warp: u32, lane: u32) -> u64 {
        match value {
            Const::Value(value) => value,
            Const::DynamicShared { offset, generic } => {
                let window = if generic { SHARED_WINDOW } else { 0 };
                (self.dynamic_start + window).wrapping_add_signed(offset)
            }
            Const::Global(id, offset) => self.globals[&id].wrapping_add_signed(offset),
            Const::Special(special) => u64::from(self.special(special, warp, lane)),
        }
    }

    fn special(&self, special: Special, warp: u32, lane: u32) -> u32 {
        let [x, y, _] = self.launch.block;
        let thread = warp * 32 + lane;
        match special {
            Special::Tid(0) => thread % x,
            Special::Tid(1) => thread / x % y,
            Special::Tid(_) => thread / (x * y),
            Special::Ntid(axis) => self.launch.block[usize::from(axis)],
            Special::Ctaid(axis) => self.index[usize::from(axis)],
            Special::Nctaid(axis) => self.launch.grid[usize::from(axis)],
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NWarpId => self.launch.block.iter().product::<u32>().div_ceil(32),
            Special::WarpSize => 32,
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => (1 << lane) - 1,
            Special::LaneMaskLe => u32::MAX >> (31 - lane),
            Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
            Special::LaneMaskGe => u32::MAX << lane,
            Special::DynamicShared => self.launch.dynamic_shared,
            Special::TotalShared => self.shared_bytes as u32,
            Special::One => 1,
            Special::Zero | Special::Clock | Special::Clock64 => 0,
        }
    }
}
