//! Depthwise causal convolution with SiLU: lanes run along channels, the window slides in registers.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use crate::host::{Any, Emit, Int, Lanes, Ptr, Sequence};

pub(super) fn causal_conv1d(e: &Emit<'_, '_>) -> Result<(), String> {
    let (weight, weight_layout) = e.operand("weight");
    let taps = weight_layout.ty.width().unwrap_or(0);
    if !(2..=8).contains(&taps) {
        return Err(format!("{taps} taps; 2 to 8 fit the registers"));
    }
    let (_, x_layout) = e.operand("x");
    let bias = e.optional("bias");
    e.share_columns(x_layout.ty.width().unwrap_or(0), |column, lanes| {
        let weight = e.at(weight, Dtype::F32, e.times(column, taps));
        let weights = columns_of(e, weight, taps, lanes);
        let bias = bias.map_or_else(
            || e.lanes(0.0),
            |(bias, _)| e.load(e.at(bias, Dtype::F32, column), Dtype::F32, lanes),
        );
        e.each_sequence(|sequence| slide(e, sequence, (column, lanes), &weights, bias));
    });
    Ok(())
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

/// One sequence's rows of some channels.
fn slide<'c>(
    e: &Emit<'c, '_>,
    sequence: Sequence<'c>,
    (column, lanes): (Int<'c>, u32),
    weights: &[Lanes<'c>],
    bias: Lanes<'c>,
) {
    let (x, state, y) = (e.operand("x"), e.operand("conv"), e.result());
    let dtype = state.1.ty.dtype;
    let past = weights.len() - 1;
    let channels = state.1.ty.width().unwrap_or(0);
    let slot = |name: &str| e.load_int(e.operand(name).0, sequence.index);
    let place = |slot: Int<'c>, age: usize| {
        let row = e.plus(e.times(slot, past as u64), age as u64);
        e.at(state.0, dtype, e.add(e.times(row, channels), column))
    };

    let from = slot("slot_in");
    let window = e.choose(
        e.cmp(IntPredicate::SGE, from, e.int(0)),
        || (0..past).map(|age| e.load(place(from, age), dtype, lanes).into()).collect(),
        || vec![e.lanes(0.0).into(); past],
    );
    let window = e.fold((sequence.start, sequence.end, 1), &window, |row, window| {
        let source = e.at(e.row(x, row), x.1.ty.dtype, column);
        let current: Any<'c> = e.load(source, x.1.ty.dtype, lanes).into();
        let inputs: Vec<Any<'c>> = window.iter().copied().chain([current]).collect();
        let sum = inputs
            .iter()
            .zip(weights)
            .fold(bias, |sum, (input, weight)| e.fma(input.into_vector_value(), *weight, sum));
        let target = e.at(e.row(y, row), y.1.ty.dtype, column);
        e.store(target, y.1.ty.dtype, lanes, e.silu(sum));
        inputs[1..].to_vec()
    });
    let to = slot("slot_out");
    e.when(e.cmp(IntPredicate::SGE, to, e.int(0)), || {
        for (age, input) in window.iter().enumerate() {
            e.store(place(to, age), dtype, lanes, input.into_vector_value());
        }
    });
}
