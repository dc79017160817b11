//! Reading logits: several accesses under way, each element in turn.

use crate::nvptx::{Any, Emit, Float, Int, Ptr, Written};
use nemo_ir::types::Dtype;

/// What one thread reads of a row of f32: pieces from `from` on while below `to`.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'c> {
    pub base: Ptr<'c>,
    /// Its first element.
    pub from: Int<'c>,
    /// Where all threads end; whole pieces from any thread's `from`.
    pub to: Int<'c>,
    /// Elements of a piece.
    pub vector: u32,
    /// Elements from a piece to the thread's next.
    pub stride: u32,
}

/// Carries values through all elements, in order; `body` gets each with its index. `AHEAD` pieces are loaded before the
/// first of them is worked on.
pub(super) fn stream<'c, const AHEAD: u32>(
    e: &Emit<'c, '_>,
    stretch: &Stretch<'c>,
    initial: &[Any<'c>],
    body: impl Fn(Int<'c>, Float<'c>, &[Any<'c>]) -> Vec<Any<'c>>,
) -> Vec<Any<'c>> {
    let Stretch { base, from, to, vector, stride } = *stretch;
    let pieces = |at: Int<'c>, count: u32, state: &[Any<'c>]| {
        let place = e.at(base, Dtype::F32, at);
        let load = |piece| {
            let place = e.at(place, Dtype::F32, e.word(piece * stride));
            e.load(place, Dtype::F32, (vector, vector), Written::Before)
        };
        let loaded: Vec<_> = (0..count).map(load).collect();
        let mut state = state.to_vec();
        for (piece, values) in (0..).zip(&loaded) {
            for (lane, value) in (0..).zip(values) {
                state = body(e.plus(at, u64::from(piece * stride + lane)), *value, &state);
            }
        }
        state
    };
    let together = u64::from(AHEAD * stride);
    // While the last of the pieces is inside, all are. The place at which the loop ends is carried, too.
    let inside = e.sub(to, e.word((AHEAD - 1) * stride));
    let initial: Vec<_> = initial.iter().copied().chain([Any::from(from)]).collect();
    let state = e.fold((from, inside, together), &initial, |at, state| {
        let (_, state) = state.split_last().expect("the place is carried");
        let mut state = pieces(at, AHEAD, state);
        state.push(e.plus(at, together).into());
        state
    });
    let (at, state) = state.split_last().expect("the place is carried");
    e.fold((at.into_int_value(), to, u64::from(stride)), state, |at, state| pieces(at, 1, state))
}
