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

/// The loops over K that there are.
enum Loop {
    /// [`warpgroup`]
    Warpgroup(warpgroup::Cut),
    /// [`tile`]
    Tile(tile::Cut),
    /// [`stream`]
    Stream,
    /// [`simt`]
    Simt,
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Warpgroup(_) => "Warpgroup",
            Self::Tile(_) => "Tile",
            Self::Stream => "Stream",
            Self::Simt => "Simt",
        })
    }
}

pub(crate) fn kernel(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let plan = Plan::of(spec, chain)?;
    let convolves = plan.groups.iter().any(|group| matches!(group.sink, Sink::Conv { .. }));
    if convolves && spec.steps.is_none_or(|steps| steps.phase != Phase::Decode) {
        return Err("a product is convolved on its way only where each row is a sequence".to_owned());
    }
    match choose(sm, spec, &plan) {
        Loop::Warpgroup(cut) => Ok(warpgroup::kernel(plan, cut)),
        Loop::Tile(cut) => Ok(tile::kernel(plan, cut)),
        Loop::Stream => stream::kernel(sm, spec, plan),
        Loop::Simt => simt::kernel(sm, spec, plan),
    }
}

/// The most rows of x that [`stream`] reads weights once for.
const FEW: u64 = 16;

/// Which loop over K serves a plan, the first that can:
///
/// | rows of the longest step | x, as the products take it | weights | K | loop |
/// |---|---|---|---|---|
/// | more than 64, tiles for half of an H100 | bf16 in memory, rows at multiples of 16 bytes | as below | any | [`warpgroup`] |
/// | more than 16 | bf16, rows at multiples of 16 bytes, or normed | as below | multiple of 8 | [`tile`] |
/// | any | the same | bf16, rows at multiples of 16 bytes | multiple of 8 | [`stream`] |
/// | any | anything else | | | [`simt`] |
fn choose(sm: Sm, spec: &KernelSpec, plan: &Plan) -> Loop {
    if cut::most_rows(spec, plan.rows) > FEW {
        if let Ok(cut) = warpgroup::Cut::of(sm, spec, plan) {
            return Loop::Warpgroup(cut);
        }
        if let Ok(cut) = tile::Cut::of(sm, spec, plan) {
            return Loop::Tile(cut);
        }
    }
    if stream::takes(plan) { Loop::Stream } else { Loop::Simt }
}

pub(crate) fn pointwise(op: &str) -> Option<Pointwise> {
    (op == "add").then_some(add as Pointwise)
}

fn add<'c>(e: &Emit<'c, '_>, values: &[Float<'c>]) -> Float<'c> {
    e.fadd(values[0], values[1])
}
