//! Laws of the head: only the rows that want logits are normed and multiplied.

use super::super::law::{Class::Exact, Law};
use super::law;

#[rustfmt::skip]
pub(super) static LAWS: &[Law] = &[
    law("norm-of-chosen-rows", Exact,
        "(rms_norm (gather_rows ?x) ?w ?eps ?group ?d)",
        "(gather_rms_norm ?x ?w ?eps ?group ?d)"),
    law("chosen-rows-prologue", Exact,
        "(norm_linear (gather_rows ?x) ?n ?w ?eps ?group ?m ?d)",
        "(gather_norm_linear ?x ?n ?w ?eps ?group ?m ?d)"),
    law("largest-by-tiles", Exact,
        "(sample ?l)",
        "(sample_tiled ?l (tile_max ?l 256) 256)"),
    law("tile-max-epilogue", Exact,
        "?l = (linear ?x ?w ?d), ?m = (tile_max ?l ?tile)",
        "?t = (linear_tile_max ?x ?w ?tile ?d), ?l = (get.0 ?t), ?m = (get.1 ?t)"),
    law("tile-max-of-chosen-rows", Exact,
        "?l = (gather_norm_linear ?x ?n ?w ?eps ?group ?m ?d), ?y = (tile_max ?l ?tile)",
        "?t = (gather_norm_linear_tile_max ?x ?n ?w ?eps ?group ?m ?tile ?d), ?l = (get.0 ?t), ?y = (get.1 ?t)"),
];
