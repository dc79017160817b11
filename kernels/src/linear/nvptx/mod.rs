//! Products with weights, and residual addition.
//!
//! A product stands in a chain: what comes before it norms x on the way, what comes after it works on sums before they
//! leave the CTA. [`plan`] reads the chain; no op is known by name but the simple ones.

mod conv;
mod epilogue;
mod heads;
mod plan;
mod sink;
mod strips;
mod tile;
mod warpgroup;

use crate::nvptx::{Chain, Emit, Float, Kernel, Pointwise};
use crate::spec::KernelSpec;
use crate::target::Sm;

pub(crate) fn kernel(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let plan = plan::Plan::of(spec, chain)?;
    if let Ok(cut) = warpgroup::Cut::of(sm, spec, &plan) {
        return Ok(warpgroup::kernel(plan, cut));
    }
    let cut = tile::Cut::of(sm, spec, &plan)?;
    Ok(tile::kernel(plan, cut))
}

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    (op == "add").then_some(add as Pointwise)
}

fn add<'c>(e: &Emit<'c, '_>, values: &[Float<'c>]) -> Float<'c> {
    e.fadd(values[0], values[1])
}
