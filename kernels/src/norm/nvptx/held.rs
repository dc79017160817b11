//! The norm of a group that its team holds in registers.

use inkwell::values::IntValue;

use super::team::Place;
use super::{F32, Plan};
use crate::nvptx::{Any, Emit, Float, Int, Written};

/// The most columns of a thread whose weights are loaded before the sum is known.
const AHEAD: u32 = 16;

pub(super) fn norm(e: &Emit<'_, '_>, plan: &Plan) {
    let (team, rows) = (plan.team, plan.input.rows(e.spec()));
    let (vector, space) = (team.vector, team.space(e));
    let place = team.place(e, rows, plan.groups);
    let lines = plan.input.lines(e, &place, plan.norm.group);
    let rounds = Rounds { plan, place: &place };
    // All loads first: a sum that is stored may hold back those that come after it.
    let loaded = rounds.each(e, lines.there, lines.loaded(vector), |at| lines.load(e, at, vector));
    let values: Vec<_> = loaded.iter().map(|loaded| lines.combine(e, loaded)).collect();
    rounds.store(e, |round, at| lines.keep(e, at, &values[round]));
    let weight = plan.weights(e, place.group, place.first);
    let weights = || {
        let load = |at| e.load(e.at(weight, F32, at), F32, (vector, vector), Written::Before);
        rounds.each(e, place.there, vector as usize, load)
    };
    let ahead = (team.rounds() * vector <= AHEAD).then(weights);
    let squares = values.iter().flatten().fold(e.float(0.0), |sum, x| e.fma(*x, *x, sum));
    let scale = plan.norm.scale(e, team.sum(e, squares, space));
    let weights = ahead.unwrap_or_else(weights);
    let (target, dtype) = plan.target(e, place.row, place.group, place.first);
    rounds.store(e, |round, at| {
        let pairs = values[round].iter().zip(&weights[round]);
        let normed: Vec<_> = pairs.map(|(x, weight)| e.fmul(e.fmul(*x, scale), *weight)).collect();
        e.store(e.at(target, dtype, at), dtype, &normed, vector);
    });
}

/// The pieces of one thread.
struct Rounds<'p, 'c> {
    plan: &'p Plan,
    place: &'p Place<'c>,
}

impl<'c> Rounds<'_, 'c> {
    fn at(&self, e: &Emit<'c, '_>, round: u32) -> Int<'c> {
        e.word(round * self.plan.team.stride())
    }

    /// What `load` gives, `count` values a piece; zeros where the thread has no piece or the condition does not hold.
    fn each(
        &self,
        e: &Emit<'c, '_>,
        condition: Option<IntValue<'c>>,
        count: usize,
        load: impl Fn(Int<'c>) -> Vec<Float<'c>>,
    ) -> Vec<Vec<Float<'c>>> {
        let team = self.plan.team;
        let (full, rounds) = (team.full_rounds(), team.rounds());
        let stretch = |condition: Option<IntValue<'c>>, from: u32, to: u32| {
            let load = || (from..to).flat_map(|round| load(self.at(e, round))).map(Any::from).collect();
            let nothing = || vec![e.float(0.0).into(); count * (to - from) as usize];
            condition.map_or_else(load, |condition| e.choose(condition, load, nothing))
        };
        let mut values = if full > 0 { stretch(condition, 0, full) } else { Vec::new() };
        if rounds > full {
            values.extend(stretch(Some(self.rest(e, condition)), full, rounds));
        }
        let values: Vec<_> = values.into_iter().map(Any::into_float_value).collect();
        values.chunks(count).map(<[_]>::to_vec).collect()
    }

    /// Runs `body` for every piece that the thread has.
    fn store(&self, e: &Emit<'c, '_>, body: impl Fn(usize, Int<'c>)) {
        let team = self.plan.team;
        let stretch = |from: u32, to: u32| {
            for round in from..to {
                body(round as usize, self.at(e, round));
            }
        };
        let (full, rounds) = (team.full_rounds(), team.rounds());
        match self.place.there {
            None => stretch(0, full),
            Some(there) if full > 0 => e.when(there, || stretch(0, full)),
            Some(_) => {}
        }
        if rounds > full {
            e.when(self.rest(e, self.place.there), || stretch(full, rounds));
        }
    }

    fn rest(&self, e: &Emit<'c, '_>, condition: Option<IntValue<'c>>) -> IntValue<'c> {
        let rest = self.plan.team.has_rest(e, self.place);
        condition.map_or(rest, |condition| e.and(condition, rest))
    }
}
