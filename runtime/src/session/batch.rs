//! The inputs of one step, gathered from the sequences that take part.

use super::sequence::Sequence;
use crate::step::Step;

/// Step inputs in buffers that are used again and again.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    seq_start: Vec<i32>,
    slot_in: Vec<i32>,
    slot_out: Vec<i32>,
    context: Vec<i32>,
    pages: Vec<i32>,
    rows: Vec<i32>,
    forced: Vec<i32>,
    temperature: Vec<f32>,
    top_k: Vec<i32>,
    top_p: Vec<f32>,
    min_p: Vec<f32>,
    seed: Vec<[u32; 2]>,
}

impl Batch {
    /// No sequence.
    pub fn clear(&mut self) {
        let Self {
            tokens,
            positions,
            seq_start,
            slot_in,
            slot_out,
            context,
            pages,
            rows,
            forced,
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
        } = self;
        for ints in [tokens, positions, seq_start, slot_in, slot_out, context, pages, rows, forced, top_k] {
            ints.clear();
        }
        for floats in [temperature, top_p, min_p] {
            floats.clear();
        }
        seed.clear();
        self.seq_start.push(0);
    }

    /// Adds the next `count` tokens of a sequence; the last one is sampled after if it is the newest.
    pub(super) fn push(&mut self, sequence: &Sequence, count: usize) {
        let cached = sequence.cached;
        let tokens = &sequence.tokens[cached..cached + count];
        // Ids were checked against the vocabulary, which is below 2^31.
        self.tokens.extend(tokens.iter().map(|token| *token as i32));
        self.positions.extend(cached as i32..(cached + count) as i32);
        self.seq_start.push(self.tokens.len() as i32);
        let lease = &sequence.lease;
        self.slot_in.push(if cached == 0 { -1 } else { lease.slot });
        self.slot_out.push(lease.slot);
        self.context.push(cached as i32);
        self.pages.extend(&lease.pages);
        let newest = cached + count == sequence.tokens.len();
        if newest {
            self.rows.push(self.tokens.len() as i32 - 1);
        }
        let forced = sequence.forced.front().filter(|_| newest);
        self.forced.push(forced.map_or(-1, |token| *token as i32));
        let sampling = &sequence.sampling;
        self.temperature.push(sampling.temperature);
        self.top_k.push(sampling.top_k as i32);
        self.top_p.push(sampling.top_p);
        self.min_p.push(sampling.min_p);
        self.seed.push(sampling.seed_words());
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The step.
    pub fn step(&self) -> Step<'_> {
        Step {
            phase: None,
            tokens: &self.tokens,
            positions: &self.positions,
            seq_start: &self.seq_start,
            slot_in: &self.slot_in,
            slot_out: &self.slot_out,
            context: &self.context,
            pages: &self.pages,
            rows: &self.rows,
            forced: &self.forced,
            temperature: &self.temperature,
            top_k: &self.top_k,
            top_p: &self.top_p,
            min_p: &self.min_p,
            seed: &self.seed,
        }
    }
}
