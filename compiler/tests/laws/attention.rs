//! Cases of the laws of attention's way in.

use crate::Cases;
use crate::kit::Draw;

pub const CASES: Cases = &[
    ("head-norm-rope", |draw| {
        let shape = Shape::draw(draw);
        // A weight for each head's columns, or one for all.
        let width = if draw.random.coin() { shape.head_dim } else { shape.queries() };
        draw.value("x", shape.queries());
        draw.small("n", &[width]);
        draw.norm_attrs(shape.head_dim);
        draw.table("table", shape.head_dim);
        draw.dtypes(&["m", "d"]);
    }),
    ("rope-into-cache", |draw| {
        let shape = Shape::draw(draw);
        draw.value("k", shape.keys());
        draw.value("v", shape.keys());
        shape.rotated_cache(draw);
        draw.dtypes(&["d"]);
    }),
    ("rope-epilogue", |draw| {
        rotated_product(draw);
        draw.dtypes(&["p", "d"]);
    }),
    ("rope-unrounded", |draw| {
        rotated_product(draw);
        draw.dtypes(&["d"]);
    }),
    ("products-into-cache", |draw| {
        let (shape, width) = (Shape::draw(draw), draw.size());
        draw.value("x", width);
        shape.key_weights(draw, width);
        shape.cache(draw);
        draw.dtypes(&["p"]);
    }),
    ("rotated-products-into-cache", |draw| {
        rotated_keys(draw);
        draw.dtypes(&["p", "d"]);
    }),
    ("rotated-products-unrounded", |draw| {
        rotated_keys(draw);
        draw.dtypes(&["d"]);
    }),
    ("qkv", |draw| {
        let (shape, width) = (Shape::draw(draw), draw.size());
        draw.value("x", width);
        shape.weights(draw, width);
        shape.cache(draw);
        draw.dtypes(&["p"]);
    }),
    ("rotated-qkv", |draw| {
        let (shape, width) = (Shape::draw(draw), draw.size());
        draw.value("x", width);
        shape.weights(draw, width);
        shape.rotated_cache(draw);
        draw.dtypes(&["p", "d"]);
    }),
    ("qkv-norm-prologue", |draw| {
        let (shape, width) = (Shape::draw(draw), draw.norm("n"));
        draw.value("x", width);
        shape.weights(draw, width);
        shape.cache(draw);
        draw.dtypes(&["m", "d"]);
    }),
    ("rotated-qkv-norm-prologue", |draw| {
        let (shape, width) = (Shape::draw(draw), draw.norm("n"));
        draw.value("x", width);
        shape.weights(draw, width);
        shape.rotated_cache(draw);
        draw.dtypes(&["m", "p", "d"]);
    }),
];

/// Extents of attention.
struct Shape {
    kv_heads: u64,
    group: u64,
    head_dim: u64,
}

impl Shape {
    fn draw(draw: &mut Draw) -> Self {
        let mut within = |low, high| draw.random.within(low, high);
        Self { kv_heads: within(1, 3), group: within(1, 3), head_dim: 2 * within(1, 3) }
    }

    fn queries(&self) -> u64 {
        self.keys() * self.group
    }

    fn keys(&self) -> u64 {
        self.kv_heads * self.head_dim
    }

    /// `?q`, `?k` and `?v`, in the order in which models have them.
    fn weights(&self, draw: &mut Draw, width: u64) {
        draw.weight("q", self.queries(), width);
        self.key_weights(draw, width);
    }

    fn key_weights(&self, draw: &mut Draw, width: u64) {
        draw.weight("k", self.keys(), width);
        draw.weight("v", self.keys(), width);
    }

    fn cache(&self, draw: &mut Draw) {
        draw.cache("kv", self.kv_heads, self.head_dim);
    }

    fn rotated_cache(&self, draw: &mut Draw) {
        self.cache(draw);
        draw.table("table", self.head_dim);
    }
}

fn rotated_product(draw: &mut Draw) {
    let (shape, width) = (Shape::draw(draw), draw.size());
    draw.value("x", width);
    draw.weight("w", shape.queries(), width);
    draw.table("table", shape.head_dim);
}

fn rotated_keys(draw: &mut Draw) {
    let (shape, width) = (Shape::draw(draw), draw.size());
    draw.value("x", width);
    shape.key_weights(draw, width);
    shape.rotated_cache(draw);
}
