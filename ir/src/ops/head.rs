//! Where a step begins and ends: embedding, row selection, sampling.

use super::{DTYPE, Effect, Family, Fused, OpSpec, dtype, float, fused, int, step, value, weight};
use crate::interp;
use crate::step::StepInput;
use crate::types::{Dim, Dtype, Symbol, Type};

pub(super) static OPS: &[OpSpec] = &[
    OpSpec {
        name: "embed",
        family: Family::Head,
        meaning: "the table's row of each token",
        operands: &[weight("table", "float[V, H]"), step(StepInput::Tokens)],
        attrs: &[DTYPE],
        results: &[("y", "dtype[T, H]")],
        effect: Effect::Pure,
        infer: |args| {
            let (_, hidden) = args.matrix("table")?;
            Ok(vec![Type::new(args.dtype(), [Symbol::T.into(), hidden.into()])])
        },
        eval: interp::head::embed,
        recipe: "",
    },
    OpSpec {
        name: "gather_rows",
        family: Family::Head,
        meaning: "the rows of x that want logits",
        operands: &[value("x", "float[T, W]"), step(StepInput::Rows)],
        attrs: &[],
        results: &[("y", "x's dtype[L, W]")],
        effect: Effect::Pure,
        infer: |args| {
            let (_, width) = args.matrix("x")?;
            Ok(vec![Type::new(args.ty("x").dtype, [Symbol::L.into(), width.into()])])
        },
        eval: interp::head::gather_rows,
        recipe: "",
    },
    OpSpec {
        name: "tile_max",
        family: Family::Head,
        meaning: "the largest of each `tile` consecutive columns; NaN where one of them is",
        operands: &[value("x", "f32[rows, V]")],
        attrs: &[int("tile")],
        results: &[("y", "f32[rows, V / tile, rounded up]")],
        effect: Effect::Pure,
        infer: |args| {
            let (rows, width) = args.matrix("x")?;
            args.expect("x", &Type::new(Dtype::F32, [rows, width.into()]))?;
            let tile = args.int("tile");
            args.require(tile > 0, "tile", "be positive")?;
            Ok(vec![Type::new(Dtype::F32, [rows, width.div_ceil(tile).into()])])
        },
        eval: interp::head::tile_max,
        recipe: "",
    },
    OpSpec {
        name: "sample_tiled",
        family: Family::Head,
        meaning: "as `sample`; the largest logit is looked up among the maxima of tiles, so that at temperature 0 one \
                  tile of logits is read",
        operands: &[
            value("logits", "f32[L, V]"),
            value("maxima", "f32[L, V / tile, rounded up]"),
            step(StepInput::Rows),
            step(StepInput::SeqStart),
            step(StepInput::Positions),
            step(StepInput::Forced),
            step(StepInput::Temperature),
            step(StepInput::TopK),
            step(StepInput::TopP),
            step(StepInput::MinP),
            step(StepInput::Seed),
        ],
        attrs: &[int("tile")],
        results: &[("next", "i32[R]")],
        effect: Effect::Pure,
        infer: |args| {
            let (_, vocab) = args.matrix("logits")?;
            args.expect("logits", &Type::new(Dtype::F32, [Symbol::L.into(), Dim::Const(vocab)]))?;
            let tile = args.int("tile");
            args.require(tile > 0, "tile", "be positive")?;
            let tiles = vocab.div_ceil(tile);
            args.expect("maxima", &Type::new(Dtype::F32, [Symbol::L.into(), Dim::Const(tiles)]))?;
            Ok(vec![Type::new(Dtype::I32, [Symbol::R.into()])])
        },
        eval: interp::head::sample_tiled,
        recipe: "",
    },
    OpSpec {
        name: "sample",
        family: Family::Head,
        meaning: "for each sequence: the forced token; else a token drawn from its last row of logits after \
                  temperature, top-k, top-p and min-p (the arg max at temperature 0, the lowest id among equals); -1 \
                  where no row wants logits, -2 where a logit is NaN. Ties at a cut-off stay in",
        operands: &[
            value("logits", "f32[L, V]"),
            step(StepInput::Rows),
            step(StepInput::SeqStart),
            step(StepInput::Positions),
            step(StepInput::Forced),
            step(StepInput::Temperature),
            step(StepInput::TopK),
            step(StepInput::TopP),
            step(StepInput::MinP),
            step(StepInput::Seed),
        ],
        attrs: &[],
        results: &[("next", "i32[R]")],
        effect: Effect::Pure,
        infer: |args| {
            let (_, vocab) = args.matrix("logits")?;
            args.expect("logits", &Type::new(Dtype::F32, [Symbol::L.into(), Dim::Const(vocab)]))?;
            Ok(vec![Type::new(Dtype::I32, [Symbol::R.into()])])
        },
        eval: interp::head::sample,
        recipe: "",
    },
    fused(&Fused {
        name: "gather_rms_norm",
        family: Family::Head,
        meaning: "RMSNorm of the rows that want logits",
        operands: &[
            value("x", "float[T, W]"),
            weight("weight", "f32[W] or f32[group]"),
            step(StepInput::Rows),
        ],
        attrs: &[float("eps"), int("group"), DTYPE],
        results: &[("y", "dtype[L, W]")],
        effect: Effect::Pure,
        recipe: "g = gather_rows(x)\n\
                 y = rms_norm(g, weight) {eps, group, dtype}",
    }),
    fused(&Fused {
        name: "gather_norm_linear",
        family: Family::Head,
        meaning: "the product of the normed rows that want logits",
        operands: &[
            value("x", "float[T, K]"),
            weight("norm", "f32[K]"),
            weight("weight", "float[N, K]"),
            step(StepInput::Rows),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), DTYPE],
        results: &[("y", "dtype[L, N]")],
        effect: Effect::Pure,
        recipe: "g = gather_rows(x)\n\
                 n = rms_norm(g, norm) {eps, group, normed}\n\
                 y = linear(n, weight) {dtype}",
    }),
    fused(&Fused {
        name: "linear_tile_max",
        family: Family::Head,
        meaning: "logits, and the largest of each tile of them",
        operands: &[value("x", "float[L, K]"), weight("weight", "float[V, K]")],
        attrs: &[int("tile"), DTYPE],
        results: &[("y", "f32[L, V]"), ("m", "f32[L, V / tile, rounded up]")],
        effect: Effect::Pure,
        recipe: "y = linear(x, weight) {dtype}\n\
                 m = tile_max(y) {tile}",
    }),
    fused(&Fused {
        name: "gather_norm_linear_tile_max",
        family: Family::Head,
        meaning: "logits of the normed rows that want them, and the largest of each tile of them",
        operands: &[
            value("x", "float[T, K]"),
            weight("norm", "f32[K]"),
            weight("weight", "float[V, K]"),
            step(StepInput::Rows),
        ],
        attrs: &[float("eps"), int("group"), dtype("normed"), int("tile"), DTYPE],
        results: &[("y", "f32[L, V]"), ("m", "f32[L, V / tile, rounded up]")],
        effect: Effect::Pure,
        recipe: "g = gather_rows(x)\n\
                 n = rms_norm(g, norm) {eps, group, normed}\n\
                 y = linear(n, weight) {dtype}\n\
                 m = tile_max(y) {tile}",
    }),
];
