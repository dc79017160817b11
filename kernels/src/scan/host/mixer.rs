//! Convolution, scan and maybe the gated norm in one: what lies between the projections.
//!
//! Threads share groups of heads: the channels of b and c that a group's heads share are convolved once,
//! the window of all its channels moves on once, and the norm takes its columns while they are in cache.

use inkwell::IntPredicate;

use super::conv::Taps;
use super::heads::{Head, Scan, Shape};
use super::recurrent::token;
use crate::host::{Emit, Int, Ptr, Rows, Sequence};
use crate::norm::host::Norm;

/// The steps, and where what passes between them waits: one row of a group.
struct Mixer<'c> {
    taps: Taps<'c>,
    xbc: Rows<'c>,
    /// Of each of x, b and c: its first channel, its channels in a group, and their place when convolved.
    parts: [(u64, u64, Rows<'c>); 3],
    /// Step sizes of the group's heads.
    steps: Rows<'c>,
    scan: Scan<'c>,
    norm: Option<GatedNorm<'c>>,
}

struct GatedNorm<'c> {
    norm: Norm<'c>,
    gate: Rows<'c>,
    space: Ptr<'c>,
    y: Rows<'c>,
}

pub(super) fn mixer(e: &Emit<'_, '_>) -> Result<(), String> {
    let mixer = Mixer::of(e)?;
    let shape = mixer.scan.shape;
    let spare = e.scratch(shape.head_state());
    let (_, layout) = e.operand("seq_start");
    let seqs = e.dim(layout.ty.shape[0]);
    let (from, to) = e.share(e.times(seqs, shape.groups));
    e.each(from, to, |item| {
        let sequence = e.sequence(e.div(item, e.int(shape.groups)));
        let group = e.rem(item, e.int(shape.groups));
        let scan = &mixer.scan_of(e, group);
        let first = e.times(group, shape.heads_per_group());
        let heads = (first, e.plus(first, shape.heads_per_group()));
        let keeps = e.cmp(IntPredicate::SGE, scan.slot_out(e, sequence), e.int(0));
        e.choose(
            keeps,
            || {
                e.each(heads.0, heads.1, |head| {
                    scan.state(e, Head::load(e, scan, head), sequence, spare);
                });
                e.each(sequence.start, sequence.end, |row| {
                    mixer.convolve(e, sequence, row, group);
                    e.each(heads.0, heads.1, |head| {
                        let head = Head::load(e, scan, head);
                        token(e, scan, head, scan.written_state(e, head, sequence), row);
                    });
                    mixer.finish(e, row, group);
                });
                mixer.end(e, sequence, group);
                Vec::new()
            },
            || {
                // No slot holds the states of the group's heads from row to row, and the stack holds one
                // head's: every row goes through the rows before it again.
                e.each(sequence.start, sequence.end, |row| {
                    mixer.convolve(e, sequence, row, group);
                    e.each(heads.0, heads.1, |head| {
                        let head = Head::load(e, scan, head);
                        let state = scan.state(e, head, sequence, spare);
                        let again = e.cmp(IntPredicate::SGT, row, sequence.start);
                        e.when(again, || {
                            e.each(sequence.start, row, |row| {
                                mixer.convolve(e, sequence, row, group);
                                token(e, scan, head, state, row);
                            });
                            mixer.convolve(e, sequence, row, group);
                        });
                        token(e, scan, head, state, row);
                    });
                    mixer.finish(e, row, group);
                });
                Vec::new()
            },
        );
    });
    Ok(())
}

