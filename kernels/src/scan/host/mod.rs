//! Mamba-2 on the CPU.
//!
//! The state of a head is stored state-major, `[state, head_dim]`: lanes run along head_dim in every
//! product, and no sum crosses lanes.

mod chunked;
pub(crate) mod conv;
mod gemm;
mod heads;
mod mixer;
mod recurrent;
mod steps;

use crate::host::{Chain, Generator};

pub(crate) fn generator(chain: &Chain) -> Option<Generator> {
    let last = chain.links.last()?.op.name;
    if chain.links.len() > 1 && chain.find(&["causal_conv1d"]).is_some() {
        return Some(mixer::mixer);
    }
    match last {
        "causal_conv1d" => Some(conv::causal_conv1d),
        "dt_softplus" => Some(steps::dt_softplus),
        "ssd_recurrent" => Some(recurrent::ssd_recurrent),
        "ssd_chunked" => Some(chunked::ssd_chunked),
        _ => None,
    }
}
