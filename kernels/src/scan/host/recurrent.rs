//! The recurrent form: a token updates the whole state of each head, which is read and written once.

use nemo_ir::types::Dtype;

use super::heads::{Head, Shape, pieces};
use crate::host::{Any, Emit, Int, Ptr, Sequence};

/// Registers of head_dim that a pass over the state takes at once.
const PASS: usize = 6;

pub(super) fn ssd_recurrent(e: &Emit<'_, '_>) -> Result<(), String> {
    let shape = Shape::of(e)?;
    let spare = e.scratch(shape.head_state());
    let (_, layout) = e.operand("seq_start");
    let seqs = e.dim(layout.ty.shape[0]);
    let (from, to) = e.share(e.times(seqs, shape.heads));
    e.each(from, to, |item| {
        let sequence = e.sequence(e.div(item, e.int(shape.heads)));
        let head = Head::load(e, e.rem(item, e.int(shape.heads)));
        rows_of_head(e, shape, sequence, head, spare);
    });
    Ok(())
}

/// Every row of one sequence through one head.
pub(super) fn rows_of_head<'c>(
    e: &Emit<'c, '_>,
    shape: Shape,
    sequence: Sequence<'c>,
    head: Head<'c>,
    spare: Ptr<'c>,
) {
    let state = head.state(e, shape, sequence, spare);
    e.each(sequence.start, sequence.end, |row| token(e, shape, head, state, row));
}

/// One row through one head.
pub(super) fn token<'c>(e: &Emit<'c, '_>, shape: Shape, head: Head<'c>, state: Ptr<'c>, row: Int<'c>) {
    let group = e.div(head.index, e.int(shape.heads_per_group()));
    let (b, c) = (e.operand("b"), e.operand("c"));
    let step = head.step_size(e, row);
    let keep = e.splat(e.exp_scalar(e.fmul(step, head.decay)));
    for pass in pieces(e, shape.head_dim).chunks(PASS) {
        let x: Vec<_> = pass.iter().map(|(at, lanes)| head.x(e, shape, row, (e.int(*at), *lanes))).collect();
        let added: Vec<_> = x.iter().map(|x| e.fmul(*x, e.splat(step))).collect();
        let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); pass.len()];
        let sums = e.fold((e.int(0), e.int(shape.state), 1), &zeros, |n, sums| {
            let at = e.add(e.times(group, shape.state), n);
            let coefficient = |(base, layout)| {
                let dtype = crate::spec::Layout::dtype(layout);
                e.splat(e.load_scalar(e.at(e.row((base, layout), row), dtype, at), dtype))
            };
            let (b, c) = (coefficient(b), coefficient(c));
            let line = e.at(state, Dtype::F32, e.times(n, shape.head_dim));
            pass.iter()
                .zip(&added)
                .zip(sums)
                .map(|(((at, lanes), added), sum)| {
                    let place = e.at(line, Dtype::F32, e.int(*at));
                    let old = e.load(place, Dtype::F32, *lanes);
                    let new = e.fma(*added, b, e.fmul(old, keep));
                    e.store(place, Dtype::F32, *lanes, new);
                    e.fma(new, c, sum.into_vector_value()).into()
                })
                .collect()
        });
        for (((at, lanes), x), sum) in pass.iter().zip(&x).zip(&sums) {
            let y = e.fma(*x, e.splat(head.skip), sum.into_vector_value());
            head.store_y(e, shape, row, (e.int(*at), *lanes), y);
        }
    }
}
