//! Cases of the laws of products with weights.

use crate::Cases;
use crate::kit::Draw;

pub const CASES: Cases = &[
    ("residual-epilogue", |draw| {
        residual(draw);
        draw.dtypes(&["p", "d"]);
    }),
    ("residual-unrounded", |draw| {
        residual(draw);
        draw.dtypes(&["d"]);
    }),
    ("norm-prologue", |draw| {
        let (k, n) = (draw.norm("n"), draw.size());
        draw.value("x", k);
        draw.weight("w", n, k);
        draw.dtypes(&["m", "d"]);
    }),
    ("gated-norm-prologue", |draw| {
        let (group, n) = (draw.size(), draw.size());
        let k = group * draw.random.within(1, 3);
        draw.value("x", k);
        draw.value("z", k);
        draw.small("n", &[k]);
        draw.norm_attrs(group);
        draw.weight("w", n, k);
        draw.value("r", n);
        draw.dtypes(&["m", "p", "d"]);
    }),
    ("one-product-of-three", |draw| {
        let k = draw.size();
        draw.value("x", k);
        three(draw, k);
        draw.dtypes(&["d"]);
    }),
    ("triple-norm-prologue", |draw| {
        let k = draw.norm("n");
        draw.value("x", k);
        three(draw, k);
        draw.dtypes(&["m", "d"]);
    }),
    ("columns-by-layout", |draw| {
        let (left, middle, right) = (draw.size(), draw.size(), draw.size());
        columns(draw, left, middle, right);
        draw.int("o", left + middle);
    }),
];

/// `?r + ?x ?w`.
pub fn residual(draw: &mut Draw) {
    let (k, n) = (draw.size(), draw.size());
    draw.value("x", k);
    draw.weight("w", n, k);
    draw.value("r", n);
}

/// `?a`, `?b` and `?c`, of `k` columns.
fn three(draw: &mut Draw, k: u64) {
    for name in ["a", "b", "c"] {
        let n = draw.size();
        draw.weight(name, n, k);
    }
}

/// A product of three parts, maybe with columns that none of them has.
pub fn columns(draw: &mut Draw, left: u64, middle: u64, right: u64) {
    let (k, unused) = (draw.size(), draw.random.within(0, 2));
    draw.value("x", k);
    draw.weight("w", left + middle + right + unused, k);
    for (name, width) in [("i", left), ("j", middle), ("k", right)] {
        draw.int(name, width);
    }
    draw.dtypes(&["d"]);
}
