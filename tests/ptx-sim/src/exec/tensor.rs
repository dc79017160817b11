//! Matrix instructions and tensor copies.

use super::warp::Warp;
use super::{Machine, Result};
use crate::decode::tensor::TensorOp;

impl Machine<'_> {
    pub(super) fn tensor(&mut self, _warp: &mut Warp, op: &TensorOp, _mask: u32) -> Result<()> {
        match *op {}
    }
}
