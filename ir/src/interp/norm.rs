//! RMSNorm and its gated, grouped form.

use super::args::{EvalArgs, EvalError};
use super::ffn::silu;
use super::tensor::Tensor;

/// `rms_norm` of the op table.
pub fn rms_norm(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    Ok(vec![normalize(args, args.real("x").to_vec())])
}

/// `gated_rms_norm` of the op table.
pub fn gated_rms_norm(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let gated = args.real("x").iter().zip(args.real("gate")).map(|(x, gate)| x * silu(*gate)).collect();
    Ok(vec![normalize(args, gated)])
}

/// Normalizes each group of columns of `data`, which has x's shape, and multiplies by the weight.
fn normalize(args: &EvalArgs<'_>, mut data: Vec<f64>) -> Tensor {
    let (eps, group) = (args.float("eps"), args.int("group"));
    let weight = args.real("weight");
    for (index, values) in data.chunks_exact_mut(group).enumerate() {
        let mean_square = values.iter().map(|x| x * x).sum::<f64>() / group as f64;
        let scale = 1.0 / (mean_square + eps).sqrt();
        // Either the weight spans the row, or one group's weight serves all: its length decides.
        let first = index * group % weight.len();
        for (x, w) in values.iter_mut().zip(&weight[first..]) {
            *x = *x * scale * w;
        }
    }
    Tensor::real(args.tensor("x").shape(), data)
}
