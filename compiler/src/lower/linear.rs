//! One square matrix in the place of a mixer.

use nemo_ir::graph::{BuildError, Value};
use nemo_models::Linear;

use super::block::Lowering;

pub(super) fn lower(lowering: &mut Lowering, linear: &Linear, x: Value) -> Result<Value, BuildError> {
    let hidden = lowering.context.hidden;
    lowering.product(x, &linear.tensor, hidden, hidden)
}
