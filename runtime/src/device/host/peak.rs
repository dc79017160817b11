//! What products between registers reach on this machine, with the widest dot product it has.

#![allow(unsafe_code, reason = "vector instructions by name")]

use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m512, __m512bh, _mm256_add_ps, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_ps,
};
use std::hint::black_box;
use std::time::Instant;

use super::pool::Pool;

/// Turns of the loop: a few hundredths of a second.
const TURNS: u64 = 4_000_000;
/// Independent sums, more than the instruction's latency hides.
const SUMS: u64 = 12;

/// Floating-point operations a second of all threads: bf16 pairs into f32 where the CPU has such an
/// instruction, else f32.
pub fn measure(pool: &mut Pool) -> f64 {
    let pairs = is_x86_feature_detected!("avx512bf16");
    let wide = is_x86_feature_detected!("avx512f");
    let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let threads = u64::from(pool.threads());
    let started = Instant::now();
    pool.run(&|_| {
        if pairs {
            // SAFETY: the CPU has the feature, which implies AVX-512 F.
            black_box(unsafe { dot_bf16() });
        } else if wide {
            // SAFETY: the CPU has the feature.
            black_box(unsafe { multiply_add_wide() });
        } else if narrow {
            // SAFETY: the CPU has both features.
            black_box(unsafe { multiply_add() });
        }
    });
    // A lane of a bf16 dot product is two products and two sums.
    let per_turn = match (pairs, wide, narrow) {
        (true, ..) => SUMS * 16 * 4,
        (_, true, _) => SUMS * 16 * 2,
        (.., true) => SUMS * 8 * 2,
        // Older than every target: there is nothing to compare with.
        _ => return 0.0,
    };
    (TURNS * per_turn * threads) as f64 / started.elapsed().as_secs_f64()
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_bf16() -> __m512 {
    let ones = _mm512_set1_epi16(0x3F80);
    // SAFETY: both types are 64 bytes that may have any bits.
    let mut factor: __m512bh = unsafe { std::mem::transmute(ones) };
    let mut sums = [_mm512_setzero_ps(); SUMS as usize];
    for _ in 0..TURNS {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(zmm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, factor, factor);
        }
    }
    sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b))
}

#[target_feature(enable = "avx512f")]
fn multiply_add_wide() -> __m512 {
    let mut factor = _mm512_set1_ps(1.0);
    let mut sums = [_mm512_setzero_ps(); SUMS as usize];
    for _ in 0..TURNS {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(zmm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(factor, factor, *sum);
        }
    }
    sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b))
}

#[target_feature(enable = "avx2,fma")]
fn multiply_add() -> __m256 {
    let mut factor = _mm256_set1_ps(1.0);
    let mut sums = [_mm256_setzero_ps(); SUMS as usize];
    for _ in 0..TURNS {
        // SAFETY: no instruction at all; the optimiser only has to believe that the register changes.
        unsafe { asm!("/* {0} */", inout(ymm_reg) factor, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(factor, factor, *sum);
        }
    }
    sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b))
}
