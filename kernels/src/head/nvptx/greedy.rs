//! The place of the largest logit.

use inkwell::{FloatPredicate, IntPredicate};

use super::stream::{Stretch, stream};
use super::together::cta_combine;
use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// Above every index.
pub(super) const NONE: u32 = i32::MAX as u32;

/// What a row says of its largest element.
pub(super) struct Best<'c> {
    pub value: Float<'c>,
    /// The lowest index that has it; [`NONE`] where all are -inf.
    pub index: Int<'c>,
    /// Whether any element is NaN, i32.
    pub is_nan: Int<'c>,
}

/// Looks through what the threads of the CTA read together.
pub(super) fn best<'c>(e: &Emit<'c, '_>, stretch: &Stretch<'c>, space: Ptr<'c>) -> Best<'c> {
    let nothing: [Any<'c>; 3] = [e.float(f64::NEG_INFINITY).into(), e.word(NONE).into(), e.word(0).into()];
    // A thread sees its elements in order, so the first of equals stands.
    let own = stream::<4>(e, stretch, &nothing, |index, x, state| {
        let (value, place) = (state[0].into_float_value(), state[1].into_int_value());
        let above = e.fcmp(FloatPredicate::OGT, x, value);
        let is_nan = e.select(e.fcmp(FloatPredicate::UNO, x, x), e.word(1), state[2].into_int_value());
        vec![e.select(above, x, value).into(), e.select(above, index, place).into(), is_nan.into()]
    });
    let all = cta_combine(e, &own, space, |a, b| {
        let value = |state: &[Any<'c>]| state[0].into_float_value();
        let index = |state: &[Any<'c>]| state[1].into_int_value();
        let above = e.fcmp(FloatPredicate::OGT, value(b), value(a));
        let equal = e.fcmp(FloatPredicate::OEQ, value(b), value(a));
        let first = e.cmp(IntPredicate::ULT, index(b), index(a));
        let takes = e.or(above, e.and(equal, first));
        let is_nan = e.or(a[2].into_int_value(), b[2].into_int_value());
        vec![
            e.select(takes, value(b), value(a)).into(),
            e.select(takes, index(b), index(a)).into(),
            is_nan.into(),
        ]
    });
    Best { value: all[0].into_float_value(), index: all[1].into_int_value(), is_nan: all[2].into_int_value() }
}
