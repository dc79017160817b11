//! How products of models' shapes are cut for each card.

use std::fmt::Write;

use nemo_ir::graph::Node;
use nemo_ir::plan::{Extent, Phase};
use nemo_ir::text::parse_block;
use nemo_ir::types::{Symbol, Type};

use crate::nvptx::candidates;
use crate::spec::{KernelSpec, Layout, Steps};
use crate::target::Sm;

/// Products of Nemotron Nano 9B v2, of Llama 3.1 8B, and of the widest layer of Llama Nemotron Ultra.
const BLOCKS: [&str; 4] = [
    "block nano(%x: bf16[T,4480], %y: bf16[T,10240], %z: bf16[T,15680]) {
       state &conv: bf16[S,3,12288]
       state &kv: bf16[N,2,8,64,128]
       weight @norm: f32[4480]
       weight @in: bf16[22656,4480]
       weight @taps: f32[12288,4]
       weight @bias: f32[12288]
       weight @out: bf16[4480,10240]
       weight @up: bf16[15680,4480]
       weight @down: bf16[4480,15680]
       weight @q: bf16[5120,4480]
       weight @k: bf16[1024,4480]
       weight @v: bf16[1024,4480]
       %0, %1, %2, &conv.1 = norm_linear_conv(%x, @norm, @in, @taps, @bias, &conv) {eps: 1e-5, group: 4480, normed: bf16, left: 10240, middle: 12288, right: 128, product: bf16, convolved: bf16} : bf16[T,10240], bf16[T,12288], bf16[T,128], bf16[S,3,12288]
       %3 = linear_add(%y, @out, %x) {product: f32, dtype: bf16} : bf16[T,4480]
       %4 = norm_linear_relu2(%x, @norm, @up) {eps: 1e-5, group: 4480, normed: bf16, product: f32, dtype: bf16} : bf16[T,15680]
       %5 = linear_add(%z, @down, %x) {product: f32, dtype: bf16} : bf16[T,4480]
       %6, &kv.1 = norm_linear_qkv(%x, @norm, @q, @k, @v, &kv) {eps: 1e-5, group: 4480, normed: bf16, dtype: bf16} : bf16[T,5120], bf16[N,2,8,64,128]
       return a = %0, b = %1, c = %2, d = %3, e = %4, f = %5, g = %6
     }",
    "block head(%x: bf16[T,4480]) {
       weight @norm: f32[4480]
       weight @head: bf16[131072,4480]
       %0, %1 = gather_norm_linear_tile_max(%x, @norm, @head) {eps: 1e-5, group: 4480, normed: bf16, tile: 256, dtype: f32} : f32[L,131072], f32[L,512]
       return logits = %0, maxima = %1
     }",
    "block llama(%x: bf16[T,4096], %y: bf16[T,14336]) {
       state &kv: bf16[N,2,8,64,128]
       weight @norm: f32[4096]
       weight @q: bf16[4096,4096]
       weight @k: bf16[1024,4096]
       weight @v: bf16[1024,4096]
       weight @gate: bf16[14336,4096]
       weight @up: bf16[14336,4096]
       weight @down: bf16[4096,14336]
       table #0 = rope {theta: 500000.0, head_dim: 128, positions: 131072}
       %0, &kv.1 = norm_linear_rope_qkv(%x, @norm, @q, @k, @v, #0, &kv) {eps: 1e-5, group: 4096, normed: bf16, product: f32, dtype: bf16} : bf16[T,4096], bf16[N,2,8,64,128]
       %1 = norm_linear_swiglu(%x, @norm, @gate, @up) {eps: 1e-5, group: 4096, normed: bf16, product: f32, dtype: bf16} : bf16[T,14336]
       %2 = linear_add(%y, @down, %x) {product: f32, dtype: bf16} : bf16[T,4096]
       %3 = linear(%x, @k) {dtype: bf16} : bf16[T,1024]
       return a = %0, b = %1, c = %2, d = %3
     }",
    "block ultra(%x: bf16[T,16384], %y: bf16[T,425984]) {
       weight @norm: f32[16384]
       weight @gate: bf16[425984,16384]
       weight @up: bf16[425984,16384]
       weight @down: bf16[16384,425984]
       weight @small: f32[64,16384]
       %0 = norm_linear_swiglu(%x, @norm, @gate, @up) {eps: 1e-5, group: 16384, normed: bf16, product: f32, dtype: bf16} : bf16[T,425984]
       %1 = linear_add(%y, @down, %x) {product: f32, dtype: bf16} : bf16[T,16384]
       %2 = linear(%x, @small) {dtype: f32} : f32[T,64]
       return a = %0, b = %1, c = %2
     }",
];

/// The ops of a block, as kernels for steps of one token a sequence.
fn specs(text: &str, tokens: u64) -> Vec<KernelSpec> {
    let steps = Steps { phase: Phase::Decode, min_tokens: 1, max_tokens: tokens, max_seqs: tokens };
    let block = parse_block(text).unwrap_or_else(|error| panic!("{error}"));
    let layout = |ty: Type| Layout::dense(ty).aligned(16);
    let spec = |node| {
        let Node::Op { op, attrs, results } = &block.graph[node] else { return None };
        let values = results.iter().filter(|ty| ![Symbol::S.into(), Symbol::N.into()].contains(&ty.shape[0]));
        Some(KernelSpec {
            op,
            attrs: attrs.clone(),
            operands: block.operands(node).into_iter().map(|value| layout(block.ty(value))).collect(),
            results: values.map(|ty| layout(ty.clone())).collect(),
            steps: Some(steps),
            form: None,
        })
    };
    block.order().into_iter().filter_map(spec).collect()
}

#[test]
fn cuts() {
    let mut text = String::new();
    for block in BLOCKS {
        for tokens in [1, 8, 16] {
            for spec in specs(block, tokens) {
                let widths: Vec<_> =
                    spec.operands.iter().filter(|layout| layout.ty.shape.len() == 2).collect();
                let x = widths[0].ty.to_string();
                for sm in Sm::ALL {
                    for made in candidates(sm, &spec).unwrap_or_else(|error| panic!("{error}")) {
                        let geometry = made.geometry;
                        let grid = geometry.grid.map(|extent| Extent::value(extent, |_| tokens));
                        let (name, threads, shared) = (spec.op.name, geometry.threads, geometry.shared);
                        let (card, counters, form) = (sm.name(), geometry.counters, made.form);
                        writeln!(
                            text,
                            "{card} {tokens:>2} rows: {name} of {x}: {form}, {grid:?} CTAs of {threads}, {shared} bytes \
                             shared, {counters} counters"
                        )
                        .expect("a string takes all");
                    }
                }
            }
        }
    }
    insta::assert_snapshot!(text);
}
