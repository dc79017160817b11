//! Conversions between f32 and the narrow floats of PTX (f16, bf16, tf32), and arithmetic on f16 and bf16.
//!
//! The rules are those of `cvt` and of "Half Precision Floating Point Instructions" in the PTX ISA:
//! * a result that is NaN is the canonical NaN of its type: `0x7FFF` for f16 and bf16, `0x7FFFFFFF` for f32 and
//!   tf32. Payloads and signs of NaNs are lost;
//! * subnormal numbers are supported by all types; `.ftz` concerns f32 operands only ([`flush`]), and f16
//!   operands of arithmetic that says so ([`flush_f16`]);
//! * tf32 lives in 32 bits of which the lower 13 are not significant. Conversions leave them zero.

/// The canonical NaN of f16 and of bf16.
pub const NAN_16: u16 = 0x7fff;
/// The canonical NaN of f32 and of tf32.
pub const NAN_32: u32 = 0x7fff_ffff;

/// Where a value goes that lies between two neighbours of the target type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// `.rn`: to the nearest, ties to even.
    #[default]
    NearestEven,
    /// `.rna`: to the nearest, ties away from zero. PTX has it for tf32 only.
    NearestAway,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: towards minus infinity.
    Down,
    /// `.rp`: towards plus infinity.
    Up,
}

/// The modifiers of a narrowing `cvt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Narrowing {
    /// The rounding modifier.
    pub rounding: Rounding,
    /// `.relu`: a negative result becomes plus zero.
    pub relu: bool,
    /// `.satfinite`: a result beyond the largest finite number becomes that number.
    pub saturate: bool,
}

impl Narrowing {
    /// Rounding alone, without `.relu` and `.satfinite`.
    pub const fn rounding(rounding: Rounding) -> Self {
        Self { rounding, relu: false, saturate: false }
    }
}

/// A binary floating-point type of at most 24 bits of significand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand behind the point.
    pub mantissa: i32,
    /// Exponent of the smallest normal number.
    pub min_exponent: i32,
    /// Exponent of the largest finite number.
    pub max_exponent: i32,
}

impl Format {
    /// IEEE half precision.
    pub const F16: Self = Self { mantissa: 10, min_exponent: -14, max_exponent: 15 };
    /// The upper half of an f32.
    pub const BF16: Self = Self { mantissa: 7, min_exponent: -126, max_exponent: 127 };
    /// f32 with the mantissa of an f16.
    pub const TF32: Self = Self { mantissa: 10, min_exponent: -126, max_exponent: 127 };
    /// IEEE single precision.
    pub const F32: Self = Self { mantissa: 23, min_exponent: -126, max_exponent: 127 };

    fn largest(self) -> f64 {
        (2.0 - exp2(-self.mantissa)) * exp2(self.max_exponent)
    }
}

/// Two to a power within the normal range of f64.
fn exp2(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Rounds a number to one that `format` holds. Infinity, NaN and the sign of zero pass through.
pub fn round(value: f64, format: Format, narrowing: Narrowing) -> f64 {
    if value.is_nan() {
        return value;
    }
    let rounded = if value.is_infinite() { value } else { round_finite(value, format, narrowing.rounding) };
    let bounded =
        if narrowing.saturate { rounded.clamp(-format.largest(), format.largest()) } else { rounded };
    if narrowing.relu && bounded.is_sign_negative() { 0.0 } else { bounded }
}

fn round_finite(value: f64, format: Format, rounding: Rounding) -> f64 {
    let exponent = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    // Scaling by a power of two is exact here: nothing that a format above holds leaves the range of f64.
    let quantum = exponent.max(format.min_exponent) - format.mantissa;
    let scaled = value * exp2(-quantum);
    let whole = match rounding {
        Rounding::NearestEven => scaled.round_ties_even(),
        Rounding::NearestAway => scaled.round(),
        Rounding::Zero => scaled.trunc(),
        Rounding::Down => scaled.floor(),
        Rounding::Up => scaled.ceil(),
    };
    let result = (whole * exp2(quantum)).copysign(value);
    if result.abs() <= format.largest() {
        return result;
    }
    let to_infinity = match rounding {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::Zero => false,
        Rounding::Down => result < 0.0,
        Rounding::Up => result > 0.0,
    };
    if to_infinity { f64::INFINITY.copysign(value) } else { format.largest().copysign(value) }
}

/// `.ftz` on an f32: a subnormal becomes a zero of the same sign.
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

/// `.ftz` on an f16: a subnormal becomes a zero of the same sign.
pub fn flush_f16(bits: u16) -> u16 {
    if bits & 0x7c00 == 0 { bits & 0x8000 } else { bits }
}

/// The bits of an f32 result: those of the number, or the canonical NaN.
pub fn f32_bits(value: f32) -> u32 {
    if value.is_nan() { NAN_32 } else { value.to_bits() }
}

/// `cvt.f32.f16`: exact; a NaN becomes the canonical one.
pub fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent is off by 127 - 15; multiplying mends it and normalises subnormals at once.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if magnitude == 0x0f80_0000 { 0x7f80_0000 } else { NAN_32 };
    let sign = u32::from(bits & 0x8000) << 16;
    match magnitude {
        0..0x0f80_0000 => f32::from_bits(finite | sign),
        0x0f80_0000 => f32::from_bits(special | sign),
        _ => f32::from_bits(special),
    }
}

