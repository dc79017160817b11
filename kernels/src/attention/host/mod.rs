//! RoPE, the KV cache and attention on the CPU.

pub(crate) mod cache;
mod paged;
pub(crate) mod rope;

use crate::host::{Chain, Generator};

pub(crate) fn generator(chain: &Chain) -> Option<Generator> {
    match chain.links.last()?.op.name {
        "rope" => Some(rope::rope),
        "kv_append" => Some(cache::kv_append),
        "paged_attention" => Some(paged::paged_attention),
        _ => None,
    }
}
