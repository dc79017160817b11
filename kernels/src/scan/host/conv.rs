//! Depthwise causal convolution with SiLU: lanes run along channels, the window slides in registers.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use crate::host::{Any, Emit, Int, Lanes, Link, Ptr, Rows, Sequence};

/// A convolution: its weights, and the state of its inputs.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'c> {
    weight: Ptr<'c>,
    taps: u64,
    bias: Option<Ptr<'c>>,
    /// A row for each slot and age, oldest first.
    state: Rows<'c>,
    slot_in: Ptr<'c>,
    slot_out: Ptr<'c>,
    /// What its results are rounded to.
    pub dtype: Dtype,
}

/// The taps of some channels, one vector a tap, and their bias.
pub(crate) struct Weights<'c> {
    taps: Vec<Lanes<'c>>,
    bias: Lanes<'c>,
}

/// Some channels: the first, and how many.
pub(crate) type Channels<'c> = (Int<'c>, u32);

pub(super) fn causal_conv1d(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let taps = Taps::of(e, link)?;
    let x = e.taken(link, "x")?;
    let (width, x, y) = (x.1.ty.width().unwrap_or(0), Rows::of(e, x), Rows::of(e, e.result()));
    e.share_columns(width, |column, lanes| {
        let channels = (column, lanes);
        let weights = taps.weights(e, channels);
        e.each_sequence(|sequence| {
            let rows = (sequence.start, sequence.end);
            let window = taps.slide(e, sequence, rows, channels, (x, y), &weights);
            taps.keep(e, sequence, channels, &window);
        });
    });
    Ok(())
}

impl<'c> Taps<'c> {
    pub(crate) fn of(e: &Emit<'c, '_>, link: &Link) -> Result<Self, String> {
        let weight = e.taken(link, "weight")?;
        let taps = weight.1.ty.width().unwrap_or(0);
        if !(2..=8).contains(&taps) {
            return Err(format!("{taps} taps; 2 to 8 fit the registers"));
        }
        Ok(Self {
            weight: weight.0,
            taps,
            bias: e.given(link.source("bias")).map(|(bias, _)| bias),
            state: Rows::of(e, e.taken(link, "conv")?),
            slot_in: e.taken(link, "slot_in")?.0,
            slot_out: e.taken(link, "slot_out")?.0,
            dtype: link.dtype(),
        })
    }

    /// Inputs before the current one.
    pub(crate) fn past(&self) -> u64 {
        self.taps - 1
    }

