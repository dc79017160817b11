//! Laws of products with weights: what is added to them, what they are products of, and which share an x.

use super::super::law::{
    Class::{Exact, Rounding},
    Law, When,
};
use super::{law, law_when};

#[rustfmt::skip]
pub(super) static LAWS: &[Law] = &[
    law("residual-epilogue", Exact,
        "(add ?r (linear ?x ?w ?p) ?d)",
        "(linear_add ?x ?w ?r ?p ?d)"),
    law("residual-unrounded", Rounding,
        "(linear_add ?x ?w ?r bf16 ?d)",
        "(linear_add ?x ?w ?r f32 ?d)"),
    law("norm-prologue", Exact,
        "(linear (rms_norm ?x ?n ?eps ?group ?m) ?w ?d)",
        "(norm_linear ?x ?n ?w ?eps ?group ?m ?d)"),
    law("gated-norm-prologue", Exact,
        "(linear_add (gated_rms_norm ?x ?z ?n ?eps ?group ?m) ?w ?r ?p ?d)",
        "(gated_norm_linear_add ?x ?z ?n ?w ?r ?eps ?group ?m ?p ?d)"),
    law_when("one-product-of-three", Exact,
        "?p = (linear ?x ?a ?d), ?q = (linear ?x ?b ?d), ?r = (linear ?x ?c ?d)",
        "?t = (linear_triple ?x ?a ?b ?c ?d), ?p = (get.0 ?t), ?q = (get.1 ?t), ?r = (get.2 ?t)",
        &[When::InOrder(&["?a", "?b", "?c"])]),
    law("triple-norm-prologue", Exact,
        "(linear_triple (rms_norm ?x ?n ?eps ?group ?m) ?a ?b ?c ?d)",
        "(norm_linear_triple ?x ?n ?a ?b ?c ?eps ?group ?m ?d)"),
    law_when("columns-by-layout", Exact,
        "?p = (linear ?x ?w ?d), ?l = (slice ?p 0 ?i), ?m = (slice ?p ?i ?j), ?r = (slice ?p ?o ?k)",
        "?t = (linear_split ?x ?w ?i ?j ?k ?d), ?l = (get.0 ?t), ?m = (get.1 ?t), ?r = (get.2 ?t)",
        &[When::Sum("?o", &["?i", "?j"])]),
];
