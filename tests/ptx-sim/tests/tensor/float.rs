use half::{bf16, f16};
use ptx_sim::tensor::float::{self, Half, Narrowing, Rounding};

use crate::Random;

/// Bit patterns of f32 that matter: random ones, and the surroundings of every 16-bit boundary.
fn patterns() -> impl Iterator<Item = f32> {
    let mut random = Random(1);
    let edges = (0..=u16::MAX).flat_map(|high| {
        [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff]
            .map(|low| f32::from_bits(u32::from(high) << 16 | low))
    });
    edges.chain((0..200_000).map(move |_| f32::from_bits(random.next() as u32)))
}

#[test]
fn every_f16_widens_as_half_says() {
    for bits in 0..=u16::MAX {
        let expected = f16::from_bits(bits);
        let found = float::f16_to_f32(bits);
        if expected.is_nan() {
            assert_eq!(found.to_bits(), 0x7fff_ffff, "{bits:#06x}");
        } else {
            assert_eq!(found.to_bits(), expected.to_f32().to_bits(), "{bits:#06x}");
        }
    }
}

#[test]
fn nearest_even_agrees_with_half() {
    for value in patterns() {
        let (to_f16, to_bf16) = if value.is_nan() {
            (0x7fff, 0x7fff)
        } else {
            (f16::from_f32(value).to_bits(), bf16::from_f32(value).to_bits())
        };
        assert_eq!(float::f32_to_f16(value, Narrowing::default()), to_f16, "f16 of {value:e}");
        assert_eq!(float::f32_to_bf16(value, Narrowing::default()), to_bf16, "bf16 of {value:e}");
    }
}

/// Positions of the neighbours of `value` among all finite numbers, ascending, of a type.
fn neighbours(sorted: &[f64], value: f64) -> (Option<f64>, Option<f64>) {
    let above = sorted.partition_point(|&number| number < value);
    let upper = sorted.get(above).copied();
    let exact = upper == Some(value);
    let lower = if exact { upper } else { above.checked_sub(1).map(|index| sorted[index]) };
    (lower, upper)
}

fn directed(sorted: &[f64], value: f64, rounding: Rounding) -> f64 {
    let (lower, upper) = neighbours(sorted, value);
    let down = lower.unwrap_or(f64::NEG_INFINITY);
    let up = upper.unwrap_or(f64::INFINITY);
    match rounding {
        Rounding::Down => down,
        Rounding::Up => up,
        // Towards zero never reaches infinity.
        Rounding::Zero if value < 0.0 => upper.expect("a negative number has a neighbour above"),
        Rounding::Zero => lower.expect("a positive number has a neighbour below"),
        Rounding::NearestEven | Rounding::NearestAway => unreachable!("not a directed rounding"),
    }
}

