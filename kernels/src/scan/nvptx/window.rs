//! The window of a causal convolution: a sequence's inputs, of this step and, before its first row, from its slot.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use super::sequences::Sequence;
use crate::nvptx::{Any, Emit, Float, Int, Link, Ptr, Written};
use crate::spec::{KernelSpec, Layout};

/// Values of some channels at one row.
pub(super) type Row<'c> = Vec<Float<'c>>;

/// A convolution: its operands.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    x: usize,
    weight: usize,
    bias: Option<usize>,
    conv: usize,
    pub taps: u64,
    /// What its results are rounded to.
    pub dtype: Dtype,
}

/// Some channels: the first, and how many, which one access takes.
pub(super) type Channels<'c> = (Int<'c>, u32);

impl Taps {
    pub fn of(spec: &KernelSpec, link: &Link) -> Result<Self, String> {
        let operand = |name: &str| {
            let place = spec.given(link.source(name));
            place.ok_or_else(|| format!("`{name}` of a convolution is no operand"))
        };
        let weight = operand("weight")?;
        let layout = &spec.operands[weight];
        let taps = layout.ty.width().ok_or("the taps are not constant")?;
        if layout.row_stride != taps {
            return Err("the taps have gaps between their rows".to_owned());
        }
        if !(2..=64).contains(&taps) {
            return Err(format!("{taps} taps; 2 to 64 fit the registers"));
        }
        Ok(Self {
            x: operand("x")?,
            weight,
            bias: spec.given(link.source("bias")),
            conv: operand("conv")?,
            taps,
            dtype: link.dtype(),
        })
    }

    /// Inputs before the current one.
    pub fn past(&self) -> u64 {
        self.taps - 1
    }

    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// What is convolved.
    pub fn x<'s>(&self, spec: &'s KernelSpec) -> &'s Layout {
        &spec.operands[self.x]
    }

    /// Its inputs before this step.
    pub fn state<'s>(&self, spec: &'s KernelSpec) -> &'s Layout {
        &spec.operands[self.conv]
    }

    pub fn weights<'c>(&self, e: &Emit<'c, '_>) -> Ptr<'c> {
        e.arg(self.weight)
    }

    pub fn bias<'c>(&self, e: &Emit<'c, '_>) -> Option<Ptr<'c>> {
        self.bias.map(|place| e.arg(place))
    }

    /// A row of this step.
    pub fn input<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, (channel, count): Channels<'c>) -> Row<'c> {
        let layout = self.x(e.spec());
        let place = e.at(e.row((e.arg(self.x), layout), row), layout.dtype(), channel);
        e.load(place, layout.dtype(), (count, count), Written::Before)
    }

    fn place<'c>(&self, e: &Emit<'c, '_>, slot: Int<'c>, age: Int<'c>, channel: Int<'c>) -> Ptr<'c> {
        let layout = self.state(e.spec());
        let row = e.add(e.times(slot, self.past()), age);
        e.at(e.row((e.arg(self.conv), layout), row), layout.dtype(), channel)
    }

    /// The inputs before a sequence's first row, oldest first: those in its slot, or zeros.
    pub fn before<'c>(
        &self,
        e: &Emit<'c, '_>,
        slot_in: Int<'c>,
        (channel, count): Channels<'c>,
    ) -> Vec<Row<'c>> {
        let dtype = self.state(e.spec()).dtype();
        let loaded = e.choose(
            e.cmp(IntPredicate::SGE, slot_in, e.word(0)),
            || {
                let row = |age: u32| {
                    let place = self.place(e, slot_in, e.word(age), channel);
                    e.load(place, dtype, (count, count), Written::Now)
                };
                (0..self.past() as u32).flat_map(row).map(Any::from).collect()
            },
            || vec![e.float(0.0).into(); (self.past() * u64::from(count)) as usize],
        );
        rows_of(&loaded, count)
    }

    /// One input of a channel before a sequence's first row, by its age from the oldest on.
    pub fn before_at<'c>(
        &self,
        e: &Emit<'c, '_>,
        slot_in: Int<'c>,
        age: Int<'c>,
        channel: Int<'c>,
    ) -> Float<'c> {
        let dtype = self.state(e.spec()).dtype();
        let loaded = e.choose(
            e.cmp(IntPredicate::SGE, slot_in, e.word(0)),
            || vec![e.load_scalar(self.place(e, slot_in, age, channel), dtype, Written::Now).into()],
            || vec![e.float(0.0).into()],
        );
        loaded[0].into_float_value()
    }

    /// Puts the last inputs of a sequence in its slot, given those before its first row. Whoever reads the slot for these
    /// channels has done so.
    pub fn keep<'c>(
        &self,
        e: &Emit<'c, '_>,
        sequence: Sequence<'c>,
        slot_out: Int<'c>,
        (channel, count): Channels<'c>,
        before: &[Row<'c>],
    ) {
        e.when(e.cmp(IntPredicate::SGE, slot_out, e.word(0)), || {
            let length = e.sub(sequence.end, sequence.start);
            let kept = |age: u64| {
                let row = e.sub(e.plus(sequence.end, age), e.word(self.past() as u32));
                let kept = e.choose(
                    e.cmp(IntPredicate::SGE, row, sequence.start),
                    || self.input(e, row, (channel, count)).into_iter().map(Any::from).collect(),
                    || {
                        // A sequence with fewer rows than there are inputs to keep: some of the old ones stay.
                        let old = &before[age as usize..];
                        let pick = |at: usize| {
                            let last = old[old.len() - 1][at];
                            let earlier = old[..old.len() - 1].iter().enumerate();
                            let pick = earlier.fold(last, |pick, (moved, row)| {
                                let there = e.cmp(IntPredicate::EQ, length, e.word(moved as u32));
                                e.select(there, row[at], pick)
                            });
                            pick.into()
                        };
                        (0..count as usize).map(pick).collect()
                    },
                );
                kept.into_iter().map(|value| value.into_float_value()).collect::<Row<'c>>()
            };
            let rows: Vec<Row<'c>> = (0..self.past()).map(kept).collect();
            let dtype = self.state(e.spec()).dtype();
            for (age, row) in (0..).zip(&rows) {
                e.store(self.place(e, slot_out, e.word(age), channel), dtype, row, count);
            }
        });
    }

    /// One channel's result, given its window, the current input at its end, and its taps.
    pub fn output<'c>(
        e: &Emit<'c, '_>,
        window: impl Iterator<Item = Float<'c>>,
        taps: impl Iterator<Item = Float<'c>>,
        bias: Float<'c>,
    ) -> Float<'c> {
        e.silu(window.zip(taps).fold(bias, |sum, (input, tap)| e.fma(input, tap, sum)))
    }
}

/// Values that were carried through a loop or a branch, row by row again.
pub(super) fn rows_of<'c>(values: &[Any<'c>], count: u32) -> Vec<Row<'c>> {
    let row = |row: &[Any<'c>]| row.iter().map(|value| value.into_float_value()).collect();
    values.chunks(count as usize).map(row).collect()
}
