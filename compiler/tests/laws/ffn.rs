//! Cases of the laws of the feed-forward layers.

use crate::Cases;
use crate::kit::Draw;

pub const CASES: Cases = &[
    ("relu2-epilogue", |draw| {
        products(draw, &["w"]);
        draw.dtypes(&["p", "d"]);
    }),
    ("relu2-unrounded", |draw| {
        products(draw, &["w"]);
        draw.dtypes(&["d"]);
    }),
    ("relu2-norm-prologue", |draw| {
        normed_products(draw, &["w"]);
        draw.dtypes(&["m", "p", "d"]);
    }),
    ("swiglu-epilogue", |draw| {
        products(draw, &["g", "u"]);
        draw.dtypes(&["p", "d"]);
    }),
    ("swiglu-unrounded", |draw| {
        products(draw, &["g", "u"]);
        draw.dtypes(&["d"]);
    }),
    ("swiglu-norm-prologue", |draw| {
        normed_products(draw, &["g", "u"]);
        draw.dtypes(&["m", "p", "d"]);
    }),
];

/// `?x` and weights of one width.
pub fn products(draw: &mut Draw, weights: &[&str]) {
    let (k, n) = (draw.size(), draw.size());
    draw.value("x", k);
    weights.iter().for_each(|name| draw.weight(name, n, k));
}

/// The same behind a norm.
fn normed_products(draw: &mut Draw, weights: &[&str]) {
    let (k, n) = (draw.norm("n"), draw.size());
    draw.value("x", k);
    weights.iter().for_each(|name| draw.weight(name, n, k));
}
