//! Products with weights, residual addition, and views of a product's columns.

use super::{DTYPE, Effect, Family, OpSpec, int, value, weight};
use crate::interp;
use crate::types::{Dim, Type};

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "linear",
        family: Family::Linear,
        meaning: "x times the transposed weight, accumulated in f32",
        operands: &[value("x", "float[rows, K]"), weight("weight", "float[N, K]")],
        attrs: &[DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, k) = args.matrix("x")?;
            let weight = args.ty("weight");
            match weight.shape[..] {
                [Dim::Const(n), Dim::Const(wk)] if weight.dtype.is_float() && wk == k && n > 0 => {
                    Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(n)])])
                }
                _ => Err(args.mismatch("weight", &format!("float[N,{k}]"))),
            }
        },
        eval: interp::linear::linear,
    },
    OpSpec {
        name: "add",
        family: Family::Linear,
        meaning: "a + b in f32, rounded once: the residual connection",
        operands: &[value("a", "float[rows, W]"), value("b", "float[rows, W]")],
        attrs: &[DTYPE],
        results: &[("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("a")?;
            args.expect_float("b", &[rows, Dim::Const(width)])?;
            Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(width)])])
        },
        eval: interp::linear::add,
    },
    OpSpec {
        name: "slice",
        family: Family::Linear,
        meaning: "columns `offset .. offset + width` of x; a view, never a copy",
        operands: &[value("x", "float[rows, W]")],
        attrs: &[int("offset"), int("width")],
        results: &[("y", "x's dtype[rows, width]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            let (offset, taken) = (args.int("offset"), args.int("width"));
            let fits = taken > 0 && offset.checked_add(taken).is_some_and(|end| end <= width);
            args.require(fits, "width", format!("be positive and end within the {width} columns"))?;
            Ok(vec![Type::new(args.ty("x").dtype, [rows, Dim::Const(taken)])])
        },
        eval: interp::linear::slice,
    },
];
