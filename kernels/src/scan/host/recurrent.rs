//! The recurrent form: a token updates the whole state of each head, which is read and written once.

use nemo_ir::types::Dtype;

use super::heads::{Head, Scan, pieces};
use crate::host::{Any, Emit, Int, Ptr, Rows, Sequence};

/// Registers of head_dim that a pass over the state takes at once.
const PASS: usize = 6;

pub(super) fn ssd_recurrent(e: &Emit<'_, '_>) -> Result<(), String> {
    let chain = e.chain();
    let link = chain.links.last().ok_or("the chain is empty")?;
    let scan = &Scan::of(e, &chain, link, None, Rows::of(e, e.result()))?;
    let spare = e.scratch(scan.shape.head_state());
    let (_, layout) = e.operand("seq_start");
    let seqs = e.dim(layout.ty.shape[0]);
    let heads = scan.shape.heads;
    let (from, to) = e.share(e.times(seqs, heads));
    e.each(from, to, |item| {
        let sequence = e.sequence(e.div(item, e.int(heads)));
        let head = Head::load(e, scan, e.rem(item, e.int(heads)));
        rows_of_head(e, scan, sequence, head, spare);
    });
    Ok(())
}

/// Every row of one sequence through one head.
pub(super) fn rows_of_head<'c>(
    e: &Emit<'c, '_>,
    scan: &Scan<'c>,
    sequence: Sequence<'c>,
    head: Head<'c>,
    spare: Ptr<'c>,
) {
    let state = scan.state(e, head, sequence, spare);
    e.each(sequence.start, sequence.end, |row| token(e, scan, head, state, row));
}

/// One row through one head.
pub(super) fn token<'c>(e: &Emit<'c, '_>, scan: &Scan<'c>, head: Head<'c>, state: Ptr<'c>, row: Int<'c>) {
    let shape = scan.shape;
    let group = e.div(head.index, e.int(shape.heads_per_group()));
    let step = scan.step_size(e, head, row);
    let keep = e.splat(e.exp_scalar(e.fmul(step, head.decay)));
    for pass in pieces(e, shape.head_dim).chunks(PASS) {
        let x: Vec<_> = pass.iter().map(|piece| scan.x(e, head, row, *piece)).collect();
        let added: Vec<_> = x.iter().map(|x| e.fmul(*x, e.splat(step))).collect();
        let zeros: Vec<Any<'c>> = vec![e.lanes(0.0).into(); pass.len()];
        let sums = e.fold((e.int(0), e.int(shape.state), 1), &zeros, |n, sums| {
            let at = e.add(e.times(group, shape.state), n);
            let coefficient = |rows: Rows<'c>| e.splat(rows.scalar(e, row, at));
            let (b, c) = (coefficient(scan.b), coefficient(scan.c));
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
        for ((piece, x), sum) in pass.iter().zip(&x).zip(&sums) {
            let y = e.fma(*x, e.splat(head.skip), sum.into_vector_value());
            scan.store_y(e, head, row, *piece, y);
        }
    }
}