/// `cvt.f32.bf16`: the bits become the upper half. This is a move: the payload of a NaN stays.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `cvt.f16.f32`.
pub fn f32_to_f16(value: f32, narrowing: Narrowing) -> u16 {
    if narrowing == Narrowing::default() {
        f32_to_f16_rn(value)
    } else {
        f64_to_f16(f64::from(value), narrowing)
    }
}

/// `cvt.rn.f16.f32`, by integer arithmetic.
fn f32_to_f16_rn(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    match magnitude {
        0x7f80_0001.. => NAN_16,
        // From 65536 on: infinity. The numbers between 65520 and it round up to it by a carry, below.
        0x4780_0000.. => sign | 0x7c00,
        // Normal: the half of a last place, less one if the last bit is even, carries into the exponent.
        0x3880_0000.. => {
            let rounded = magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1);
            sign | (rounded >> 13) as u16
        }
        // Subnormal: a last place of 0.5 is 2^-24, so the addition rounds where f16 would.
        _ => {
            let aligned = f32::from_bits(magnitude) + 0.5;
            sign | (aligned.to_bits() - 0.5f32.to_bits()) as u16
        }
    }
}

/// `cvt.f16.f64`.
pub fn f64_to_f16(value: f64, narrowing: Narrowing) -> u16 {
    let rounded = round(value, Format::F16, narrowing);
    // Every f16 is an f32, so neither step rounds again.
    f32_to_f16_rn(rounded as f32)
}

/// `cvt.bf16.f32`.
pub fn f32_to_bf16(value: f32, narrowing: Narrowing) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        NAN_16
    } else if narrowing == Narrowing::default() {
        ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
    } else if narrowing == Narrowing::rounding(Rounding::Zero) {
        (bits >> 16) as u16
    } else {
        f64_to_bf16(f64::from(value), narrowing)
    }
}

/// Rounds an f64 to bf16 in one step.
pub fn f64_to_bf16(value: f64, narrowing: Narrowing) -> u16 {
    let rounded = round(value, Format::BF16, narrowing);
    if rounded.is_nan() { NAN_16 } else { ((rounded as f32).to_bits() >> 16) as u16 }
}

/// `cvt.tf32.f32`: the lower 13 bits of the result are zero, but for NaN.
pub fn f32_to_tf32(value: f32, narrowing: Narrowing) -> u32 {
    f32_bits(round(f64::from(value), Format::TF32, narrowing) as f32)
}

/// The number that a tensor core sees in 32 bits given as tf32: the lower 13 bits do not count.
pub fn tf32_to_f32(bits: u32) -> f32 {
    let value = f32::from_bits(bits);
    if value.is_nan() { f32::from_bits(NAN_32) } else { f32::from_bits(bits & !0x1fff) }
}

/// `cvt.f32.f64`.
pub fn f64_to_f32(value: f64, narrowing: Narrowing) -> f32 {
    f32::from_bits(f32_bits(round(value, Format::F32, narrowing) as f32))
}

/// Two 16-bit values in one register.
pub fn pack(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// The two 16-bit values of a register: low, high.
pub fn unpack(bits: u32) -> [u16; 2] {
    [bits as u16, (bits >> 16) as u16]
}

/// `cvt.f16x2.f32 d, a, b`: the first source goes into the upper half.
pub fn f32_to_f16x2(a: f32, b: f32, narrowing: Narrowing) -> u32 {
    pack(f32_to_f16(b, narrowing), f32_to_f16(a, narrowing))
}

/// `cvt.bf16x2.f32 d, a, b`: the first source goes into the upper half.
pub fn f32_to_bf16x2(a: f32, b: f32, narrowing: Narrowing) -> u32 {
    pack(f32_to_bf16(b, narrowing), f32_to_bf16(a, narrowing))
}

/// The two 16-bit types that arithmetic and matrix products take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Half {
    /// The number that `bits` stand for.
    pub fn widen(self, bits: u16) -> f32 {
        match self {
            Self::F16 => f16_to_f32(bits),
            Self::Bf16 => bf16_to_f32(bits),
        }
    }

    /// Rounds to the nearest even in one step.
    pub fn narrow(self, value: f64) -> u16 {
        match self {
            Self::F16 => f64_to_f16(value, Narrowing::default()),
            Self::Bf16 => f64_to_bf16(value, Narrowing::default()),
        }
    }

    /// `add.rn`: the sum, rounded once.
    pub fn add(self, a: u16, b: u16) -> u16 {
        self.narrow(add_to_odd(f64::from(self.widen(a)), f64::from(self.widen(b))))
    }

    /// `sub.rn`: the difference, rounded once.
    pub fn sub(self, a: u16, b: u16) -> u16 {
        self.narrow(add_to_odd(f64::from(self.widen(a)), -f64::from(self.widen(b))))
    }

    /// `mul.rn`: the product, rounded once.
    pub fn mul(self, a: u16, b: u16) -> u16 {
        self.narrow(f64::from(self.widen(a)) * f64::from(self.widen(b)))
    }

    /// `fma.rn`: product and sum, rounded once.
    pub fn fma(self, a: u16, b: u16, c: u16) -> u16 {
        // The product of two significands of at most 11 bits is exact in f64.
        let product = f64::from(self.widen(a)) * f64::from(self.widen(b));
        self.narrow(add_to_odd(product, f64::from(self.widen(c))))
    }
}

/// The sum of two numbers, rounded so that rounding it again to at most 51 bits gives what rounding the true
/// sum would have given: where the sum is inexact, its last bit is odd.
fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let part = sum - a;
    let error = (a - (sum - part)) + (b - part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // The true sum lies between `sum` and its neighbour on the side of the error; that neighbour is odd.
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away_from_zero { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}
