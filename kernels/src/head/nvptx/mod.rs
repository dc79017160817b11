//! Embedding, row selection, sampling.

mod distribution;
mod greedy;
mod maxima;
mod philox;
mod rows;
mod sample;
mod select;
mod stream;
mod together;

use crate::norm;
use crate::nvptx::{Chain, Kernel};
use crate::spec::KernelSpec;
use crate::target::Sm;

pub(crate) fn kernel(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    match chain.links.last().ok_or("the chain is empty")?.op.name {
        "embed" => rows::kernel(spec, "table", "tokens"),
        "gather_rows" => rows::kernel(spec, "x", "rows"),
        "sample" | "sample_tiled" => sample::kernel(spec),
        "tile_max" => maxima::kernel(spec),
        _ => norm::nvptx::kernel(sm, spec, chain),
    }
}
