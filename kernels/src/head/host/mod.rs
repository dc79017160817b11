//! Embedding, row selection and sampling on the CPU.

pub(crate) mod maxima;
mod philox;
mod rows;
mod sample;

use crate::host::{Chain, Generator};
use crate::norm;

pub(crate) fn generator(chain: &Chain) -> Option<Generator> {
    match chain.links.last()?.op.name {
        "embed" => Some(rows::embed),
        "gather_rows" => Some(rows::gather_rows),
        "sample" | "sample_tiled" => Some(sample::sample),
        "tile_max" => Some(maxima::tile_max),
        _ => norm::host::generator(chain),
    }
}
