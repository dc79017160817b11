//! Products with weights, residual addition, and views of a product's columns.

use super::{DTYPE, Effect, Family, Fused, OpSpec, dtype, float, fused, int, value, weight};
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
        recipe: "",
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
        recipe: "",
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
        recipe: "",
    },
    fused(&Fused {
        name: "linear_add",
        family: Family::Linear,
        meaning: "a product, added to the residual stream",
        operands: &[
            value("x", "float[rows, K]"),
            weight("weight", "float[N, K]"),
            value("residual", "float[rows, N]"),
        ],
        attrs: &[dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "p = linear(x, weight) {product}\n\
                 y = add(residual, p) {dtype}",
    }),
    fused(&Fused {
        name: "norm_linear",
        family: Family::Linear,
        meaning: "the product of a normed x, which each consumer norms for itself",
        operands: &[value("x", "float[rows, K]"), weight("norm", "f32[K]"), weight("weight", "float[N, K]")],
        attrs: &[float("eps"), int("group"), dtype("normed"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 y = linear(n, weight) {dtype}",
    }),
    fused(&Fused {
        name: "gated_norm_linear_add",
        family: Family::Linear,
        meaning: "the product of a gated and normed x, added to the residual stream",
        operands: &[
            value("x", "float[rows, K]"),
            value("gate", "float[rows, K]"),
            weight("norm", "f32[K]"),
            weight("weight", "float[N, K]"),
            value("residual", "float[rows, N]"),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "n = gated_rms_norm(x, gate, norm) {eps, group, normed}\n\
                 p = linear(n, weight) {product}\n\
                 y = add(residual, p) {dtype}",
    }),
    fused(&Fused {
        name: "linear_triple",
        family: Family::Linear,
        meaning: "three products with the same x",
        operands: &[
            value("x", "float[rows, K]"),
            weight("a", "float[N0, K]"),
            weight("b", "float[N1, K]"),
            weight("c", "float[N2, K]"),
        ],
        attrs: &[DTYPE],
        results: &[("ya", "dtype[rows, N0]"), ("yb", "dtype[rows, N1]"), ("yc", "dtype[rows, N2]")],
        effect: Effect::Pure,
        recipe: "ya = linear(x, a) {dtype}\n\
                 yb = linear(x, b) {dtype}\n\
                 yc = linear(x, c) {dtype}",
    }),
    fused(&Fused {
        name: "norm_linear_triple",
        family: Family::Linear,
        meaning: "three products with the same normed x",
        operands: &[
            value("x", "float[rows, K]"),
            weight("norm", "f32[K]"),
            weight("a", "float[N0, K]"),
            weight("b", "float[N1, K]"),
            weight("c", "float[N2, K]"),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), DTYPE],
        results: &[("ya", "dtype[rows, N0]"), ("yb", "dtype[rows, N1]"), ("yc", "dtype[rows, N2]")],
        effect: Effect::Pure,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 ya = linear(n, a) {dtype}\n\
                 yb = linear(n, b) {dtype}\n\
                 yc = linear(n, c) {dtype}",
    }),
    fused(&Fused {
        name: "linear_split",
        family: Family::Linear,
        meaning: "a product whose columns leave as three values, each where its consumer wants it",
        operands: &[value("x", "float[rows, K]"), weight("weight", "float[N, K]")],
        attrs: &[int("left"), int("middle"), int("right"), DTYPE],
        results: &[("l", "dtype[rows, left]"), ("m", "dtype[rows, middle]"), ("r", "dtype[rows, right]")],
        effect: Effect::Pure,
        recipe: "p = linear(x, weight) {dtype}\n\
                 l = slice(p) {0, left}\n\
                 m = slice(p) {left, middle}\n\
                 r = slice(p) {left+middle, right}",
    }),
];
