//! Products with weights, and residual addition.
//!
//! A product stands in a chain: what comes before it norms x on the way, what comes after it works on sums before they
//! leave the CTA. [`plan`] reads the chain; no op is known by name but the simple ones.

mod conv;
mod cut;
mod epilogue;
mod heads;
mod plan;
mod simt;
mod sink;
mod source;
mod stream;
mod strips;
#[cfg(test)]
mod tests;
mod tile;
mod warpgroup;

use nemo_ir::plan::Phase;

use plan::Plan;
use sink::Sink;

use crate::nvptx::{Chain, Emit, Float, Kernel, Pointwise};
use crate::spec::KernelSpec;
use crate::target::Sm;

/// Rows that one pass of [`stream`] over the weights takes.
const FEW: u64 = 16;

/// The kernels of a spec, one for each loop over K that can serve it:
///
/// | loop | where | x, as the products take it | weights | K |
/// |---|---|---|---|---|
/// | [`warpgroup`] | sm_90, steps of more than 16 rows | bf16 in memory, rows at multiples of 16 bytes | bf16, rows at multiples of 16 bytes | any |
/// | [`tile`] | steps of more than 8 rows | the same, or normed on the way | the same | multiple of 8 |
/// | [`stream`] | everywhere | the same | the same | multiple of 8 |
/// | [`simt`] | where no other can | any | any | any |
pub(crate) fn kernels(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Vec<Kernel>, String> {
    let plan = || Plan::of(spec, chain);
    let read = plan()?;
    let convolves = read.groups.iter().any(|group| matches!(group.sink, Sink::Conv { .. }));
    if convolves && spec.steps.is_none_or(|steps| steps.phase != Phase::Decode) {
        return Err("a product is convolved on its way only where each row is a sequence".to_owned());
    }
    let rows = cut::most_rows(spec, read.rows);
    let mut kernels = Vec::new();
    if rows > FEW
        && let Ok(cut) = warpgroup::Cut::of(sm, spec, &read)
    {
        kernels.push(warpgroup::kernel(plan()?, cut));
    }
    if rows > FEW / 2
        && let Ok(cut) = tile::Cut::of(sm, spec, &read)
    {
        kernels.push(tile::kernel(plan()?, cut));
    }
    if stream::takes(&read) {
        kernels.push(stream::kernel(sm, spec, plan()?)?);
    }
    if kernels.is_empty() {
        kernels.push(simt::kernel(sm, spec, read)?);
    }
    Ok(kernels)
}

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    (op == "add").then_some(add as Pointwise)
}

fn add<'c>(e: &Emit<'c, '_>, values: &[Float<'c>]) -> Float<'c> {
    e.fadd(values[0], values[1])
}
