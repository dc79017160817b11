//! RoPE, the KV cache and attention on GPUs.

mod append;
pub(crate) mod cache;
mod norm_rope;
mod paged;
pub(crate) mod rope;
mod rotate;

use crate::nvptx::{Chain, Kernel};
use crate::spec::KernelSpec;
use crate::target::Sm;

pub(crate) fn kernels(sm: Sm, spec: &KernelSpec, chain: &Chain) -> Result<Vec<Kernel>, String> {
    let kernel = match chain.links.last().map(|link| link.op.name) {
        Some("rope") if chain.find(&["rms_norm"]).is_some() => norm_rope::kernel(spec, chain),
        Some("rope") => rotate::kernel(spec, chain),
        Some("kv_append") => append::kernel(spec, chain),
        Some("paged_attention") => return paged::kernels(sm, spec),
        _ => Err("the op has no generator".to_owned()),
    };
    kernel.map(|kernel| vec![kernel])
}
