//! Laws of RMSNorm.

use super::super::law::{Class::Exact, Law};
use super::law;

#[rustfmt::skip]
pub(super) static LAWS: &[Law] = &[
    law("residual-norm", Exact,
        "?s = (add ?a ?b ?d), ?y = (rms_norm ?s ?w ?eps ?group ?e)",
        "?t = (add_rms_norm ?a ?b ?w ?eps ?group ?d ?e), ?s = (get.0 ?t), ?y = (get.1 ?t)"),
];