    pub(crate) fn weights(&self, e: &Emit<'c, '_>, (column, lanes): Channels<'c>) -> Weights<'c> {
        let load = |base| e.load(e.at(base, Dtype::F32, column), Dtype::F32, lanes);
        Weights {
            taps: columns_of(e, e.at(self.weight, Dtype::F32, e.times(column, self.taps)), self.taps, lanes),
            bias: self.bias.map_or_else(|| e.lanes(0.0), load),
        }
    }

    /// The inputs before a row, oldest first: rows of x where the sequence has them, else its state.
    fn before(
        &self,
        e: &Emit<'c, '_>,
        sequence: Sequence<'c>,
        row: Int<'c>,
        (column, lanes): Channels<'c>,
        x: Rows<'c>,
    ) -> Vec<Any<'c>> {
        let slot = e.load_int(self.slot_in, sequence.index);
        let continued = e.cmp(IntPredicate::SGE, slot, e.int(0));
        let input = |age: u64| -> Any<'c> {
            let source = e.sub(e.plus(row, age), e.int(self.past()));
            let there = e.cmp(IntPredicate::SGE, source, sequence.start);
            let place = e.plus(e.sub(source, sequence.start), self.past());
            let place = e.add(e.times(slot, self.past()), place);
            if x.dtype == self.state.dtype {
                // No branch: addresses are chosen once a row. Where there is no input, something is read
                // that is certainly there.
                let nothing = e.at(self.weight, x.dtype, column);
                let old = e.select(continued, self.state.at(e, place, column), nothing);
                let address = e.select(there, x.at(e, source, column), old);
                let value = e.load(address, x.dtype, lanes);
                return e.select(e.or(there, continued), value, e.lanes(0.0)).into();
            }
            e.choose(
                there,
                || vec![x.load(e, source, column, lanes).into()],
                || {
                    e.choose(
                        continued,
                        || vec![self.state.load(e, place, column, lanes).into()],
                        || vec![e.lanes(0.0).into()],
                    )
                },
            )[0]
        };
        (0..self.past()).map(input).collect()
    }

    /// The convolved inputs, given the window with the current one at its end.
    fn output(e: &Emit<'c, '_>, window: &[Any<'c>], weights: &Weights<'c>) -> Lanes<'c> {
        let terms = window.iter().zip(&weights.taps);
        let sum = terms.fold(weights.bias, |sum, (input, tap)| e.fma(input.into_vector_value(), *tap, sum));
        e.silu(sum)
    }

    /// Some rows of one sequence; gives the inputs before the row that follows.
    fn slide(
        &self,
        e: &Emit<'c, '_>,
        sequence: Sequence<'c>,
        (first, end): (Int<'c>, Int<'c>),
        (column, lanes): Channels<'c>,
        (x, y): (Rows<'c>, Rows<'c>),
        weights: &Weights<'c>,
    ) -> Vec<Any<'c>> {
        let window = self.before(e, sequence, first, (column, lanes), x);
        e.fold((first, end, 1), &window, |row, window| {
            let current = x.load(e, row, column, lanes).into();
            let window: Vec<Any<'c>> = window.iter().copied().chain([current]).collect();
            y.store(e, row, column, lanes, Self::output(e, &window, weights));
            window[1..].to_vec()
        })
    }

    /// Puts the inputs before a sequence's end in its slot.
    fn keep(
        &self,
        e: &Emit<'c, '_>,
        sequence: Sequence<'c>,
        (column, lanes): Channels<'c>,
        window: &[Any<'c>],
    ) {
        let slot = e.load_int(self.slot_out, sequence.index);
        e.when(e.cmp(IntPredicate::SGE, slot, e.int(0)), || {
            for (age, input) in (0..).zip(window) {
                let place = e.plus(e.times(slot, self.past()), age);
                self.state.store(e, place, column, lanes, input.into_vector_value());
            }
        });
    }

    /// Rows `first .. end` of some channels, where x has as many rows before the first as there are taps
    /// before the last. A sequence's state is written with its last row, and read until then.
    pub(crate) fn convolve(
        &self,
        e: &Emit<'c, '_>,
        (first, end): (Int<'c>, Int<'c>),
        channels: Channels<'c>,
        x: Rows<'c>,
        y: Rows<'c>,
    ) {
        let weights = self.weights(e, channels);
        let x = x.from(x.row, channels.0);
        e.each_sequence(|sequence| {
            let (from, to) = (e.max(sequence.start, first), e.min(sequence.end, end));
            // A sequence without rows only copies its state.
            let empty = e.cmp(IntPredicate::EQ, sequence.start, sequence.end);
            let here = e.and(empty, e.cmp(IntPredicate::EQ, from, to));
            e.when(e.or(here, e.cmp(IntPredicate::SLT, from, to)), || {
                let window = self.slide(e, sequence, (from, to), channels, (x, y), &weights);
                e.when(e.cmp(IntPredicate::SLE, sequence.end, end), || {
                    self.keep(e, sequence, channels, &window);
                });
            });
        });
    }

    /// `width` channels from `column` on of one row.
    pub(super) fn row(
        &self,
        e: &Emit<'c, '_>,
        (sequence, row): (Sequence<'c>, Int<'c>),
        (column, width): (Int<'c>, u64),
        x: Rows<'c>,
        y: Rows<'c>,
    ) {
        e.columns(width, |at, lanes| {
            let channels = (e.add(column, at), lanes);
            let mut window = self.before(e, sequence, row, channels, x);
            window.push(x.load(e, row, channels.0, lanes).into());
            y.store(e, row, at, lanes, Self::output(e, &window, &self.weights(e, channels)));
        });
    }

    /// Ends a sequence for `width` channels from `column` on.
    pub(super) fn end(
        &self,
        e: &Emit<'c, '_>,
        sequence: Sequence<'c>,
        (column, width): (Int<'c>, u64),
        x: Rows<'c>,
    ) {
        e.columns(width, |at, lanes| {
            let channels = (e.add(column, at), lanes);
            let window = self.before(e, sequence, sequence.end, channels, x);
            self.keep(e, sequence, channels, &window);
        });
    }
}

/// The taps of `lanes` channels, one vector a tap, from rows of `taps`.
fn columns_of<'c>(e: &Emit<'c, '_>, rows: Ptr<'c>, taps: u64, lanes: u32) -> Vec<Lanes<'c>> {
    if lanes == e.width() {
        let all = e.load_wide(rows, lanes * taps as u32);
        return (0..taps as u32)
            .map(|tap| {
                e.shuffle(all, all, &(0..lanes).map(|lane| lane * taps as u32 + tap).collect::<Vec<_>>())
            })
            .collect();
    }
    (0..taps)
        .map(|tap| {
            (0..lanes).fold(e.lanes(0.0), |vector, lane| {
                let index = e.int(u64::from(lane) * taps + tap);
                e.insert(vector, e.load_scalar(e.at(rows, Dtype::F32, index), Dtype::F32), lane)
            })
        })
        .collect()
}
