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
];
