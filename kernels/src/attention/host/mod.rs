//! RoPE, the KV cache and attention on the CPU.

mod cache;
mod paged;
mod rope;

use crate::host::Generator;

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "rope" => Some(rope::rope),
        "kv_append" => Some(cache::kv_append),
        "paged_attention" => Some(paged::paged_attention),
        _ => None,
    }
}
