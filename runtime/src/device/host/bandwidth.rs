//! What a plain streaming read of memory reaches on this machine, with the widest loads it has.

#![allow(unsafe_code, reason = "wide loads")]

use std::arch::x86_64::{
    __m256i, _MM_HINT_T1, _mm_prefetch, _mm256_add_epi64, _mm256_loadu_si256, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm512_add_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi64, _mm512_setzero_si512,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::memory::{self, Region};
use super::pool::Pool;

/// Much larger than any cache.
const BYTES: u64 = 1 << 30;

/// How far ahead of the loads memory is asked for: without it the hardware alone leaves bandwidth unused,
/// and kernels that ask would seem to beat the machine.
const AHEAD: usize = 16 << 10;

/// Bytes that one turn of a summing loop reads.
const STRIDE: usize = 512;

/// A buffer to read, touched by the threads that will read it; smaller, or none, where memory is short.
pub fn buffer(pool: &mut Pool) -> Option<Region> {
    let spare = memory::available().unwrap_or(BYTES * 2) / 2;
    let region = Region::new(spare.min(BYTES) / 4096 * 4096).ok()?;
    let start = region.as_ptr() as usize;
    let len = region.size();
    pool.run(&|worker| {
        let share = worker.share(len / 4096);
        let from = (start + share.start * 4096) as *mut u8;
        // SAFETY: the shares of the threads are disjoint pages of the region, which nobody else uses yet.
        unsafe { from.write_bytes(worker.thread as u8 + 1, share.len() * 4096) };
    });
    Some(region)
}

/// Bytes a second of one pass of all threads.
pub fn measure(pool: &mut Pool, buffer: &Region) -> f64 {
    let bytes = buffer.bytes();
    let sum = AtomicU64::new(0);
    let started = Instant::now();
    pool.run(&|worker| {
        let share = worker.share(bytes.len() / 4096);
        sum.fetch_add(total(&bytes[share.start * 4096..share.end * 4096]), Ordering::Relaxed);
    });
    let seconds = started.elapsed().as_secs_f64();
    std::hint::black_box(sum.into_inner());
    bytes.len() as f64 / seconds
}

/// The wrapping sum of the words: work that cannot be left out and costs nothing beside the reading.
fn total(bytes: &[u8]) -> u64 {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the feature.
        unsafe { total_avx512(bytes) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the feature.
        unsafe { total_avx2(bytes) }
    } else {
        total_words(bytes)
    }
}

fn total_words(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

#[target_feature(enable = "avx512f")]
fn total_avx512(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<STRIDE>();
    let mut sums = [_mm512_setzero_si512(); 8];
    for block in blocks {
        for (lane, sum) in sums.iter_mut().enumerate() {
            _mm_prefetch::<_MM_HINT_T1>(block.as_ptr().wrapping_add(AHEAD + lane * 64).cast());
            // SAFETY: eight lanes of 64 bytes are the block.
            let words = unsafe { _mm512_loadu_si512(block.as_ptr().add(lane * 64).cast()) };
            *sum = _mm512_add_epi64(*sum, words);
        }
    }
    let sum = sums.into_iter().reduce(|a, b| _mm512_add_epi64(a, b)).unwrap_or(_mm512_setzero_si512());
    (_mm512_reduce_add_epi64(sum) as u64).wrapping_add(total_words(rest))
}

#[target_feature(enable = "avx2")]
fn total_avx2(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<STRIDE>();
    let mut sums = [_mm256_setzero_si256(); 8];
    for block in blocks {
        for lane in 0..16 {
            _mm_prefetch::<_MM_HINT_T1>(block.as_ptr().wrapping_add(AHEAD + lane * 32).cast());
            // SAFETY: sixteen lanes of 32 bytes are the block.
            let words = unsafe { _mm256_loadu_si256(block.as_ptr().add(lane * 32).cast::<__m256i>()) };
            sums[lane % 8] = _mm256_add_epi64(sums[lane % 8], words);
        }
    }
    let sum = sums.into_iter().reduce(|a, b| _mm256_add_epi64(a, b)).unwrap_or(_mm256_setzero_si256());
    let mut words = [0_u64; 4];
    // SAFETY: four words are 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), sum) };
    words.into_iter().fold(total_words(rest), u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_gives_the_same_sum() {
        let bytes: Vec<u8> = (0..5000_u32).map(|n| (n * 7) as u8).collect();
        assert_eq!(total(&bytes), total_words(&bytes));
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has the feature.
            assert_eq!(unsafe { total_avx2(&bytes) }, total_words(&bytes));
        }
    }
}
