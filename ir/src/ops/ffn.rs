//! Activations of the feed-forward layers.

use super::{DTYPE, Effect, Family, Fused, OpSpec, dtype, float, fused, int, value, weight};
use crate::interp;
use crate::types::{Dim, Type};

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "relu2",
        family: Family::Ffn,
        meaning: "max(x, 0)^2 (So et al., Primer, 2021)",
        operands: &[value("x", "float[rows, W]")],
        attrs: &[DTYPE],
        results: &[("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(width)])])
        },
        eval: interp::ffn::relu2,
        recipe: "",
    },
    OpSpec {
        name: "swiglu",
        family: Family::Ffn,
        meaning: "silu(gate) * up in f32, rounded once (Shazeer, 2020)",
        operands: &[value("gate", "float[rows, W]"), value("up", "float[rows, W]")],
        attrs: &[DTYPE],
        results: &[("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("gate")?;
            args.expect_float("up", &[rows, Dim::Const(width)])?;
            Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(width)])])
        },
        eval: interp::ffn::swiglu,
        recipe: "",
    },
    fused(&Fused {
        name: "linear_relu2",
        family: Family::Ffn,
        meaning: "squared ReLU of a product",
        operands: &[value("x", "float[rows, K]"), weight("weight", "float[N, K]")],
        attrs: &[dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "p = linear(x, weight) {product}\n\
                 y = relu2(p) {dtype}",
    }),
    fused(&Fused {
        name: "norm_linear_relu2",
        family: Family::Ffn,
        meaning: "squared ReLU of the product of a normed x",
        operands: &[value("x", "float[rows, K]"), weight("norm", "f32[K]"), weight("weight", "float[N, K]")],
        attrs: &[float("eps"), int("group"), dtype("normed"), dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 p = linear(n, weight) {product}\n\
                 y = relu2(p) {dtype}",
    }),
    fused(&Fused {
        name: "linear_swiglu",
        family: Family::Ffn,
        meaning: "SwiGLU of two products with the same x",
        operands: &[value("x", "float[rows, K]"), weight("gate", "float[N, K]"), weight("up", "float[N, K]")],
        attrs: &[dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "g = linear(x, gate) {product}\n\
                 u = linear(x, up) {product}\n\
                 y = swiglu(g, u) {dtype}",
    }),
    fused(&Fused {
        name: "norm_linear_swiglu",
        family: Family::Ffn,
        meaning: "SwiGLU of two products with the same normed x",
        operands: &[
            value("x", "float[rows, K]"),
            weight("norm", "f32[K]"),
            weight("gate", "float[N, K]"),
            weight("up", "float[N, K]"),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), dtype("product"), DTYPE],
        results: &[("y", "dtype[rows, N]")],
        effect: Effect::Pure,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 g = linear(n, gate) {product}\n\
                 u = linear(n, up) {product}\n\
                 y = swiglu(g, u) {dtype}",
    }),
];