#[test]
fn directed_roundings_choose_the_neighbour() {
    let finite = |widen: fn(u16) -> f64| {
        let mut all: Vec<f64> = (0..=u16::MAX).map(widen).filter(|number| number.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    };
    let halves = finite(|bits| f16::from_bits(bits).to_f64());
    let brains = finite(|bits| bf16::from_bits(bits).to_f64());
    for value in patterns().step_by(7).filter(|value| value.is_finite()) {
        for rounding in [Rounding::Zero, Rounding::Down, Rounding::Up] {
            let narrowing = Narrowing::rounding(rounding);
            let exact = f64::from(value);
            let half = f16::from_bits(float::f32_to_f16(value, narrowing)).to_f64();
            assert_eq!(half, directed(&halves, exact, rounding), "f16 {rounding:?} of {value:e}");
            let brain = bf16::from_bits(float::f32_to_bf16(value, narrowing)).to_f64();
            assert_eq!(brain, directed(&brains, exact, rounding), "bf16 {rounding:?} of {value:e}");
        }
    }
}

#[test]
fn tf32_rounds_at_the_thirteenth_bit() {
    for value in patterns().step_by(3).filter(|value| !value.is_nan()) {
        let bits = value.to_bits();
        let (kept, rest) = (bits & !0x1fff, bits & 0x1fff);
        let away = if rest >= 0x1000 { kept + 0x2000 } else { kept };
        let even = if rest > 0x1000 || (rest == 0x1000 && kept & 0x2000 != 0) { kept + 0x2000 } else { kept };
        let round = |rounding| float::f32_to_tf32(value, Narrowing::rounding(rounding));
        if value.is_finite() {
            assert_eq!(round(Rounding::NearestAway), away, "rna {value:e}");
            assert_eq!(round(Rounding::NearestEven), even, "rn {value:e}");
        }
        assert_eq!(round(Rounding::Zero), kept, "rz {value:e}");
        assert_eq!(float::tf32_to_f32(bits).to_bits(), kept);
    }
    assert_eq!(float::f32_to_tf32(f32::NAN, Narrowing::default()), 0x7fff_ffff);
}

#[test]
fn relu_and_saturation_bound_the_result() {
    let relu = Narrowing { relu: true, ..Narrowing::default() };
    let saturate = Narrowing { saturate: true, ..Narrowing::default() };
    assert_eq!(float::f32_to_f16(-1.5, relu), 0);
    assert_eq!(float::f32_to_bf16(-0.0, relu), 0);
    assert_eq!(float::f32_to_bf16(1.0, relu), 0x3f80);
    assert_eq!(float::f32_to_bf16(f32::NAN, relu), 0x7fff);
    assert_eq!(float::f32_to_f16(1e6, saturate), 0x7bff);
    assert_eq!(float::f32_to_f16(f32::NEG_INFINITY, saturate), 0xfbff);
    assert_eq!(float::f32_to_bf16(f32::INFINITY, saturate), 0x7f7f);
    assert_eq!(float::f32_to_f16(65519.0, Narrowing::default()), 0x7bff);
    assert_eq!(float::f32_to_f16(65520.0, Narrowing::default()), 0x7c00);
}

#[test]
fn f64_narrows_in_one_step() {
    // Half a place of f16 above 1, and a little: through f32 the little would be lost and the tie go to even.
    let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(float::f64_to_f16(value, Narrowing::default()), 0x3c01);
    let value = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
    assert_eq!(float::f64_to_bf16(value, Narrowing::default()), 0x3f81);
    let mut random = Random(2);
    for _ in 0..100_000 {
        let value = f64::from_bits(random.next());
        if !value.is_nan() {
            let found = float::f64_to_f32(value, Narrowing::default());
            assert_eq!(found.to_bits(), (value as f32).to_bits(), "{value:e}");
        }
    }
}

#[test]
fn packing_puts_the_first_source_up() {
    assert_eq!(float::f32_to_bf16x2(1.0, 2.0, Narrowing::default()), 0x3f80_4000);
    assert_eq!(float::f32_to_f16x2(1.0, 2.0, Narrowing::default()), 0x3c00_4000);
    assert_eq!(float::unpack(0x3f80_4000), [0x4000, 0x3f80]);
    assert_eq!(float::pack(0x4000, 0x3f80), 0x3f80_4000);
}

#[test]
fn flushing_keeps_signs() {
    assert_eq!(float::flush(-1e-40).to_bits(), 0x8000_0000);
    assert_eq!(float::flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    assert_eq!(float::flush_f16(0x83ff), 0x8000);
    assert_eq!(float::flush_f16(0x0400), 0x0400);
}

/// A finite 16-bit number as a multiple of 2^-`scale`.
fn integer(value: f64, scale: i32) -> i128 {
    let scaled = value * 2f64.powi(scale);
    assert_eq!(scaled.fract(), 0.0);
    scaled as i128
}

/// The nearest number, ties to the even bit pattern, of an exact multiple of 2^-`scale`.
fn nearest(candidates: &[(i128, u16)], exact: i128) -> u16 {
    let above = candidates.partition_point(|&(number, _)| number < exact);
    let neighbours = [above.checked_sub(1), Some(above)];
    let best = neighbours
        .into_iter()
        .flatten()
        .filter_map(|index| candidates.get(index))
        .min_by_key(|(number, bits)| ((exact - number).abs(), bits & 1))
        .expect("a candidate");
    best.1
}

#[test]
fn half_fma_rounds_once() {
    // All as multiples of 2^-48, which is the last place of the smallest product.
    let mut candidates: Vec<(i128, u16)> = (0..=u16::MAX)
        .filter(|&bits| f16::from_bits(bits).is_finite() && bits != 0x8000)
        .map(|bits| (integer(f16::from_bits(bits).to_f64(), 48), bits))
        .collect();
    candidates.sort_unstable();
    let mut random = Random(3);
    for _ in 0..300_000 {
        let [a, b, c] = [(); 3].map(|()| random.next() as u16);
        let [x, y, z] = [a, b, c].map(f16::from_bits);
        if !(x.is_finite() && y.is_finite() && z.is_finite()) {
            continue;
        }
        let exact = integer(x.to_f64(), 24) * integer(y.to_f64(), 24) + integer(z.to_f64(), 48);
        if exact == 0 || exact.abs() >= 65520 << 48 {
            continue;
        }
        let expected = nearest(&candidates, exact);
        let found = Half::F16.fma(a, b, c);
        assert_eq!(found & 0x7fff, expected & 0x7fff, "{a:#06x} {b:#06x} {c:#06x}");
        assert_eq!(found >> 15 == 1, exact < 0, "sign of {a:#06x} {b:#06x} {c:#06x}");
    }
}

#[test]
fn bf16_fma_does_not_round_twice() {
    // 1 + 2^-8 is a tie between 1 and 1 + 2^-7.
    let one = 0x3f80;
    let tiny = bf16::from_f32(2f32.powi(-100)).to_bits();
    let tie = bf16::from_f32(2f32.powi(-8)).to_bits();
    assert_eq!(Half::Bf16.fma(one, tie, one), one, "ties go to even");
    // (1 + 2^-7)(2^-8) + 1 lies above the tie.
    assert_eq!(Half::Bf16.fma(0x3f81, tie, one), 0x3f81);
    // 2^-8 + (1 + 2^-7) is a tie, even is above.
    let odd = 0x3f81;
    assert_eq!(Half::Bf16.fma(tie, one, odd), 0x3f82);
    assert_eq!(Half::Bf16.add(odd, tie), 0x3f82);
    assert_eq!(Half::Bf16.sub(odd, tie), 0x3f80);
    assert_eq!(Half::Bf16.add(one, tiny), one);
    assert_eq!(Half::Bf16.mul(0x3fc0, 0x3fc0), bf16::from_f32(2.25).to_bits());
    assert_eq!(Half::Bf16.fma(0x7f80, 0, one), 0x7fff, "infinity times zero");
    let big = bf16::from_f32(2f32.powi(60)).to_bits();
    let sum = |addend: f32| {
        let root = bf16::from_f32(2f32.powi(30)).to_bits();
        Half::Bf16.fma(root, root, bf16::from_f32(addend).to_bits())
    };
    assert_eq!(sum(2f32.powi(52)), big);
    assert_eq!(sum(2f32.powi(53)), big + 1);
    assert_eq!(sum(-(2f32.powi(-30))), big);
}

#[test]
fn sticky_bits_below_f64_decide_a_tie() {
    // (1 + 2^-7)(1 + 2^-1) = 1.5 + 3 * 2^-8: a tie of bf16 between 1.5 + 2^-7 and 1.5 + 2^-6.
    let (a, b) = (0x3f81, 0x3fc0);
    let tie = Half::Bf16.mul(a, b);
    let step = |addend: f32| Half::Bf16.fma(a, b, bf16::from_f32(addend).to_bits());
    assert_eq!(tie, 0x3fc2, "ties go to even");
    assert_eq!(step(2f32.powi(-100)), 0x3fc2);
    assert_eq!(step(-(2f32.powi(-100))), 0x3fc1, "just below the tie");
}
