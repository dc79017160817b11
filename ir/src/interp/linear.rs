//! Products with weights, residual addition, and views of columns.

use super::args::{EvalArgs, EvalError};
use super::tensor::Tensor;

/// `linear` of the op table.
pub fn linear(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, weight) = (args.matrix("x"), args.matrix("weight"));
    let mut y = Vec::with_capacity(x.rows * weight.rows);
    for row in 0..x.rows {
        for column in 0..weight.rows {
            y.push(dot(x.row(row), weight.row(column)));
        }
    }
    Ok(vec![Tensor::real([x.rows, weight.rows], y)])
}

/// The sum of products, in order.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `add` of the op table.
pub fn add(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let y = args.real("a").iter().zip(args.real("b")).map(|(a, b)| a + b).collect();
    Ok(vec![Tensor::real(args.tensor("a").shape(), y)])
}

/// `slice` of the op table.
pub fn slice(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let x = args.matrix("x");
    let (offset, width) = (args.int("offset"), args.int("width"));
    let y = (0..x.rows).flat_map(|row| &x.row(row)[offset..offset + width]).copied().collect();
    Ok(vec![Tensor::real([x.rows, width], y)])
}
