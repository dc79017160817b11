//! Convolution, scan and maybe the gated norm in one: what lies between the projections.
//!
//! CTAs are those of the recurrent form. Each convolves what its head needs; so the channels of b and c are convolved by
//! each head of a group, and the window moves on when all of them have read it: the last CTA of a unit, some whole groups
//! of heads, does that, and norms what the others have left in the workspace.

use inkwell::IntPredicate;
use nemo_ir::plan::Geometry;
use nemo_ir::types::Dtype;

use super::heads::{Columns, Scan, Shape};
use super::recurrent::{Cut, Inputs, Work};
use super::sequences::{Sequence, Sequences, Slots};
use super::window::Taps;
use crate::nvptx::{COMBINING, Chain, Emit, Float, Int, Kernel, Link, Needs, Ptr, Written};
use crate::spec::KernelSpec;

const F32: Dtype = Dtype::F32;

/// What surrounds the scan.
#[derive(Clone, Copy)]
struct Mixer {
    taps: Taps,
    /// First channels of x, b and c.
    offsets: [u64; 3],
    /// What the scan's y is rounded to.
    scanned: Dtype,
    norm: Option<GatedNorm>,
    /// Columns of y that are finished together.
    unit: u64,
}

/// The norm after the scan.
#[derive(Clone, Copy)]
struct GatedNorm {
    gate: Columns,
    weight: usize,
    /// One group's width of weights serves every group.
    shared: bool,
    group: u64,
    eps: f64,
}

pub(super) fn kernel(spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let link = |op: &str| chain.find(&[op]).ok_or_else(|| format!("the chain has no `{op}`"));
    let scan = Scan::of(spec, chain, link("ssd_recurrent")?)?;
    let cut = Cut::of(scan.shape, scan.state_vector(spec))?;
    let mixer = Mixer::of(spec, chain, scan.shape)?;
    let steps = spec.steps.ok_or("the steps are not known")?;
    let geometry = cut.geometry(scan.shape, |shared| shared.and(4 + cut.threads().div_ceil(32) * 4, 4));
    let inner = scan.shape.heads * scan.shape.head_dim;
    let geometry = Geometry {
        counters: steps.max_seqs * (inner / mixer.unit),
        partials: mixer.norm.map_or(0, |_| steps.max_tokens * inner * mixer.scanned.bytes()),
        ..geometry
    };
    let resident = if cut.threads() <= 384 { 2 } else { 1 };
    // Taps and windows, in f32 and as they are kept, of the channels that belong to a group.
    let channel = mixer.taps.taps * 4 + 4 + mixer.taps.taps * mixer.taps.dtype.bytes();
    let needs = Needs {
        // The window is there before the scan begins; the last CTA reads it again to move it, then what it norms.
        waits: 4 + COMBINING,
        again: 2 * scan.shape.state * channel,
        ..cut.needs(resident)
    };
    Ok(Kernel::needing(geometry, needs, move |e| {
        let chain = e.chain();
        let link = chain.find(&["causal_conv1d"]).ok_or("the chain has no convolution")?;
        let sequences = Sequences::of(e, link)?;
        e.resident(resident);
        let work = Work::new(e, scan, cut, sequences);
        let space = e.shared(4 + e.warps() * 4, 4);
        work.run(
            e,
            |e, inputs, row| mixer.stage(e, inputs, (work.sequence, work.slots), row),
            |e, row, column, values| mixer.put(e, scan.shape, row, column, values),
        );
        let units = inner / mixer.unit;
        let unit = e.div(e.times(work.head, scan.shape.head_dim), e.word(mixer.unit as u32));
        let counter = e.add(e.times(work.sequence.index, units), unit);
        let total = e.word((mixer.unit / scan.shape.head_dim * cut.parts) as u32);
        e.when(e.is_last_cta(e.at(e.counters(), Dtype::I32, counter), total, space), || {
            mixer.end(e, scan.shape, (work.sequence, work.slots), unit);
            if let Some(norm) = &mixer.norm {
                let space = e.offset(space, e.word(4));
                e.each(work.sequence.start, work.sequence.end, |row| {
                    norm.row(e, &mixer, inner, (row, unit), space);
                });
            }
        });
        Ok(())
    }))
}

