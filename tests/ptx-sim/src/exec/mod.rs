//! Execution of launches: CTAs one after another, the warps of a CTA in turns, each until it has to wait.

mod alu;
mod atomic;
mod barrier;
mod bulk;
mod control;
mod copy;
mod exchange;
mod launch;
mod mbarrier;
mod memory;
mod shared;
mod step;
mod tensor;
mod warp;

pub use launch::{CtaRange, Launch, Options, run};

use crate::check::Checks;
use crate::count::Tally;
use crate::decode::op::Instr;
use crate::decode::{Kernel, Module};
use crate::error::FaultKind;
use crate::memory::Memory;
use shared::Shared;

/// Why a warp cannot go on.
#[derive(Debug)]
pub(crate) struct Stop {
    pub lane: Option<u32>,
    pub kind: FaultKind,
}

impl Stop {
    /// One lane is to blame.
    fn lane(lane: usize, kind: FaultKind) -> Box<Self> {
        Box::new(Self { lane: Some(lane as u32), kind })
    }

    /// The warp is to blame.
    fn warp(kind: FaultKind) -> Box<Self> {
        Box::new(Self { lane: None, kind })
    }
}

type Result<T> = std::result::Result<T, Box<Stop>>;

/// Everything that a launch works on but its warps.
pub(crate) struct Machine<'a> {
    module: &'a Module,
    kernel: &'a Kernel,
    code: &'a [Instr],
    memory: &'a mut Memory,
    params: &'a [u8],
    checks: Checks,
    tally: Tally,
    /// Warp instructions that may still be executed.
    budget: u64,
    limit: u64,
    /// Linear index of the CTA.
    cta: u32,
    shared: Shared,
    barriers: barrier::Barriers,
    /// Grows whenever something happens that another warp may wait for.
    progress: u64,
    /// `wgmma`s that were not waited for.
    products: Vec<tensor::PendingProduct<'a>>,
    /// Bulk stores that were not waited for.
    bulk_stores: Vec<bulk::PendingStore>,
    /// Several CTAs run, so that they may race.
    many_ctas: bool,
}

/// Lanes of a mask, lowest first.
fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}
