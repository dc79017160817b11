//! Vector functions of generated code, in f32, without calls.

use inkwell::FloatPredicate;
use inkwell::types::VectorType;

use super::emit::Emit;
use crate::emit::{Float, Lanes, built};

impl<'c> Emit<'c, '_> {
    /// e^x to about one unit in the last place; 0 below the normal range, and saturating near 2.3e38;
    /// NaN of NaN.
    pub fn exp(&self, x: Lanes<'c>) -> Lanes<'c> {
        // e^x = 2^n e^r with n the nearest integer to x / ln 2 and |r| <= ln 2 / 2; ln 2 is split so that
        // n times its upper part is exact.
        let clamped = self.fmin(self.fmax(x, self.lanes(-87.336)), self.lanes(88.37));
        let n: Lanes<'c> =
            self.call("llvm.roundeven", &[self.fmul(clamped, self.lanes(std::f64::consts::LOG2_E)).into()]);
        let r = self.fma(n, self.lanes(-0.693_359_375), clamped);
        let r = self.fma(n, self.lanes(2.121_944_4e-4), r);
        let mut series = self.lanes(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            series = self.fma(series, r, self.lanes(coefficient));
        }
        let words = self.context.i32_type().vec_type(self.width());
        let exponent = built(self.builder.build_float_to_signed_int(n, words, ""));
        let constant = |value: u64| {
            VectorType::const_vector(&vec![
                self.context.i32_type().const_int(value, false);
                self.width() as usize
            ])
        };
        let biased = built(self.builder.build_int_add(exponent, constant(127), ""));
        let bits = built(self.builder.build_left_shift(biased, constant(23), ""));
        let ty = self.context.f32_type().vec_type(self.width());
        let power = built(self.builder.build_bit_cast(bits, ty, "")).into_vector_value();
        let tiny = self.vcmp(FloatPredicate::OLT, x, self.lanes(-87.336));
        let value = self.select(tiny, self.lanes(0.0), self.fmul(series, power));
        // The clamps have turned NaN into a number.
        self.select(self.vcmp(FloatPredicate::UNO, x, x), x, value)
    }

    /// e^x of one value.
    pub fn exp_scalar(&self, x: Float<'c>) -> Float<'c> {
        self.extract(self.exp(self.splat(x)), 0).into_float_value()
    }

    /// x / (1 + e^-x)
    pub fn silu(&self, x: Lanes<'c>) -> Lanes<'c> {
        let denominator = self.fadd(self.lanes(1.0), self.exp(self.fneg(x)));
        self.fdiv(x, denominator)
    }

    /// ln(1 + e^x), to full relative accuracy also where it is tiny.
    pub fn softplus(&self, x: Lanes<'c>) -> Lanes<'c> {
        // max(x, 0) + log1p(u) with u = e^-|x|, and log1p(u) = 2 atanh(u / (2 + u)), whose argument is at
        // most 1/3: the series needs no logarithm and keeps every digit of a small u.
        let magnitude: Lanes<'c> = self.call("llvm.fabs", &[x.into()]);
        let u = self.exp(self.fneg(magnitude));
        let s = self.fdiv(u, self.fadd(u, self.lanes(2.0)));
        let square = self.fmul(s, s);
        let mut series = self.lanes(1.0 / 17.0);
        for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
            series = self.fma(series, square, self.lanes(1.0 / odd));
        }
        let atanh = self.fma(self.fmul(series, square), s, s);
        self.fma(self.lanes(2.0), atanh, self.fmax(x, self.lanes(0.0)))
    }
}
