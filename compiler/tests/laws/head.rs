//! Cases of the laws of the head.

use crate::Cases;

pub const CASES: Cases = &[
    ("norm-of-chosen-rows", |draw| {
        let width = draw.norm("w");
        draw.value("x", width);
        draw.dtypes(&["d"]);
    }),
    ("chosen-rows-prologue", |draw| {
        let (k, n) = (draw.norm("n"), draw.size());
        draw.value("x", k);
        draw.weight("w", n, k);
        draw.dtypes(&["m", "d"]);
    }),
    ("largest-by-tiles", |draw| {
        // More than one tile of 256, and a last one that is cut.
        let vocab = draw.random.within(1, 600);
        draw.logits("l", vocab);
    }),
    ("tile-max-epilogue", |draw| {
        let (k, n) = (draw.size(), draw.random.within(1, 20));
        draw.value("x", k);
        draw.weight("w", n, k);
        let tile = draw.size();
        draw.int("tile", tile);
        draw.f32("d");
    }),
    ("tile-max-of-chosen-rows", |draw| {
        let (k, n) = (draw.norm("n"), draw.random.within(1, 20));
        draw.value("x", k);
        draw.weight("w", n, k);
        let tile = draw.size();
        draw.int("tile", tile);
        draw.dtypes(&["m"]);
        draw.f32("d");
    }),
];