impl Mixer {
    fn of(spec: &KernelSpec, chain: &Chain, shape: Shape) -> Result<Self, String> {
        let link = |op: &str| chain.find(&[op]).ok_or_else(|| format!("the chain has no `{op}`"));
        let recurrent = link("ssd_recurrent")?;
        let offset = |name: &str| {
            let slice = recurrent.source(name).and_then(|source| chain.giver(source));
            let slice = slice.filter(|slice| slice.op.name == "slice");
            slice.map(|slice| slice.int("offset")).ok_or(format!("`{name}` of the scan is no slice"))
        };
        let norm = chain.find(&["gated_rms_norm"]);
        let norm = norm.map(|link| GatedNorm::of(spec, chain, link)).transpose()?;
        let width = shape.group_width();
        Ok(Self {
            taps: Taps::of(spec, link("causal_conv1d")?)?,
            offsets: [offset("x")?, offset("b")?, offset("c")?],
            scanned: recurrent.dtype(),
            unit: norm.map_or(width, |norm| least_common_multiple(width, norm.group)),
            norm,
        })
    }

    /// Convolves a row of what a CTA's scan takes, by all threads.
    fn stage<'c>(
        &self,
        e: &Emit<'c, '_>,
        inputs: &Inputs<'c>,
        (sequence, slots): (Sequence<'c>, Slots<'c>),
        row: Int<'c>,
    ) {
        let [x, b, c] = inputs.parts;
        e.each_strided(e.word((x.1 + b.1 + c.1) as u32), |at| {
            let after_x = e.sub(at, e.word(x.1 as u32));
            let after_b = e.sub(after_x, e.word(b.1 as u32));
            let in_x = e.cmp(IntPredicate::ULT, at, e.word(x.1 as u32));
            let choose = |values: [Int<'c>; 3]| {
                let in_b = e.cmp(IntPredicate::ULT, after_x, e.word(b.1 as u32));
                e.select(in_x, values[0], e.select(in_b, values[1], values[2]))
            };
            let at = [at, after_x, after_b];
            let parts = [(x, 0), (b, 1), (c, 2)];
            let channel =
                choose(parts.map(|(part, index)| e.plus(e.add(part.2, at[index]), self.offsets[index])));
            let place = choose(parts.map(|(part, index)| e.plus(at[index], part.0)));
            let value = self.convolved(e, (sequence, slots.before, row), channel);
            inputs.put(e, in_x, (place, &[e.round(self.taps.dtype, value)]), 1);
        });
    }

    /// The convolution of one channel at a row.
    fn convolved<'c>(
        &self,
        e: &Emit<'c, '_>,
        (sequence, slot_in, row): (Sequence<'c>, Int<'c>, Int<'c>),
        channel: Int<'c>,
    ) -> Float<'c> {
        let taps = &self.taps;
        let input = |age: u64| {
            let source = e.sub(e.plus(row, age), e.word(taps.past() as u32));
            let there = e.cmp(IntPredicate::SGE, source, sequence.start);
            let value = e.choose(
                there,
                || vec![taps.input(e, source, (channel, 1))[0].into()],
                || {
                    let age = e.plus(e.sub(source, sequence.start), taps.past());
                    vec![taps.before_at(e, slot_in, age, channel).into()]
                },
            );
            value[0].into_float_value()
        };
        let mut window: Vec<_> = (0..taps.past()).map(input).collect();
        window.push(taps.input(e, row, (channel, 1))[0]);
        let weights = e.at(taps.weights(e), F32, e.times(channel, taps.taps));
        let vector = 1 << taps.taps.trailing_zeros().min(2);
        let weights = e.load(weights, F32, (taps.taps as u32, vector), Written::Before);
        let bias = taps.bias(e).map(|bias| e.load_scalar(e.at(bias, F32, channel), F32, Written::Before));
        Taps::output(e, window.into_iter(), weights.into_iter(), bias.unwrap_or_else(|| e.float(0.0)))
    }

    /// Puts y of the scan where it goes: to the result, or to the workspace for the norm.
    fn put<'c>(&self, e: &Emit<'c, '_>, shape: Shape, row: Int<'c>, column: Int<'c>, values: &[Float<'c>]) {
        let inner = shape.heads * shape.head_dim;
        let count = values.len() as u64;
        if self.norm.is_some() {
            let place = e.add(e.times(e.long(row), inner), e.long(column));
            e.store(e.at(e.partials(), self.scanned, place), self.scanned, values, count as u32);
            return;
        }
        let y = e.result();
        e.store(
            e.at(e.row(y, row), y.1.dtype(), column),
            y.1.dtype(),
            values,
            y.1.vector().min(count as u32),
        );
    }

    /// Moves the window of a unit's channels past the sequence, by all threads.
    fn end<'c>(
        &self,
        e: &Emit<'c, '_>,
        shape: Shape,
        (sequence, slots): (Sequence<'c>, Slots<'c>),
        unit: Int<'c>,
    ) {
        let groups = self.unit / shape.group_width();
        let widths = [self.unit, groups * shape.state, groups * shape.state];
        for (offset, width) in self.offsets.into_iter().zip(widths) {
            e.each_strided(e.word(width as u32), |at| {
                let channels = (e.plus(e.add(e.times(unit, width), at), offset), 1);
                let before = self.taps.before(e, slots.before, channels);
                self.taps.keep(e, sequence, slots.after, channels, &before);
            });
        }
    }
}

