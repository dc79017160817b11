//! The measuring loops, with vector instructions by name.

#![allow(unsafe_code, reason = "vector instructions by name")]

use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m512, __m512bh, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_set1_epi16, _mm512_set1_ps,
    _mm512_setzero_ps,
};

use nemo_kernels::target::Level;

use super::read::BLOCK;

/// How far ahead of the loads memory is asked for, in words: without it the hardware alone leaves bandwidth unused.
const AHEAD: usize = 2048;

/// Elements of the buffer that stays in the first-level cache: 8 KiB.
pub(super) const ELEMENTS: usize = 2048;

/// Independent sums, more than the instruction's latency hides.
const SUMS: usize = 12;

/// Floating-point operations in a turn of [`dot_bf16`]: a lane is two products and two sums.
pub(super) const DOT_FLOP: u64 = SUMS as u64 * 16 * 4;

/// Floating-point operations in a turn of [`multiply_adds`].
pub(super) fn multiply_adds_flop(level: Level) -> u64 {
    let lanes = match level {
        Level::V3 => 8,
        Level::V4 => 16,
    };
    SUMS as u64 * lanes * 2
}

/// The loops are only called with what [`nemo_kernels::target::HostTarget::detect`] found; should one be called
/// without, it says so instead of running what the CPU does not have.
fn check(has: bool) {
    assert!(has, "a measuring loop was chosen for another CPU");
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_bf16_wide(turns: u64) -> __m512 {
    // SAFETY: both types are 64 bytes that may have any bits.
    let mut factor: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi16(0x3F80)) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..turns {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(zmm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b))
}

#[target_feature(enable = "avx512f")]
fn multiply_adds_wide(turns: u64) -> __m512 {
    let mut factor = _mm512_set1_ps(1.0);
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..turns {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(zmm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(factor, factor, *sum);
        }
    }
    sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b))
}

#[target_feature(enable = "avx2,fma")]
fn multiply_adds_narrow(turns: u64) -> __m256 {
    let mut factor = _mm256_set1_ps(1.0);
    let mut sums = [_mm256_setzero_ps(); SUMS];
    for _ in 0..turns {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(ymm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(factor, factor, *sum);
        }
    }
    sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b))
}

#[target_feature(enable = "avx512f")]
fn sum_wide(words: &[u64]) -> u64 {
    sum_lanes(words)
}

#[target_feature(enable = "avx2")]
fn sum_narrow(words: &[u64]) -> u64 {
    sum_lanes(words)
}

#[target_feature(enable = "avx512f")]
fn multiply_then_add_wide(values: &mut [f32]) {
    multiply_then_add_lanes(values);
}

#[target_feature(enable = "avx2")]
fn multiply_then_add_narrow(values: &mut [f32]) {
    multiply_then_add_lanes(values);
}

/// The wrapping sum of the words: work that cannot be left out and costs nothing beside the reading.
#[inline(always)]
fn sum_lanes(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<BLOCK>();
    let mut sums = [0_u64; BLOCK];
    for block in blocks {
        let ahead = block.as_ptr().wrapping_add(AHEAD);
        // SAFETY: every x86-64 has the instruction, and it may ask for any address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
            _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(8).cast());
        }
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Two operations on every element, in place; it stays where it is, at 1. The compiler contracts nothing.
#[inline(always)]
fn multiply_then_add_lanes(values: &mut [f32]) {
    for value in values {
        *value = *value * 0.5 + 0.5;
    }
}

/// The sum of the words, with the widest loads of the level.
pub(super) fn sum(level: Level, words: &[u64]) -> u64 {
    match level {
        Level::V3 => {
            check(is_x86_feature_detected!("avx2"));
            // SAFETY: the CPU has the feature.
            unsafe { sum_narrow(words) }
        }
        Level::V4 => {
            check(is_x86_feature_detected!("avx512f"));
            // SAFETY: the CPU has the feature.
            unsafe { sum_wide(words) }
        }
    }
}

/// A multiplication and an addition on each element, with the widest vectors of the level.
pub(super) fn multiply_then_add(level: Level, values: &mut [f32]) {
    match level {
        Level::V3 => {
            check(is_x86_feature_detected!("avx2"));
            // SAFETY: the CPU has the feature.
            unsafe { multiply_then_add_narrow(values) }
        }
        Level::V4 => {
            check(is_x86_feature_detected!("avx512f"));
            // SAFETY: the CPU has the feature.
            unsafe { multiply_then_add_wide(values) }
        }
    }
}

/// Turns of f32 multiply-adds between registers; what comes out only keeps the work alive.
pub(super) fn multiply_adds(level: Level, turns: u64) {
    match level {
        Level::V3 => {
            check(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
            // SAFETY: the CPU has both features.
            std::hint::black_box(unsafe { multiply_adds_narrow(turns) });
        }
        Level::V4 => {
            check(is_x86_feature_detected!("avx512f"));
            // SAFETY: the CPU has the feature.
            std::hint::black_box(unsafe { multiply_adds_wide(turns) });
        }
    }
}

/// Turns of dot products of bf16 pairs between registers; what comes out only keeps the work alive.
pub(super) fn dot_bf16(turns: u64) {
    check(is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f"));
    // SAFETY: the CPU has both features.
    std::hint::black_box(unsafe { dot_bf16_wide(turns) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemo_kernels::target::{Feature, HostTarget};

    #[test]
    fn every_width_that_this_machine_has_works() {
        let Ok(host) = HostTarget::detect() else { return };
        let words: Vec<u64> = (0..1000).collect();
        for level in [Level::V3, Level::V4].into_iter().filter(|level| *level <= host.level()) {
            assert_eq!(sum(level, &words), 499_500);
            let mut values = [3.0, 1.0, -1.0];
            multiply_then_add(level, &mut values);
            assert_eq!(values, [2.0, 1.0, 0.0]);
            multiply_adds(level, 10);
        }
        if host.has(Feature::Avx512Bf16) {
            dot_bf16(10);
        }
    }
}
