//! Activations of the feed-forward layers.

use super::{DTYPE, Effect, Family, OpSpec, value};
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
    },
];
