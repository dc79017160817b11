//! RoPE, the paged KV cache, and grouped-query attention (Ainslie et al., 2023) over it.

use super::{DTYPE, Effect, Family, OpSpec, Operand, OperandKind, float, int, state, step, value};
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
    },
];
