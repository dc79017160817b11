//! What becomes of products before they leave: a unit is as many columns as that needs at once.

use inkwell::values::VectorValue;

use super::plan::{Group, Heads, Sink, Value};
use super::tile::{Operands, Tile};
use crate::attention::host::cache::{append, when_placed};
use crate::head::host::maxima::largest;
use crate::host::{Emit, Int, Lanes, Rows};

impl<'c> Group<'c> {
    /// Columns of a unit.
    pub(super) fn unit(&self, e: &Emit<'c, '_>, tile: Tile) -> u64 {
        match &self.sink {
            Sink::Map(..) => u64::from(tile.outputs) / self.products.len() as u64,
            Sink::Heads(angles, to) => match (to, angles) {
                (Heads::Cache(cache, _), _) => cache.head_dim,
                (Heads::Result(_), Some(angles)) => angles.head_dim,
                (Heads::Result(_), None) => self.width,
            },
            Sink::Conv(..) => u64::from(e.width()),
            Sink::Maxima(tile, ..) => *tile,
        }
    }

    /// Columns of products that are kept for all rows of a block.
    pub(super) fn kept(&self, e: &Emit<'c, '_>) -> u64 {
        match self.sink {
            Sink::Map(..) => 0,
            Sink::Heads(..) | Sink::Conv(..) | Sink::Maxima(..) => self.unit(e, Tile::of(e)),
        }
    }

    /// Rows before a block's first whose products it needs.
    pub(super) fn past(&self) -> u64 {
        match &self.sink {
            Sink::Map(..) | Sink::Heads(..) | Sink::Maxima(..) => 0,
            Sink::Conv(taps, _) => taps.past(),
        }
    }
}

/// A unit of work.
#[derive(Clone, Copy)]
pub(super) struct Unit<'c, 'p> {
    pub operands: Operands<'c, 'p>,
    /// First row whose products may be needed, first and one past the last row of the block.
    pub rows: (Int<'c>, Int<'c>, Int<'c>),
    /// Its first column, and how many.
    pub column: Int<'c>,
    pub columns: u64,
    /// Where products are kept.
    pub space: Rows<'c>,
}

impl<'c> Unit<'c, '_> {
    pub(super) fn run(&self, e: &Emit<'c, '_>, group: &Group<'c>, tile: Tile) {
        let (from, first, end) = self.rows;
        match &group.sink {
            Sink::Map(value, to) => {
                let count = self.columns as u32;
                self.operands.panel(e, (first, end), self.column, count, &|row, products| {
                    let place = to.at(e, row, self.column);
                    let result = match value {
                        Value::Product(index) => products[*index],
                        _ => {
                            let products: Vec<_> = products
                                .iter()
                                .zip(&group.products)
                                .map(|(sums, product)| e.round(product.dtype, e.resize(*sums, e.width())))
                                .collect();
                            let lanes = value.lanes(e, &products, (row, self.column, count));
                            e.resize(lanes, count.next_power_of_two())
                        }
                    };
                    e.store(place, to.dtype, count, result);
                });
            }
            Sink::Heads(angles, to) => {
                self.keep(e, group, tile, (first, end));
                let kept = |row| (self.space.at(e, row, e.int(0)), self.space.dtype);
                match (to, angles) {
                    (Heads::Cache(cache, part), _) => {
                        let head = e.div(self.column, e.int(cache.head_dim));
                        e.each_sequence_row((first, end), |sequence, row| {
                            when_placed(e, *cache, (sequence, row), |place| {
                                append(e, *cache, row, *angles, kept(row), place(*part, head));
                            });
                        });
                    }
                    (Heads::Result(to), Some(angles)) => e.each(first, end, |row| {
                        angles.rotate(e, row, kept(row), (to.at(e, row, self.column), to.dtype));
                    }),
                    (Heads::Result(_), None) => unreachable!("a result that is not rotated is a map"),
                }
            }
            Sink::Conv(taps, to) => {
                self.keep(e, group, tile, (from, end));
                taps.convolve(e, (first, end), (self.column, self.columns as u32), self.space, *to);
            }
            Sink::Maxima(columns, to, maxima) => {
                self.keep(e, group, tile, (first, end));
                e.each(first, end, |row| {
                    e.columns(self.columns, |at, lanes| {
                        to.store(e, row, e.add(self.column, at), lanes, self.space.load(e, row, at, lanes));
                    });
                    let found = largest(e, self.space, row, e.int(0), self.columns);
                    let place = maxima.at(e, row, e.div(self.column, e.int(*columns)));
                    e.store_scalar(place, maxima.dtype, found);
                });
            }
        }
    }

    /// Puts the unit's products, rounded, into the space for them.
    fn keep(&self, e: &Emit<'c, '_>, group: &Group<'c>, tile: Tile, rows: (Int<'c>, Int<'c>)) {
        let dtype = group.products[0].dtype;
        let panel = |at: Int<'c>, count: u32| {
            let take = |row, products: &[VectorValue<'c>]| {
                e.store(self.space.at(e, row, at), self.space.dtype, count, e.round(dtype, products[0]));
            };
            self.operands.panel(e, rows, e.add(self.column, at), count, &take);
        };
        let outputs = u64::from(tile.outputs);
        let whole = self.columns / outputs * outputs;
        e.step_by(e.int(0), e.int(whole), outputs, |at| panel(at, tile.outputs));
        if whole < self.columns {
            panel(e.int(whole), (self.columns - whole) as u32);
        }
    }
}

impl<'c> Value<'c> {
    /// The elements of a row from a column on, before the last rounding.
    fn lanes(&self, e: &Emit<'c, '_>, products: &[Lanes<'c>], at: (Int<'c>, Int<'c>, u32)) -> Lanes<'c> {
        match self {
            Self::Product(index) => products[*index],
            Self::Tensor(rows) => e.load_piece(rows.at(e, at.0, at.1), rows.dtype, at.2),
            Self::Apply(lowered, operands, _) => {
                let rounded = |value: &Self| {
                    let lanes = value.lanes(e, products, at);
                    match value {
                        Self::Apply(_, _, dtype) => e.round(*dtype, lanes),
                        Self::Product(_) | Self::Tensor(_) => lanes,
                    }
                };
                lowered(e, &operands.iter().map(rounded).collect::<Vec<_>>())
            }
        }
    }
}
