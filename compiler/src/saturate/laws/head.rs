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
];
