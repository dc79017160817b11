//! Choosing a token from a row of logits.

use super::attention::softmax;
use crate::philox::philox4x32;

/// What narrows the choice of one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampling {
    /// 0 takes the largest logit.
    pub temperature: f64,
    /// Largest logits that stay; 0 is off.
    pub top_k: usize,
    /// Probability that the tokens that stay must reach; 1 is off.
    pub top_p: f64,
    /// Least probability that stays, as a share of the largest; 0 is off.
    pub min_p: f64,
}

/// The number in `[0, 1)` that decides at this position: 24 bits, so that f32 holds it exactly.
pub(super) fn uniform(seed: [u32; 2], position: u32) -> f64 {
    let word = philox4x32([position, 0, 0, 0], seed)[0];
    f64::from(word >> 8) / f64::from(1 << 24)
}

/// The token chosen by `u`. Ties at a cut-off stay in; ids run upwards in the draw.
pub(super) fn draw(logits: &[f64], sampling: Sampling, u: f64) -> usize {
    if sampling.temperature == 0.0 {
        return arg_max(logits);
    }
    let scaled: Vec<f64> = logits.iter().map(|logit| logit / sampling.temperature).collect();
    let cut = smallest_of_top_k(&scaled, sampling.top_k);
    let ids: Vec<usize> = (0..scaled.len()).filter(|id| scaled[*id] >= cut).collect();
    let p = softmax(&ids.iter().map(|id| scaled[*id]).collect::<Vec<_>>());
    let largest = p.iter().copied().fold(0.0, f64::max);
    let least = smallest_of_top_p(&p, sampling.top_p).max(sampling.min_p * largest);
    let kept: Vec<(usize, f64)> = ids.into_iter().zip(p).filter(|(_, p)| *p >= least).collect();
    let total: f64 = kept.iter().map(|(_, p)| p).sum();
    let mut sum = 0.0;
    for (id, p) in &kept {
        sum += p;
        if sum > u * total {
            return *id;
        }
    }
    // Rounding can leave the sum at its target: the last one stands.
    kept.last().map_or_else(|| arg_max(logits), |(id, _)| *id)
}

/// The lowest id among those with the largest logit.
fn arg_max(logits: &[f64]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// The k-th largest value, or nothing to cut at when k is 0 or there are fewer.
fn smallest_of_top_k(values: &[f64], k: usize) -> f64 {
    if k == 0 || k >= values.len() {
        return f64::NEG_INFINITY;
    }
    descending(values)[k - 1]
}

/// The least of the fewest largest probabilities whose sum reaches `top_p`.
fn smallest_of_top_p(p: &[f64], top_p: f64) -> f64 {
    if top_p >= 1.0 {
        return 0.0;
    }
    let mut sum = 0.0;
    for p in descending(p) {
        sum += p;
        if sum >= top_p {
            return p;
        }
    }
    0.0
}

fn descending(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    /// Ids that some `u` reaches.
    fn reachable(logits: &[f64], sampling: Sampling) -> Vec<usize> {
        let mut ids: Vec<usize> = (0..1000).map(|i| draw(logits, sampling, f64::from(i) / 1000.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Logits whose softmax is the given distribution.
    fn logs(p: &[f64]) -> Vec<f64> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(draw(&[1.0, 3.0, 3.0, 2.0], Sampling { temperature: 0.0, ..OFF }, 0.9), 1);
    }

    #[test]
    fn draws_in_order_of_ids() {
        let logits = logs(&[0.2, 0.5, 0.3]);
        let drawn = [0.0, 0.19, 0.21, 0.69, 0.71, 0.999].map(|u| draw(&logits, OFF, u));
        assert_eq!(drawn, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn temperature_flattens() {
        // At temperature 2 the weights are the square roots: 0.64 and 0.04 become 0.8 and 0.2.
        let logits = logs(&[0.64, 0.04]);
        let warm = Sampling { temperature: 2.0, ..OFF };
        assert_eq!([0.79, 0.81].map(|u| draw(&logits, warm, u)), [0, 1]);
    }

    #[test]
    fn cut_offs_keep_their_ties() {
        let logits = logs(&[0.1, 0.4, 0.25, 0.25]);
        assert_eq!(reachable(&logits, Sampling { top_k: 1, ..OFF }), [1]);
        assert_eq!(reachable(&logits, Sampling { top_k: 2, ..OFF }), [1, 2, 3]);
        assert_eq!(reachable(&logits, Sampling { top_p: 0.39, ..OFF }), [1]);
        assert_eq!(reachable(&logits, Sampling { top_p: 0.5, ..OFF }), [1, 2, 3]);
        assert_eq!(reachable(&logits, Sampling { min_p: 0.7, ..OFF }), [1]);
        assert_eq!(reachable(&logits, Sampling { min_p: 0.5, ..OFF }), [1, 2, 3]);
        assert_eq!(reachable(&logits, OFF), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_counts_what_top_k_left() {
        // Top-k leaves 0.4 and 0.35; of their sum, 0.4 is 53 %.
        let logits = logs(&[0.4, 0.35, 0.25]);
        assert_eq!(reachable(&logits, Sampling { top_k: 2, top_p: 0.52, ..OFF }), [0]);
        assert_eq!(reachable(&logits, Sampling { top_k: 2, top_p: 0.54, ..OFF }), [0, 1]);
    }

    #[test]
    fn the_uniform_number_is_philox_by_seed_and_position() {
        // First word of Philox4x32-10 at counter 0 and key 0: 6627e8d5.
        assert_eq!(uniform([0, 0], 0), f64::from(0x66_27e8) / 16_777_216.0);
        assert_ne!(uniform([0, 0], 1), uniform([0, 0], 0));
        assert_ne!(uniform([1, 0], 0), uniform([0, 1], 0));
    }
}
