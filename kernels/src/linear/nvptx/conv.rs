//! Products on their way through the causal convolution, where each row is the one token of a sequence.

use inkwell::IntPredicate;

use super::epilogue::Tile;
use super::plan::{Group, Rows};
use super::sink::Taps;
use super::strips::STRIP;
use crate::nvptx::{Any, Emit, Float, Int, Written};

impl Group {
    /// Convolves each row with the state of its sequence, which takes the row in.
    pub fn convolve<'c>(&self, e: &Emit<'c, '_>, tile: Tile<'c>, (taps, to): (&Taps, &Rows)) {
        let vector = self.vector();
        self.each_piece(e, tile, |piece| {
            let channel = e.add(e.times(piece.of_all, STRIP), piece.column);
            let there = e.cmp(IntPredicate::SLT, channel, e.word(self.width as u32));
            e.when(there, || {
                // Row i is the token of sequence i.
                let mut window = taps.before(e, piece.x_row, (channel, vector));
                window.push(self.products(e, tile, (piece.row, piece.unit), (0, piece.column)));
                let values = taps.output(e, &window, (channel, vector));
                e.store(to.at(e, piece.x_row, channel), to.dtype(), &values, vector);
                taps.keep(e, piece.x_row, (channel, vector), &window[1..]);
            });
        });
    }
}

impl Taps {
    /// The inputs of some channels before this step, oldest first.
    fn before<'c>(
        &self,
        e: &Emit<'c, '_>,
        sequence: Int<'c>,
        (channel, count): (Int<'c>, u32),
    ) -> Vec<Vec<Float<'c>>> {
        let slot = e.load_int(e.arg(self.slot_in), sequence);
        let loaded = e.choose(
            e.cmp(IntPredicate::SGE, slot, e.word(0)),
            || {
                let first = e.times(slot, self.past());
                let input = |age| {
                    let place = self.state.at(e, e.plus(first, age), channel);
                    e.load(place, self.state.dtype(), (count, count), Written::Now)
                };
                (0..self.past()).flat_map(input).map(Any::from).collect()
            },
            || vec![e.float(0.0).into(); self.past() as usize * count as usize],
        );
        let loaded: Vec<_> = loaded.into_iter().map(Any::into_float_value).collect();
        loaded.chunks(count as usize).map(<[Float<'c>]>::to_vec).collect()
    }

    /// The convolved inputs of some channels, given the window with the current one at its end.
    fn output<'c>(
        &self,
        e: &Emit<'c, '_>,
        window: &[Vec<Float<'c>>],
        (channel, count): (Int<'c>, u32),
    ) -> Vec<Float<'c>> {
        let bias = self.bias.as_ref().map(|bias| {
            e.load(
                e.at(e.arg(bias.arg), bias.dtype(), channel),
                bias.dtype(),
                (count, count),
                Written::Before,
            )
        });
        let taps = self.taps as u32;
        let wide = self.weight.layout.vector().min(1 << taps.trailing_zeros());
        let output = |lane: u32| {
            let place = self.weight.at(e, e.plus(channel, lane.into()), e.word(0));
            let weights = e.load(place, self.weight.dtype(), (taps, wide), Written::Before);
            let start = bias.as_ref().map_or_else(|| e.float(0.0), |bias| bias[lane as usize]);
            let terms = window.iter().zip(weights);
            e.silu(terms.fold(start, |sum, (input, tap)| e.fma(input[lane as usize], tap, sum)))
        };
        (0..count).map(output).map(|value| e.round(self.dtype, value)).collect()
    }

    /// Puts the inputs before the next step in the slot that a sequence writes.
    fn keep<'c>(
        &self,
        e: &Emit<'c, '_>,
        sequence: Int<'c>,
        (channel, count): (Int<'c>, u32),
        window: &[Vec<Float<'c>>],
    ) {
        let slot = e.load_int(e.arg(self.slot_out), sequence);
        e.when(e.cmp(IntPredicate::SGE, slot, e.word(0)), || {
            let first = e.times(slot, self.past());
            for (age, input) in (0..).zip(window) {
                let place = self.state.at(e, e.plus(first, age), channel);
                e.store(place, self.state.dtype(), input, count);
            }
        });
    }
}
