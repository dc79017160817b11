//! Feed-forward networks: squared ReLU, and SwiGLU with its gate.

use nemo_ir::graph::{BuildError, Value};
use nemo_models::Ffn;

use super::block::Lowering;

pub(super) fn lower(lowering: &mut Lowering, ffn: &Ffn, x: Value) -> Result<Value, BuildError> {
    let hidden = lowering.context.hidden;
    let attrs = vec![lowering.context.activations.into()];
    let inner = match &ffn.gate {
        Some(gate) => {
            let gate = lowering.product(x, gate, ffn.width, hidden)?;
            let up = lowering.product(x, &ffn.up, ffn.width, hidden)?;
            lowering.builder.op("swiglu", &[gate, up], attrs)?
        }
        None => {
            let up = lowering.product(x, &ffn.up, ffn.width, hidden)?;
            lowering.builder.op("relu2", &[up], attrs)?
        }
    };
    lowering.product(inner, &ffn.down, hidden, ffn.width)
}
