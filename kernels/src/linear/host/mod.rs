//! Products with weights, and residual addition.
//!
//! A product stands in a chain: what comes before it norms x on the way, what comes after it works on
//! outputs before they leave the registers or the cache. [`plan`] reads the chain; no op is known by name
//! but the simple ones.

mod block;
mod epilogue;
mod plan;
mod tile;

use crate::host::{Chain, Emit, Generator, Lanes, Pointwise};

pub(crate) fn generator(chain: &Chain) -> Option<Generator> {
    chain.find(&["linear"]).map(|_| block::product as Generator)
}

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    (op == "add").then_some(add as Pointwise)
}

fn add<'c>(e: &Emit<'c, '_>, values: &[Lanes<'c>]) -> Lanes<'c> {
    e.fadd(values[0], values[1])
}
