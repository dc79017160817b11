//! RoPE, the paged KV cache, and grouped-query attention (Ainslie et al., 2023) over it.

use super::{
    DTYPE, Effect, Family, Fused, OpSpec, Operand, OperandKind, dtype, float, fused, int, state, step,
    table_of, value, weight,
};
use crate::interp;
use crate::step::{PAGE_TOKENS, StepInput};
use crate::types::{Dim, Dtype, Symbol, Type};

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "rope",
        family: Family::Attention,
        meaning: "rotates the two halves of each head by the angle of the token's position, in f32",
        operands: &[
            value("x", "float[T, heads * head_dim]"),
            Operand {
                name: "table",
                kind: OperandKind::Table,
                shape: "f32[C, head_dim]: cosines, then sines",
            },
            step(StepInput::Positions),
        ],
        attrs: &[DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            match args.ty("table").shape[..] {
                [Dim::Const(_), Dim::Const(d)]
                    if args.ty("table").dtype == Dtype::F32 && d > 0 && d % 2 == 0 && width % d == 0 => {}
                _ => {
                    return Err(
                        args.mismatch("table", &format!("f32[C,D] with an even D that divides {width}"))
                    );
                }
            }
            Ok(vec![Type::new(args.dtype(), [rows, width.into()])])
        },
        eval: interp::attention::rope,
        recipe: "",
    },
    OpSpec {
        name: "kv_append",
        family: Family::Attention,
        meaning: "writes each token's keys and values to its place in the sequence's pages",
        operands: &[
            value("k", "float[T, kv_heads * head_dim]"),
            value("v", "float[T, kv_heads * head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[],
        results: &[("kv'", "the state")],
        effect: Effect::WritesState,
        infer: |args| {
            let (rows, width) = args.matrix("k")?;
            args.expect_float("v", &[rows, width.into()])?;
            let kv = args.ty("kv");
            let fits = kv.dtype.is_float()
                && match kv.shape[..] {
                    [pages, Dim::Const(2), Dim::Const(h), Dim::Const(PAGE_TOKENS), Dim::Const(d)] => {
                        pages == Symbol::N.into() && h.checked_mul(d) == Some(width)
                    }
                    _ => false,
                };
            if !fits {
                let wanted = format!("float[N,2,H,{PAGE_TOKENS},D] with H * D = {width}");
                return Err(args.mismatch("kv", &wanted));
            }
            Ok(vec![kv.clone()])
        },
        eval: interp::attention::kv_append,
        recipe: "",
    },
    OpSpec {
        name: "paged_attention",
        family: Family::Attention,
        meaning: "causal softmax attention of each token over its sequence's cached tokens, itself included, at most \
                  the last `window` of them (0: all); consecutive query heads share a KV head",
        operands: &[
            value("q", "float[T, heads * head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[float("scale"), int("window"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]")],
        effect: Effect::ReadsState,
        infer: |args| {
            let (rows, width) = args.matrix("q")?;
            let kv = args.ty("kv");
            match kv.shape[..] {
                [_, Dim::Const(2), Dim::Const(h), Dim::Const(PAGE_TOKENS), Dim::Const(d)]
                    if kv.dtype.is_float() && h > 0 && d > 0 && width % d == 0 && (width / d) % h == 0 => {}
                _ => {
                    let wanted = format!("float[N,2,H,{PAGE_TOKENS},D] with H * D dividing {width}");
                    return Err(args.mismatch("kv", &wanted));
                }
            }
            Ok(vec![Type::new(args.dtype(), [rows, width.into()])])
        },
        eval: interp::attention::paged_attention,
        recipe: "",
    },
    fused(&Fused {
        name: "norm_rope",
        family: Family::Attention,
        meaning: "RMSNorm of each head, then its rotation",
        operands: &[
            value("x", "float[T, heads * head_dim]"),
            weight("weight", "f32[head_dim] or f32[heads * head_dim]"),
            table_of("table", "f32[C, head_dim]"),
            step(StepInput::Positions),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), DTYPE],
        results: &[("y", "dtype[T, heads * head_dim]")],
        effect: Effect::Pure,
        recipe: "n = rms_norm(x, weight) {eps, group, normed}\n\
                 y = rope(n, table) {dtype}",
    }),
    fused(&Fused {
        name: "rope_kv_append",
        family: Family::Attention,
        meaning: "rotates the keys on their way to the cache",
        operands: &[
            value("k", "float[T, kv_heads * head_dim]"),
            value("v", "float[T, kv_heads * head_dim]"),
            table_of("table", "f32[C, head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::Positions),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[dtype("rotated")],
        results: &[("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "r = rope(k, table) {rotated}\n\
                 kv' = kv_append(r, v, kv)",
    }),
    fused(&Fused {
        name: "linear_rope",
        family: Family::Attention,
        meaning: "a product, rotated head by head",
        operands: &[
            value("x", "float[T, K]"),
            weight("weight", "float[N, K]"),
            table_of("table", "f32[C, head_dim]"),
            step(StepInput::Positions),
        ],
        attrs: &[dtype("product"), DTYPE],
        results: &[("y", "dtype[T, N]")],
        effect: Effect::Pure,
        recipe: "p = linear(x, weight) {product}\n\
                 y = rope(p, table) {dtype}",
    }),
    fused(&Fused {
        name: "linear_kv_append",
        family: Family::Attention,
        meaning: "keys and values from their products into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[dtype("product")],
        results: &[("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "k = linear(x, k_weight) {product}\n\
                 v = linear(x, v_weight) {product}\n\
                 kv' = kv_append(k, v, kv)",
    }),
    fused(&Fused {
        name: "linear_rope_kv_append",
        family: Family::Attention,
        meaning: "keys, rotated, and values from their products into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            table_of("table", "f32[C, head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::Positions),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[dtype("product"), dtype("rotated")],
        results: &[("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "k = linear(x, k_weight) {product}\n\
                 v = linear(x, v_weight) {product}\n\
                 r = rope(k, table) {rotated}\n\
                 kv' = kv_append(r, v, kv)",
    }),
    fused(&Fused {
        name: "linear_qkv",
        family: Family::Attention,
        meaning: "queries of x; keys and values into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("q_weight", "float[heads * head_dim, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[DTYPE],
        results: &[("q", "dtype[T, heads * head_dim]"), ("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "q = linear(x, q_weight) {dtype}\n\
                 k = linear(x, k_weight) {dtype}\n\
                 v = linear(x, v_weight) {dtype}\n\
                 kv' = kv_append(k, v, kv)",
    }),
    fused(&Fused {
        name: "linear_rope_qkv",
        family: Family::Attention,
        meaning: "rotated queries of x; rotated keys, and values, into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("q_weight", "float[heads * head_dim, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            table_of("table", "f32[C, head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::Positions),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[dtype("product"), DTYPE],
        results: &[("q", "dtype[T, heads * head_dim]"), ("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "p = linear(x, q_weight) {product}\n\
                 k = linear(x, k_weight) {product}\n\
                 v = linear(x, v_weight) {product}\n\
                 q = rope(p, table) {dtype}\n\
                 r = rope(k, table) {dtype}\n\
                 kv' = kv_append(r, v, kv)",
    }),
    fused(&Fused {
        name: "norm_linear_qkv",
        family: Family::Attention,
        meaning: "queries of a normed x; keys and values into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("norm", "f32[K]"),
            weight("q_weight", "float[heads * head_dim, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), DTYPE],
        results: &[("q", "dtype[T, heads * head_dim]"), ("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 q = linear(n, q_weight) {dtype}\n\
                 k = linear(n, k_weight) {dtype}\n\
                 v = linear(n, v_weight) {dtype}\n\
                 kv' = kv_append(k, v, kv)",
    }),
    fused(&Fused {
        name: "norm_linear_rope_qkv",
        family: Family::Attention,
        meaning: "rotated queries of a normed x; rotated keys, and values, into the cache",
        operands: &[
            value("x", "float[T, K]"),
            weight("norm", "f32[K]"),
            weight("q_weight", "float[heads * head_dim, K]"),
            weight("k_weight", "float[kv_heads * head_dim, K]"),
            weight("v_weight", "float[kv_heads * head_dim, K]"),
            table_of("table", "f32[C, head_dim]"),
            state("kv", "float[N, 2, kv_heads, 64, head_dim]"),
            step(StepInput::Positions),
            step(StepInput::SeqStart),
            step(StepInput::Context),
            step(StepInput::Pages),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), dtype("product"), DTYPE],
        results: &[("q", "dtype[T, heads * head_dim]"), ("kv'", "the state")],
        effect: Effect::WritesState,
        recipe: "n = rms_norm(x, norm) {eps, group, normed}\n\
                 p = linear(n, q_weight) {product}\n\
                 k = linear(n, k_weight) {product}\n\
                 v = linear(n, v_weight) {product}\n\
                 q = rope(p, table) {dtype}\n\
                 r = rope(k, table) {dtype}\n\
                 kv' = kv_append(r, v, kv)",
    }),
];