impl<'c> Mixer<'c> {
    fn of(e: &Emit<'c, '_>) -> Result<Self, String> {
        let chain = e.chain();
        let link = |ops: &[&str]| chain.find(ops).ok_or_else(|| format!("the chain has none of {ops:?}"));
        let (conv, recurrent) = (link(&["causal_conv1d"])?, link(&["ssd_recurrent"])?);
        let taps = Taps::of(e, conv)?;
        let y = Rows::of(e, e.result());
        let extents = Scan::shape_of(e, recurrent)?;
        let offset = |name: &str| {
            let slice = recurrent.source(name).and_then(|source| chain.giver(source));
            let slice = slice.filter(|slice| slice.op.name == "slice");
            slice.map(|slice| slice.int("offset")).ok_or(format!("`{name}` of the scan is no slice"))
        };
        let place = |width| e.scratch_rows(taps.dtype, 1, width);
        let (wide, narrow) = (extents.group_width(), extents.state);
        let parts = [
            (offset("x")?, wide, place(wide)),
            (offset("b")?, narrow, place(narrow)),
            (offset("c")?, narrow, place(narrow)),
        ];
        let norm = match chain.find(&["gated_rms_norm"]) {
            None => None,
            Some(link) => {
                let norm = Norm::of(e, link)?;
                if norm.group != wide {
                    return Err(format!("a norm over {} columns, and a group of {wide}", norm.group));
                }
                let gate = Rows::of(e, e.taken(link, "gate")?);
                Some(GatedNorm { norm, gate, space: norm.space(e)?, y })
            }
        };
        let scanned = if norm.is_some() { e.scratch_rows(recurrent.dtype(), 1, wide) } else { y };
        let inner = parts.map(|(_, _, rows)| Rows { stride: 0, ..rows });
        let scan = Scan::of(e, &chain, recurrent, Some(inner), scanned)?;
        let steps = e.scratch_rows(nemo_ir::types::Dtype::F32, 1, extents.heads_per_group());
        Ok(Self { taps, xbc: Rows::of(e, e.taken(conv, "x")?), parts, steps, scan, norm })
    }

    fn shape(&self) -> Shape {
        self.scan.shape
    }

    /// The scan with its inputs, and maybe its results, in the space for one row of a group.
    fn scan_of(&self, e: &Emit<'c, '_>, group: Int<'c>) -> Scan<'c> {
        let (wide, narrow) = (self.shape().group_width(), self.shape().state);
        let at = |rows: Rows<'c>, width| Rows { stride: 0, ..rows }.from(e.int(0), e.times(group, width));
        let y = if self.norm.is_some() { at(self.scan.y, wide) } else { self.scan.y };
        let [x, b, c] = self.parts.map(|(_, _, rows)| rows);
        let steps = at(self.steps, self.shape().heads_per_group());
        self.scan.reading([at(x, wide), at(b, narrow), at(c, narrow), steps], y)
    }

    /// The convolved channels and the step sizes of a group at a row.
    fn convolve(&self, e: &Emit<'c, '_>, sequence: Sequence<'c>, row: Int<'c>, group: Int<'c>) {
        for (first, width, place) in self.parts {
            let place = Rows { stride: 0, ..place };
            let column = e.plus(e.times(group, width), first);
            self.taps.row(e, (sequence, row), (column, width), self.xbc, place);
        }
        let count = self.shape().heads_per_group();
        let steps = Rows { stride: 0, ..self.steps };
        self.scan.steps.gather(e, row, (e.times(group, count), count), steps);
    }

    /// The norm of a row.
    fn finish(&self, e: &Emit<'c, '_>, row: Int<'c>, group: Int<'c>) {
        let Some(GatedNorm { norm, gate, space, y }) = &self.norm else { return };
        let column = e.times(group, self.shape().group_width());
        let scanned = (self.scan.y.base, self.scan.y.dtype);
        let gate = (gate.at(e, row, column), gate.dtype);
        norm.gated(e, column, [scanned, gate], *space, (y.at(e, row, column), y.dtype));
    }

    /// Moves the window of the group's channels past the sequence.
    fn end(&self, e: &Emit<'c, '_>, sequence: Sequence<'c>, group: Int<'c>) {
        for (first, width, _) in self.parts {
            let column = e.plus(e.times(group, width), first);
            self.taps.end(e, sequence, (column, width), self.xbc);
        }
    }
}
