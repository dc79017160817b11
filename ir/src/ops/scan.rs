//! Mamba-2 (Dao & Gu, "Transformers are SSMs", 2024): causal convolution, step sizes, and the
//! state-space scan in its recurrent and its chunked (SSD) form.

use super::{
    DTYPE, Effect, Family, Fused, OpArgs, OpSpec, Operand, OperandKind, TypeError, dtype, float, fused, int,
    optional_weight, state, step, value, weight,
};
use crate::interp;
use crate::step::StepInput;
use crate::types::{Dim, Dtype, Symbol, Type};

const SCAN_OPERANDS: &[Operand] = &[
    value("x", "float[T, heads * head_dim]"),
    value("dt", "f32[T, heads]"),
    value("b", "float[T, groups * state]"),
    value("c", "float[T, groups * state]"),
    weight("a_log", "f32[heads]"),
    weight("d", "f32[heads]"),
    state("ssm", "f32[S, heads, state, head_dim]"),
    step(StepInput::SeqStart),
    step(StepInput::SlotIn),
    step(StepInput::SlotOut),
];

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "causal_conv1d",
        family: Family::Scan,
        meaning: "depthwise causal convolution over each sequence, last column on the current token, plus bias, \
                  then SiLU; the state is the last K-1 inputs, oldest first",
        operands: &[
            value("x", "float[T, C]"),
            weight("weight", "f32[C, K]"),
            Operand { name: "bias", kind: OperandKind::OptionalWeight, shape: "f32[C]" },
            state("conv", "float[S, K-1, C]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[DTYPE],
        results: &[("y", "dtype[T, C]"), ("conv'", "the state")],
        effect: Effect::WritesState,
        infer: |args| {
            let (rows, channels) = args.matrix("x")?;
            let kernel = match args.ty("weight").shape[..] {
                [Dim::Const(c), Dim::Const(k)] if c == channels && k >= 2 => k,
                _ => return Err(args.mismatch("weight", &format!("f32[{channels},K]"))),
            };
            args.expect("weight", &Type::new(Dtype::F32, [channels.into(), kernel.into()]))?;
            if args.optional("bias").is_some() {
                args.expect("bias", &Type::new(Dtype::F32, [channels.into()]))?;
            }
            args.expect_float("conv", &[Symbol::S.into(), (kernel - 1).into(), channels.into()])?;
            Ok(vec![Type::new(args.dtype(), [rows, channels.into()]), args.ty("conv").clone()])
        },
        eval: interp::scan::causal_conv1d,
        recipe: "",
    },
    OpSpec {
        name: "dt_softplus",
        family: Family::Scan,
        meaning: "softplus(dt + bias), clamped to [min, max], in f32: the step size of each head",
        operands: &[value("dt", "float[T, heads]"), weight("bias", "f32[heads]")],
        attrs: &[float("min"), float("max")],
        results: &[("y", "f32[T, heads]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, heads) = args.matrix("dt")?;
            args.expect("bias", &Type::new(Dtype::F32, [heads.into()]))?;
            args.require(args.float("min") >= 0.0, "min", "be at least 0")?;
            args.require(args.float("max") > args.float("min"), "max", "exceed `min`")?;
            Ok(vec![Type::new(Dtype::F32, [rows, heads.into()])])
        },
        eval: interp::scan::dt_softplus,
        recipe: "",
    },
    OpSpec {
        name: "ssd_recurrent",
        family: Family::Scan,
        meaning: "token by token and head by head: S = exp(-exp(a_log) dt) S + dt x b^T; y = S c + d x; a group of \
                  consecutive heads shares b and c",
        operands: SCAN_OPERANDS,
        attrs: &[int("heads"), int("groups"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        infer: infer_scan,
        eval: interp::scan::ssd_recurrent,
        recipe: "",
    },
    OpSpec {
        name: "ssd_chunked",
        family: Family::Scan,
        meaning: "the same sum tiled into chunks of `chunk` tokens from each sequence's first row: products inside a \
                  chunk, and the state carried between chunks",
        operands: SCAN_OPERANDS,
        attrs: &[int("heads"), int("groups"), int("chunk"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        infer: |args| {
            args.require(args.int("chunk") > 0, "chunk", "be positive")?;
            infer_scan(args)
        },
        eval: interp::scan::ssd_chunked,
        recipe: "",
    },
    fused(&Fused {
        name: "ssd_recurrent_dt",
        family: Family::Scan,
        meaning: "the recurrent scan, with the step sizes computed on the way",
        operands: &[
            value("x", "float[T, heads * head_dim]"),
            value("dt", "float[T, heads]"),
            weight("bias", "f32[heads]"),
            value("b", "float[T, groups * state]"),
            value("c", "float[T, groups * state]"),
            weight("a_log", "f32[heads]"),
            weight("d", "f32[heads]"),
            state("ssm", "f32[S, heads, state, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[float("min"), float("max"), int("heads"), int("groups"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        recipe: "s = dt_softplus(dt, bias) {min, max}\n\
                 y, ssm' = ssd_recurrent(x, s, b, c, a_log, d, ssm) {heads, groups, dtype}",
    }),
    fused(&Fused {
        name: "ssd_chunked_dt",
        family: Family::Scan,
        meaning: "the chunked scan, with the step sizes computed on the way",
        operands: &[
            value("x", "float[T, heads * head_dim]"),
            value("dt", "float[T, heads]"),
            weight("bias", "f32[heads]"),
            value("b", "float[T, groups * state]"),
            value("c", "float[T, groups * state]"),
            weight("a_log", "f32[heads]"),
            weight("d", "f32[heads]"),
            state("ssm", "f32[S, heads, state, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[float("min"), float("max"), int("heads"), int("groups"), int("chunk"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        recipe: "s = dt_softplus(dt, bias) {min, max}\n\
                 y, ssm' = ssd_chunked(x, s, b, c, a_log, d, ssm) {heads, groups, chunk, dtype}",
    }),
    fused(&Fused {
        name: "ssd_recurrent_packed",
        family: Family::Scan,
        meaning: "the recurrent scan of x, b and c as they lie side by side",
        operands: &[
            value("xbc", "float[T, inner + 2 * shared]"),
            value("dt", "float[T, heads]"),
            weight("bias", "f32[heads]"),
            weight("a_log", "f32[heads]"),
            weight("d", "f32[heads]"),
            state("ssm", "f32[S, heads, state, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[int("inner"), int("shared"), float("min"), float("max"), int("heads"), int("groups"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        recipe: "x = slice(xbc) {0, inner}\n\
                 b = slice(xbc) {inner, shared}\n\
                 c = slice(xbc) {inner+shared, shared}\n\
                 s = dt_softplus(dt, bias) {min, max}\n\
                 y, ssm' = ssd_recurrent(x, s, b, c, a_log, d, ssm) {heads, groups, dtype}",
    }),
    fused(&Fused {
        name: "conv_ssd",
        family: Family::Scan,
        meaning: "convolution, SiLU, step sizes, state update and skip in one",
        operands: &[
            value("xbc", "float[T, inner + 2 * shared]"),
            weight("conv_weight", "f32[inner + 2 * shared, K]"),
            optional_weight("conv_bias", "f32[inner + 2 * shared]"),
            state("conv", "float[S, K-1, inner + 2 * shared]"),
            value("dt", "float[T, heads]"),
            weight("bias", "f32[heads]"),
            weight("a_log", "f32[heads]"),
            weight("d", "f32[heads]"),
            state("ssm", "f32[S, heads, state, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[
            dtype("convolved"),
            int("inner"),
            int("shared"),
            float("min"),
            float("max"),
            int("heads"),
            int("groups"),
            DTYPE,
        ],
        results: &[("y", "dtype[T, inner]"), ("conv'", "the state"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        recipe: "m, conv' = causal_conv1d(xbc, conv_weight, conv_bias, conv) {convolved}\n\
                 x = slice(m) {0, inner}\n\
                 b = slice(m) {inner, shared}\n\
                 c = slice(m) {inner+shared, shared}\n\
                 s = dt_softplus(dt, bias) {min, max}\n\
                 y, ssm' = ssd_recurrent(x, s, b, c, a_log, d, ssm) {heads, groups, dtype}",
    }),
    fused(&Fused {
        name: "conv_ssd_norm",
        family: Family::Scan,
        meaning: "convolution, SiLU, step sizes, state update, skip, gate and group norm in one",
        operands: &[
            value("xbc", "float[T, inner + 2 * shared]"),
            weight("conv_weight", "f32[inner + 2 * shared, K]"),
            optional_weight("conv_bias", "f32[inner + 2 * shared]"),
            state("conv", "float[S, K-1, inner + 2 * shared]"),
            value("dt", "float[T, heads]"),
            weight("bias", "f32[heads]"),
            weight("a_log", "f32[heads]"),
            weight("d", "f32[heads]"),
            state("ssm", "f32[S, heads, state, head_dim]"),
            value("gate", "float[T, inner]"),
            weight("norm", "f32[inner]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[
            dtype("convolved"),
            int("inner"),
            int("shared"),
            float("min"),
            float("max"),
            int("heads"),
            int("groups"),
            dtype("scanned"),
            float("eps"),
            int("group"),
            DTYPE,
        ],
        results: &[("y", "dtype[T, inner]"), ("conv'", "the state"), ("ssm'", "the state")],
        effect: Effect::WritesState,
        recipe: "m, conv' = causal_conv1d(xbc, conv_weight, conv_bias, conv) {convolved}\n\
                 x = slice(m) {0, inner}\n\
                 b = slice(m) {inner, shared}\n\
                 c = slice(m) {inner+shared, shared}\n\
                 s = dt_softplus(dt, bias) {min, max}\n\
                 t, ssm' = ssd_recurrent(x, s, b, c, a_log, d, ssm) {heads, groups, scanned}\n\
                 y = gated_rms_norm(t, gate, norm) {eps, group, dtype}",
    }),
    fused(&Fused {
        name: "linear_conv",
        family: Family::Scan,
        meaning: "the input projection with the convolution of its middle columns: one token a sequence",
        operands: &[
            value("x", "float[T, K]"),
            weight("weight", "float[N, K]"),
            weight("conv_weight", "f32[middle, K]"),
            optional_weight("conv_bias", "f32[middle]"),
            state("conv", "float[S, K-1, middle]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[int("left"), int("middle"), int("right"), dtype("product"), dtype("convolved")],
        results: &[
            ("l", "product[T, left]"),
            ("y", "convolved[T, middle]"),
            ("r", "product[T, right]"),
            ("conv'", "the state"),
        ],
        effect: Effect::WritesState,
        recipe: "p = linear(x, weight) {product}\n\
                 l = slice(p) {0, left}\n\
                 m = slice(p) {left, middle}\n\
                 r = slice(p) {left+middle, right}\n\
                 y, conv' = causal_conv1d(m, conv_weight, conv_bias, conv) {convolved}",
    }),
    fused(&Fused {
        name: "norm_linear_conv",
        family: Family::Scan,
        meaning: "the input projection of a normed x, with the convolution of its middle columns: one token a sequence",
        operands: &[
            value("x", "float[T, K]"),
            weight("norm", "f32[K]"),
            weight("weight", "float[N, K]"),
            weight("conv_weight", "f32[middle, K]"),
            optional_weight("conv_bias", "f32[middle]"),
            state("conv", "float[S, K-1, middle]"),
            step(StepInput::SeqStart),
            step(StepInput::SlotIn),
            step(StepInput::SlotOut),
        ],
        attrs: &[
            float("eps"),
            int("group"),
            dtype("normed"),
            int("left"),
            int("middle"),
            int("right"),
            dtype("product"),
            dtype("convolved"),
        ],
        results: &[
            ("l", "product[T, left]"),
            ("y", "convolved[T, middle]"),
            ("r", "product[T, right]"),
            ("conv'", "the state"),
        ],
        effect: Effect::WritesState,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 p = linear(n, weight) {product}\n\
                 l = slice(p) {0, left}\n\
                 m = slice(p) {left, middle}\n\
                 r = slice(p) {left+middle, right}\n\
                 y, conv' = causal_conv1d(m, conv_weight, conv_bias, conv) {convolved}",
    }),
];

fn infer_scan(args: &OpArgs<'_>) -> Result<Vec<Type>, TypeError> {
    let (rows, inner) = args.matrix("x")?;
    let (heads, groups) = (args.int("heads"), args.int("groups"));
    args.require(heads > 0 && inner % heads == 0, "heads", format!("divide the width {inner}"))?;
    args.require(groups > 0 && heads % groups == 0, "groups", format!("divide the {heads} heads"))?;
    let (_, bc_width) = args.matrix("b")?;
    args.require(bc_width % groups == 0, "groups", format!("divide the width {bc_width} of b"))?;
    args.expect_float("b", &[rows, bc_width.into()])?;
    args.expect_float("c", &[rows, bc_width.into()])?;
    args.expect("dt", &Type::new(Dtype::F32, [rows, heads.into()]))?;
    for name in ["a_log", "d"] {
        args.expect(name, &Type::new(Dtype::F32, [heads.into()]))?;
    }
    let state_shape = [Symbol::S.into(), heads.into(), (bc_width / groups).into(), (inner / heads).into()];
    args.expect("ssm", &Type::new(Dtype::F32, state_shape))?;
    Ok(vec![Type::new(args.dtype(), [rows, inner.into()]), args.ty("ssm").clone()])
}
