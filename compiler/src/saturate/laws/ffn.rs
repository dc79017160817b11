//! Laws of the feed-forward layers: the activation belongs to the product that it is of.

use super::super::law::{
    Class::{Exact, Rounding},
    Law,
};
use super::law;

#[rustfmt::skip]
pub(super) static LAWS: &[Law] = &[
    law("relu2-epilogue", Exact,
        "(relu2 (linear ?x ?w ?p) ?d)",
        "(linear_relu2 ?x ?w ?p ?d)"),
    law("relu2-unrounded", Rounding,
        "(linear_relu2 ?x ?w bf16 ?d)",
        "(linear_relu2 ?x ?w f32 ?d)"),
    law("relu2-norm-prologue", Exact,
        "(linear_relu2 (rms_norm ?x ?n ?eps ?group ?m) ?w ?p ?d)",
        "(norm_linear_relu2 ?x ?n ?w ?eps ?group ?m ?p ?d)"),
    law("swiglu-epilogue", Exact,
        "(swiglu (linear ?x ?g ?p) (linear ?x ?u ?p) ?d)",
        "(linear_swiglu ?x ?g ?u ?p ?d)"),
    law("swiglu-unrounded", Rounding,
        "(linear_swiglu ?x ?g ?u bf16 ?d)",
        "(linear_swiglu ?x ?g ?u f32 ?d)"),
    law("swiglu-norm-prologue", Exact,
        "(linear_swiglu (rms_norm ?x ?n ?eps ?group ?m) ?g ?u ?p ?d)",
        "(norm_linear_swiglu ?x ?n ?g ?u ?eps ?group ?m ?p ?d)"),
];
