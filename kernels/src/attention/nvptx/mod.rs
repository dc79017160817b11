//! Attention over pages, rotations, and the cache.

use crate::nvptx::{Chain, Kernel};
use crate::spec::KernelSpec;
use crate::target::Sm;

pub(crate) fn kernel(_sm: Sm, _spec: &KernelSpec, _chain: &Chain) -> Result<Kernel, String> {
    Err("the op has no generator".to_owned())
}
