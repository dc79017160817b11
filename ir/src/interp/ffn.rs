//! Activations of the feed-forward layers.

use super::args::{EvalArgs, EvalError};
use super::tensor::Tensor;

/// `x * sigmoid(x)`.
pub(super) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `relu2` of the op table.
pub fn relu2(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let y = args.real("x").iter().map(|x| if *x < 0.0 { 0.0 } else { x * x }).collect();
    Ok(vec![Tensor::real(args.tensor("x").shape(), y)])
}

/// `swiglu` of the op table.
pub fn swiglu(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let y = args.real("gate").iter().zip(args.real("up")).map(|(gate, up)| silu(*gate) * up).collect();
    Ok(vec![Tensor::real(args.tensor("gate").shape(), y)])
}
