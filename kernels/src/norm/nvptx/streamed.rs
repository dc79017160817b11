//! The norm of a group that is too wide for registers: it is read twice, the second time from cache.

use super::input::Lines;
use super::{F32, Plan};
use crate::nvptx::{Any, Emit, Float, Int, Written};

pub(super) fn norm(e: &Emit<'_, '_>, plan: &Plan) {
    let (team, rows) = (plan.team, plan.input.rows(e.spec()));
    let (vector, space) = (team.vector, team.space(e));
    let mut place = team.place(e, rows, plan.groups);
    let (from, to, step) = (place.first, e.word(plan.norm.group as u32), u64::from(team.stride()));
    // The loops count the columns of the group, so everything begins where the group does.
    place.first = e.word(0);
    let lines = plan.input.lines(e, &place, plan.norm.group);
    let squares = e.fold((from, to, step), &[e.float(0.0).into()], |at, sum| {
        let values = values(e, &lines, || lines.combine(e, &lines.load(e, at, vector)), vector);
        lines.keep(e, at, &values);
        let sum = values.iter().fold(sum[0].into_float_value(), |sum, x| e.fma(*x, *x, sum));
        vec![sum.into()]
    });
    let scale = plan.norm.scale(e, team.sum(e, squares[0].into_float_value(), space));
    let weight = plan.weights(e, place.group, place.first);
    let (target, dtype) = plan.target(e, place.row, place.group, place.first);
    e.step_by(from, to, step, |at: Int<'_>| {
        let weights = e.load(e.at(weight, F32, at), F32, (vector, vector), Written::Before);
        let values = values(e, &lines, || lines.again(e, at, vector), vector);
        let pairs = values.iter().zip(&weights);
        let normed: Vec<_> = pairs.map(|(x, weight)| e.fmul(e.fmul(*x, scale), *weight)).collect();
        e.store(e.at(target, dtype, at), dtype, &normed, vector);
    });
}

/// What `read` gives where there is a row, and zeros elsewhere.
fn values<'c>(
    e: &Emit<'c, '_>,
    lines: &Lines<'c>,
    read: impl FnOnce() -> Vec<Float<'c>>,
    vector: u32,
) -> Vec<Float<'c>> {
    let Some(there) = lines.there else { return read() };
    let found = || read().into_iter().map(Any::from).collect();
    let nothing = || vec![e.float(0.0).into(); vector as usize];
    e.choose(there, found, nothing).into_iter().map(Any::into_float_value).collect()
}
