//! Times of launches, gathered as profiles show them.

use std::ops::RangeInclusive;
use std::time::Duration;

use nemo_ir::plan::{self, Phase};

use super::LaunchTime;

/// What profiles say about a block.
#[derive(Debug)]
pub(super) struct Block {
    /// Name in the graph IR.
    pub name: String,
    /// How often a step calls what has this name.
    pub calls: u64,
}

impl Block {
    /// The blocks of a program.
    pub(super) fn all(program: &plan::Program) -> Vec<Self> {
        let calls = |name: &String| {
            program.calls.iter().filter(|call| program.blocks[call.block].name == *name).count() as u64
        };
        let block = |block: &plan::Block| Self { name: block.name.clone(), calls: calls(&block.name) };
        program.blocks.iter().map(block).collect()
    }
}

/// What a launch is called, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed<'a> {
    /// The block that it belongs to.
    pub block: &'a Block,
    /// The op that its kernel computes.
    pub op: &'a str,
    /// The kernel's symbol.
    pub symbol: &'a str,
    /// Time in the steps that were timed.
    pub total: Duration,
}

/// The launches of `steps` steps of one program, those of a kernel in a block together.
pub(super) fn gather<'a>(
    (phase, tokens): (Phase, &RangeInclusive<u64>),
    steps: u64,
    launches: impl Iterator<Item = Timed<'a>>,
) -> Vec<LaunchTime> {
    let mut times: Vec<LaunchTime> = Vec::new();
    if steps == 0 {
        return times;
    }
    for Timed { block, op, symbol, total } in launches {
        let same = |time: &&mut LaunchTime| time.block == block.name && time.symbol == symbol;
        match times.iter_mut().find(same) {
            Some(time) => {
                time.count += steps;
                time.total += total;
            }
            None => times.push(LaunchTime {
                phase,
                tokens: tokens.clone(),
                block: block.name.clone(),
                calls: steps * block.calls,
                op: op.to_owned(),
                symbol: symbol.to_owned(),
                count: steps,
                total,
            }),
        }
    }
    times
}
