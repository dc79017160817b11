//! Laws of attention's way in: rotation, cache and the three products, in whatever order pays.

use super::super::law::{
    Class::{Exact, Rounding},
    Law, When,
};
use super::{law, law_when};

#[rustfmt::skip]
pub(super) static LAWS: &[Law] = &[
    law("head-norm-rope", Exact,
        "(rope (rms_norm ?x ?n ?eps ?group ?m) ?table ?d)",
        "(norm_rope ?x ?n ?table ?eps ?group ?m ?d)"),
    law("rope-into-cache", Exact,
        "(kv_append (rope ?k ?table ?d) ?v ?kv)",
        "(rope_kv_append ?k ?v ?table ?kv ?d)"),
    law("rope-epilogue", Exact,
        "(rope (linear ?x ?w ?p) ?table ?d)",
        "(linear_rope ?x ?w ?table ?p ?d)"),
    law("rope-unrounded", Rounding,
        "(linear_rope ?x ?w ?table bf16 ?d)",
        "(linear_rope ?x ?w ?table f32 ?d)"),
    law("products-into-cache", Exact,
        "(kv_append (linear ?x ?k ?p) (linear ?x ?v ?p) ?kv)",
        "(linear_kv_append ?x ?k ?v ?kv ?p)"),
    law("rotated-products-into-cache", Exact,
        "(kv_append (linear_rope ?x ?k ?table ?p ?d) (linear ?x ?v ?p) ?kv)",
        "(linear_rope_kv_append ?x ?k ?v ?table ?kv ?p ?d)"),
    law("rotated-products-unrounded", Rounding,
        "(linear_rope_kv_append ?x ?k ?v ?table ?kv bf16 ?d)",
        "(linear_rope_kv_append ?x ?k ?v ?table ?kv f32 ?d)"),
    law_when("qkv", Exact,
        "?y = (linear ?x ?q ?p), ?s = (linear_kv_append ?x ?k ?v ?kv ?p)",
        "?t = (linear_qkv ?x ?q ?k ?v ?kv ?p), ?y = (get.0 ?t), ?s = (get.1 ?t)",
        &[When::InOrder(&["?q", "?k", "?v"])]),
    law_when("rotated-qkv", Exact,
        "?y = (linear_rope ?x ?q ?table ?p ?d), ?s = (linear_rope_kv_append ?x ?k ?v ?table ?kv ?p ?d)",
        "?t = (linear_rope_qkv ?x ?q ?k ?v ?table ?kv ?p ?d), ?y = (get.0 ?t), ?s = (get.1 ?t)",
        &[When::InOrder(&["?q", "?k", "?v"])]),
    law("qkv-norm-prologue", Exact,
        "(linear_qkv (rms_norm ?x ?n ?eps ?group ?m) ?q ?k ?v ?kv ?d)",
        "(norm_linear_qkv ?x ?n ?q ?k ?v ?kv ?eps ?group ?m ?d)"),
    law("rotated-qkv-norm-prologue", Exact,
        "(linear_rope_qkv (rms_norm ?x ?n ?eps ?group ?m) ?q ?k ?v ?table ?kv ?p ?d)",
        "(norm_linear_rope_qkv ?x ?n ?q ?k ?v ?table ?kv ?eps ?group ?m ?p ?d)"),
];