impl GatedNorm {
    fn of(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<Self, String> {
        let group = link.int("group");
        let weight = spec.given(link.source("weight")).ok_or("the norm's weight is no operand")?;
        let shared = spec.operands[weight].ty.shape[0].constant() == Some(group);
        let gate = Columns::of(spec, chain, link, "gate")?;
        Ok(Self { gate, weight, shared, group, eps: link.float("eps") })
    }

    /// Norms the groups of a unit at a row, by all threads.
    fn row<'c>(
        &self,
        e: &Emit<'c, '_>,
        mixer: &Mixer,
        inner: u64,
        (row, unit): (Int<'c>, Int<'c>),
        space: Ptr<'c>,
    ) {
        let y = e.result();
        let group = e.word(self.group as u32);
        let first = e.times(unit, mixer.unit);
        e.step_by(first, e.plus(first, mixer.unit), self.group, |first| {
            let product = |at: Int<'c>| {
                let column = e.add(first, at);
                let place = e.add(e.times(e.long(row), inner), e.long(column));
                let place = e.at(e.partials(), mixer.scanned, place);
                let scanned = e.load_scalar(place, mixer.scanned, Written::Now);
                e.fmul(scanned, e.silu(self.gate.load(e, row, column, (1, 1))[0]))
            };
            let squares = (e.thread(), group, u64::from(e.threads()));
            let squares = e.fold(squares, &[e.float(0.0).into()], |at, sum| {
                let product = product(at);
                vec![e.fma(product, product, sum[0].into_float_value()).into()]
            });
            let sum = e.cta_sum(squares[0].into_float_value(), space);
            let mean = e.fmul(sum, e.float(1.0 / self.group as f64));
            let scale = e.rsqrt(e.fadd(mean, e.float(self.eps)));
            e.each_strided(group, |at| {
                let column = e.add(first, at);
                let weight = if self.shared { at } else { column };
                let weight = e.at(e.arg(self.weight), F32, weight);
                let weight = e.load_scalar(weight, F32, Written::Before);
                let value = e.fmul(e.fmul(product(at), scale), weight);
                e.store(e.at(e.row(y, row), y.1.dtype(), column), y.1.dtype(), &[value], 1);
            });
        });
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
