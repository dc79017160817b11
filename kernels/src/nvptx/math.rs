//! Functions of generated code, in f32.

use inkwell::FloatPredicate;

use super::emit::Emit;
use crate::emit::{Float, Int, built};

impl<'c> Emit<'c, '_> {
    /// 2^x, to two units in the last place.
    pub fn exp2(&self, x: Float<'c>) -> Float<'c> {
        self.call("llvm.exp2", &[x.into()])
    }

    /// e^x.
    pub fn exp(&self, x: Float<'c>) -> Float<'c> {
        self.exp2(self.fmul(x, self.float(std::f64::consts::LOG2_E)))
    }

    /// a / b, to two units in the last place; 0 where b is beyond 2^126.
    pub fn divide(&self, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        self.intrinsic("llvm.nvvm.div.approx.f", &[], &[a.into(), b.into()])
    }

    /// 1 / sqrt(x).
    pub fn rsqrt(&self, x: Float<'c>) -> Float<'c> {
        self.intrinsic("llvm.nvvm.rsqrt.approx.f", &[], &[x.into()])
    }

    /// x / (1 + e^-x).
    pub fn silu(&self, x: Float<'c>) -> Float<'c> {
        // Where e^-x passes 2^126 the quotient is 0, which is what x * sigmoid(x) has become long before.
        self.divide(x, self.fadd(self.float(1.0), self.exp(self.fneg(x))))
    }

    /// ln(1 + e^x), to full relative accuracy also where it is tiny.
    pub fn softplus(&self, x: Float<'c>) -> Float<'c> {
        // max(x, 0) + log1p(u) with u = e^-|x|, and log1p(u) = 2 atanh(u / (2 + u)), whose argument is at most 1/3: the
        // series needs no logarithm and keeps every digit of a small u.
        let magnitude: Float<'c> = self.call("llvm.fabs", &[x.into()]);
        let u = self.exp(self.fneg(magnitude));
        let s = self.divide(u, self.fadd(u, self.float(2.0)));
        let square = self.fmul(s, s);
        let mut series = self.float(1.0 / 17.0);
        for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
            series = self.fma(series, square, self.float(1.0 / odd));
        }
        let atanh = self.fma(self.fmul(series, square), s, s);
        let positive = self.select(self.fcmp(FloatPredicate::OLT, x, self.float(0.0)), self.float(0.0), x);
        self.fma(self.float(2.0), atanh, positive)
    }

    /// The larger; NaN where one is.
    pub fn maximum(&self, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        self.call("llvm.maximum", &[a.into(), b.into()])
    }

    /// The bits of an f32, i32.
    pub fn bits(&self, x: Float<'c>) -> Int<'c> {
        built(self.builder.build_bit_cast(x, self.context.i32_type(), "")).into_int_value()
    }

    /// The f32 of those bits.
    pub fn float_of(&self, bits: Int<'c>) -> Float<'c> {
        built(self.builder.build_bit_cast(bits, self.context.f32_type(), "")).into_float_value()
    }

    /// An i32 as an i64, by its sign.
    pub fn long(&self, value: Int<'c>) -> Int<'c> {
        built(self.builder.build_int_s_extend(value, self.context.i64_type(), ""))
    }
}
