//! Mamba-2 on GPUs.
//!
//! Lanes run along channels, or along head_dim of a state `[state, head_dim]`; a thread or a warp keeps its part of what
//! passes from row to row in registers. The scan has two forms: [`recurrent`], which a step of one token a sequence is
//! made of, and [`chunked`], on tensor cores, for prompts in bf16. The op asked for says no more than what is summed: in
//! decode, in f32, and for extents that tensor cores do not divide into, the chunked op takes the recurrent form.

mod chunked;
mod conv;
mod heads;
mod mixer;
mod panel;
mod recurrent;
mod sequences;
mod steps;
#[cfg(test)]
mod tests;
mod window;

use nemo_ir::plan::Phase;

use crate::nvptx::{Chain, Kernel};
use crate::spec::KernelSpec;
use crate::target::Sm;

pub(crate) fn kernel(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let last = chain.links.last().ok_or("the chain is empty")?;
    if chain.links.len() > 1 && chain.find(&["causal_conv1d"]).is_some() {
        return mixer::kernel(spec, chain);
    }
    match last.op.name {
        "causal_conv1d" => conv::kernel(spec, last),
        "dt_softplus" => steps::kernel(spec, last),
        "ssd_recurrent" => recurrent::kernel(spec, chain, last),
        "ssd_chunked" => {
            let decode = spec.steps.is_some_and(|steps| steps.phase == Phase::Decode);
            match chunked::Tiling::of(sm, spec, chain, last)? {
                Some(tiling) if !decode => chunked::kernel(sm, spec, chain, last, tiling),
                _ => recurrent::kernel(spec, chain, last),
            }
        }
        other => Err(format!("`{other}` has no generator")),
    }
}
