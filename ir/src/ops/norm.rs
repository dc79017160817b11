//! RMSNorm (Zhang & Sennrich, 2019) and the gated, grouped form of Mamba-2 (Dao & Gu, 2024).

use super::{
    DTYPE, Effect, Family, Fused, OpArgs, OpSpec, TypeError, dtype, float, fused, int, value, weight,
};
use crate::interp;
use crate::types::{Dim, Dtype, Type};

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "rms_norm",
        family: Family::Norm,
        meaning: "x * rsqrt(mean(x^2) + eps) * weight in f32, over each `group` consecutive columns; a weight of \
                  one group's width serves every group",
        operands: &[value("x", "float[rows, W]"), weight("weight", "f32[W] or f32[group]")],
        attrs: &[float("eps"), int("group"), DTYPE],
        results: &[("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            let group = check_group(args, width)?;
            let shared = Type::new(Dtype::F32, [Dim::Const(group)]);
            if *args.ty("weight") != shared {
                args.expect("weight", &Type::new(Dtype::F32, [Dim::Const(width)]))?;
            }
            Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(width)])])
        },
        eval: interp::norm::rms_norm,
        recipe: "",
    },
    OpSpec {
        name: "gated_rms_norm",
        family: Family::Norm,
        meaning: "RMSNorm of x * silu(gate) over each `group` consecutive columns, times weight, all in f32",
        operands: &[
            value("x", "float[rows, W]"),
            value("gate", "float[rows, W]"),
            weight("weight", "f32[W]"),
        ],
        attrs: &[float("eps"), int("group"), DTYPE],
        results: &[("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            check_group(args, width)?;
            args.expect_float("gate", &[rows, Dim::Const(width)])?;
            args.expect("weight", &Type::new(Dtype::F32, [Dim::Const(width)]))?;
            Ok(vec![Type::new(args.dtype(), [rows, Dim::Const(width)])])
        },
        eval: interp::norm::gated_rms_norm,
        recipe: "",
    },
    fused(&Fused {
        name: "add_rms_norm",
        family: Family::Norm,
        meaning: "the residual sum of a and b, and its RMSNorm",
        operands: &[
            value("a", "float[rows, W]"),
            value("b", "float[rows, W]"),
            weight("weight", "f32[W] or f32[group]"),
        ],
        attrs: &[float("eps"), int("group"), dtype("sum"), DTYPE],
        results: &[("s", "sum[rows, W]"), ("y", "dtype[rows, W]")],
        effect: Effect::Pure,
        recipe: "s = add(a, b) {sum}\n\
                 y = rms_norm(s, weight) {eps, group, dtype}",
    }),
];

fn check_group(args: &OpArgs<'_>, width: u64) -> Result<u64, TypeError> {
    let group = args.int("group");
    args.require(group > 0 && width.is_multiple_of(group), "group", format!("divide the width {width}"))?;
    Ok(group)
}
