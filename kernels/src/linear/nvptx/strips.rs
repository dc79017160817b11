//! How the columns of products are cut.
//!
//! A *strip* is 16 columns of one product, the columns of one matrix instruction. A *unit* is the strips whose values an
//! epilogue needs together: the same columns of gate and up projection, the two halves of 16 pairs of a head that is
//! rotated, all columns that share a maximum. A *block* is the units of one CTA. So the loops over K know strips only, and
//! epilogues units only.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use super::plan::{Group, Plan};
use super::sink::Sink;
use crate::nvptx::{Emit, Int, Ptr};

/// Columns of a strip.
pub(super) const STRIP: u64 = 16;

/// Columns of the head that a unit is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub head_dim: u64,
    /// Columns that are cut into strips: half of the head where it is rotated.
    pub piece: u64,
}

impl Group {
    /// The heads that its columns are cut along.
    pub fn span(&self) -> Option<Span> {
        let rotated = |head_dim| Span { head_dim, piece: head_dim / 2 };
        match &self.sink {
            Sink::Rotated { angles, .. } => Some(rotated(angles.head_dim)),
            Sink::Cache { angles: Some(_), cache, .. } => Some(rotated(cache.head_dim)),
            Sink::Cache { angles: None, cache, .. } => {
                Some(Span { head_dim: cache.head_dim, piece: cache.head_dim })
            }
            Sink::Map { .. } | Sink::Conv { .. } | Sink::Maxima { .. } => None,
        }
    }

    /// Strips of a unit.
    pub fn parts(&self) -> u64 {
        match &self.sink {
            Sink::Map { .. } => self.products.len() as u64,
            Sink::Rotated { .. } | Sink::Cache { angles: Some(_), .. } => 2,
            Sink::Cache { angles: None, .. } | Sink::Conv { .. } => 1,
            Sink::Maxima { tile, .. } => tile.div_ceil(STRIP),
        }
    }

    /// Units of all its columns.
    pub fn units(&self) -> u64 {
        match (&self.sink, self.span()) {
            (_, Some(span)) => self.width / span.head_dim * span.piece.div_ceil(STRIP),
            (Sink::Maxima { tile, .. }, None) => self.width.div_ceil(*tile),
            (_, None) => self.width.div_ceil(STRIP),
        }
    }
}

/// Blocks of equally many strips over all groups, those of the first group first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Strips of a block; some may belong to no column.
    pub strips: u64,
    /// Of each group: the first block, units of a block.
    groups: Vec<(u64, u64)>,
    count: u64,
}

/// Some of a weight's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip<'c> {
    /// Where the first lies.
    pub base: Ptr<'c>,
    /// How many of the 16 there are, i32 of 1 or more: a strip that belongs to no column is given as some that does.
    pub present: Int<'c>,
}

/// Where a weight's rows are read alike: its element type, the distance of its rows, and the elements of an access.
pub(super) type Reading = (Dtype, u64, u32);

impl Plan {
    /// Groups whose weights are read alike, so that one loop serves them; in order, by their indices.
    pub fn classes(&self) -> Vec<(Reading, Vec<usize>)> {
        let mut classes: Vec<(Reading, Vec<usize>)> = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let layout = &group.products[0].weight.layout;
            let vectors = group.products.iter().map(|product| product.weight.layout.vector());
            let reading = (layout.dtype(), layout.row_stride, vectors.min().unwrap_or(1));
            match classes.iter_mut().find(|(other, _)| *other == reading) {
                Some((_, groups)) => groups.push(index),
                None => classes.push((reading, vec![index])),
            }
        }
        classes
    }

    /// The most strips that a unit of any group has.
    pub fn parts(&self) -> u64 {
        self.groups.iter().map(Group::parts).max().unwrap_or(1)
    }
}

