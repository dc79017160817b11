//! Cases of the laws of RMSNorm.

use crate::Cases;

pub const CASES: Cases = &[("residual-norm", |draw| {
    let width = draw.norm("w");
    draw.value("a", width);
    draw.value("b", width);
    draw.dtypes(&["d", "e"]);
})];