impl Blocks {
    /// Blocks of so many strips.
    ///
    /// # Panics
    /// When a unit has more: [`Plan::parts`] says how many are needed.
    pub fn of(plan: &Plan, strips: u64) -> Self {
        let mut count = 0;
        let groups = plan.groups.iter().map(|group| {
            let units = strips / group.parts();
            assert!(units > 0, "a block holds whole units");
            let first = count;
            count += group.units().div_ceil(units);
            (first, units)
        });
        let groups = groups.collect();
        Self { strips, groups, count }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Units of a block of that group.
    pub fn units(&self, group: usize) -> u64 {
        self.groups[group].1
    }

    /// The first unit of a block of that group.
    pub fn first_unit<'c>(&self, e: &Emit<'c, '_>, group: usize, block: Int<'c>) -> Int<'c> {
        let (first, units) = self.groups[group];
        e.times(e.sub(block, e.word(first as u32)), units)
    }

    /// Runs `body` for the group of `groups`, which are in order and follow one another or not, that a block belongs to.
    pub fn when_of<'c>(
        &self,
        e: &Emit<'c, '_>,
        groups: &[usize],
        block: Int<'c>,
        mut body: impl FnMut(usize),
    ) {
        for group in groups {
            if self.groups.len() == 1 {
                body(*group);
            } else {
                e.when(self.holds(e, *group, block), || body(*group));
            }
        }
    }

    /// Whether a block belongs to a group, i1.
    pub fn holds<'c>(&self, e: &Emit<'c, '_>, group: usize, block: Int<'c>) -> inkwell::values::IntValue<'c> {
        let first = self.groups[group].0;
        let end = self.groups.get(group + 1).map_or(self.count, |next| next.0);
        let from = e.cmp(IntPredicate::SGE, block, e.word(first as u32));
        e.and(from, e.cmp(IntPredicate::SLT, block, e.word(end as u32)))
    }

    /// Whether a block belongs to one of some groups, i1.
    pub fn holds_any<'c>(
        &self,
        e: &Emit<'c, '_>,
        groups: &[usize],
        block: Int<'c>,
    ) -> inkwell::values::IntValue<'c> {
        let none = e.context.bool_type().const_zero();
        groups.iter().fold(none, |any, group| e.or(any, self.holds(e, *group, block)))
    }

    /// The strip of that index (i32) of a block that belongs to one of `groups`.
    pub fn strip<'c>(
        &self,
        e: &Emit<'c, '_>,
        plan: &Plan,
        groups: &[usize],
        (block, index): (Int<'c>, Int<'c>),
    ) -> Strip<'c> {
        let mut strips = groups.iter().rev().map(|group| {
            let strip = self.strip_of(e, (&plan.groups[*group], *group), (block, index));
            (*group, strip)
        });
        let (_, last) = strips.next().expect("a class has a group");
        strips.fold(last, |other, (group, strip)| {
            let own = self.holds(e, group, block);
            Strip {
                base: e.select(own, strip.base, other.base),
                present: e.select(own, strip.present, other.present),
            }
        })
    }

    fn strip_of<'c>(
        &self,
        e: &Emit<'c, '_>,
        (group, which): (&Group, usize),
        (block, index): (Int<'c>, Int<'c>),
    ) -> Strip<'c> {
        // The first parts of all units come first: threads that take the same part of neighbouring units take neighbouring
        // strips then.
        let units = e.word(self.units(which) as u32);
        let unit = e.add(self.first_unit(e, which, block), e.rem(index, units));
        let last = e.word(group.units() as u32 - 1);
        let none = e.word(0);
        // A block of another group, or one past the end, would ask for units that are not there.
        let unit = e.max(e.min(unit, last), none);
        let part = e.min(e.div(index, units), e.word(group.parts() as u32 - 1));
        let strip = e.word(STRIP as u32);
        let (product, row, left) = match (&group.sink, group.span()) {
            (_, Some(Span { head_dim, piece })) => {
                let pieces = piece.div_ceil(STRIP);
                let head = e.div(unit, e.word(pieces as u32));
                let inside = e.times(e.rem(unit, e.word(pieces as u32)), STRIP);
                let row = e.add(e.times(head, head_dim), e.add(e.times(part, piece), inside));
                (None, row, e.sub(e.word(piece as u32), inside))
            }
            (Sink::Maxima { tile, .. }, None) => {
                let inside = e.times(part, STRIP);
                let first = e.times(unit, *tile);
                let end = e.min(e.word(*tile as u32), e.sub(e.word(group.width as u32), first));
                // The last tile may be so short that a part has no column: then its first ones are read again.
                let inside = e.select(e.cmp(IntPredicate::SLT, inside, end), inside, none);
                (None, e.add(first, inside), e.sub(end, inside))
            }
            (_, None) => {
                let row = e.times(unit, STRIP);
                (Some(part), row, e.sub(e.word(group.width as u32), row))
            }
        };
        let address = |index: usize| {
            let product = &group.products[index];
            product.weight.at(e, e.plus(row, product.first), none)
        };
        let base = match product {
            None => address(0),
            Some(part) => (1..group.products.len()).fold(address(0), |base, index| {
                let own = e.cmp(IntPredicate::EQ, part, e.word(index as u32));
                e.select(own, address(index), base)
            }),
        };
        Strip { base, present: e.min(left, strip) }
    }
}
