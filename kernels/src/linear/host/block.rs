//! How a product's work is cut: into blocks of rows that stay in cache, and columns that threads share.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use super::epilogue::Unit;
use super::plan::{Group, Input, Plan};
use super::tile::{Operands, Tile};
use crate::host::{Emit, Int, Rows};

/// Bytes of x that stay in the second-level cache while W streams past; also the most of a normed x that
/// lies on the stack.
const X_BLOCK_BYTES: u64 = 512 << 10;
/// Bytes of products that wait on the stack, where more than one is needed at once.
const PRODUCT_BYTES: u64 = 128 << 10;

/// Rows at this distance fall into the same few sets of the first-level cache, and a tile's rows of x and W
/// push one another out: such an x is copied to rows that lie a line further apart.
const ALIASING_BYTES: u64 = 4096;

pub(super) fn product(e: &Emit<'_, '_>) -> Result<(), String> {
    let plan = Plan::of(e)?;
    let tile = Tile::of(e);
    check(&plan, tile)?;
    let rows = e.dim(plan.rows);
    // Rows before a block's first whose products the block needs, too.
    let past = plan.groups.iter().map(Group::past).max().unwrap_or(0);
    let kept = plan.groups.iter().map(|group| group.kept(e)).max().unwrap_or(0);
    let block = rows_of_block(e, &plan, tile, past, kept)?;
    let moved = match &plan.x {
        Input::Stored(x) => copies(&plan, x, tile, past),
        Input::Normed(..) => true,
    };
    let own = moved.then(|| {
        let dtype = plan.x.dtype();
        let aliases = (plan.k * dtype.bytes()).is_multiple_of(ALIASING_BYTES);
        let width = if aliases { plan.k + 64 / dtype.bytes() } else { plan.k };
        e.scratch_rows(dtype, block + past, width)
    });
    let space = e.scratch_rows(Dtype::F32, block + past, kept);
    let shares = shares(e, &plan, tile);
    e.step_by(e.int(0), rows, block, |first| {
        let end = e.min(e.plus(first, block), rows);
        let from = if past == 0 { first } else { e.max(e.sub(first, e.int(past)), e.int(0)) };
        let own = own.map(|own| own.from(from, e.int(0)));
        let x = match (&plan.x, own) {
            (Input::Stored(x), None) => *x,
            (Input::Stored(x), Some(own)) => {
                e.each(from, end, |row| {
                    e.columns(plan.k, |at, lanes| own.store(e, row, at, lanes, x.load(e, row, at, lanes)));
                });
                own
            }
            (Input::Normed(normed, _), Some(own)) => {
                e.each(from, end, |row| normed.row(e, row, own));
                own
            }
            (Input::Normed(..), None) => unreachable!("a norm has its space"),
        };
        for (group, share) in plan.groups.iter().zip(&shares) {
            let operands = Operands { x, k: plan.k, products: &group.products };
            let width = group.unit(e, tile);
            let run = |index, columns| {
                let unit = Unit {
                    operands,
                    rows: (from, first, end),
                    column: e.times(index, width),
                    columns,
                    space: space.from(from, e.int(0)),
                };
                unit.run(e, group, tile);
            };
            each_unit(e, *share, (group.width, width), run);
        }
    });
    Ok(())
}

fn check(plan: &Plan<'_>, tile: Tile) -> Result<(), String> {
    for group in &plan.groups {
        let first = group.products[0];
        if group.products.iter().any(|product| product.weight.dtype != first.weight.dtype) {
            return Err("weights of different dtypes meet in one value".to_owned());
        }
        if group.products.len() > tile.outputs as usize {
            return Err(format!("{} products meet in one value", group.products.len()));
        }
    }
    Ok(())
}

/// Whether a stored x is copied block by block: not where the few rows that fit the stack would have W
/// streamed more often.
fn copies(plan: &Plan<'_>, x: &Rows<'_>, tile: Tile, past: u64) -> bool {
    let fitting = X_BLOCK_BYTES / (plan.k * x.dtype.bytes()).max(1);
    (x.stride * x.dtype.bytes()).is_multiple_of(ALIASING_BYTES) && fitting >= 4 * u64::from(tile.rows) + past
}

/// Rows of x that are worked on while W streams past once.
fn rows_of_block(e: &Emit<'_, '_>, plan: &Plan<'_>, tile: Tile, past: u64, kept: u64) -> Result<u64, String> {
    let step = u64::from(tile.rows);
    // Rows on the stack are filled up to whole registers.
    let lanes = u64::from(e.width());
    let row_bytes = (plan.k.next_multiple_of(lanes) * plan.x.dtype().bytes()).max(1);
    let kept = kept.next_multiple_of(lanes);
    let fitting = X_BLOCK_BYTES / row_bytes;
    let mut block = match plan.x {
        Input::Stored(x) if !copies(plan, &x, tile, past) => fitting.max(1).next_multiple_of(step),
        Input::Stored(_) | Input::Normed(..) => fitting.saturating_sub(past) / step * step,
    };
    if kept > 0 {
        block = block.min((PRODUCT_BYTES / (4 * kept)).saturating_sub(past) / step * step);
    }
    if block == 0 {
        return Err(format!(
            "{} rows of {} normed columns, or of {kept} products, exceed the {X_BLOCK_BYTES} and \
             {PRODUCT_BYTES} bytes of stack for them",
            step + past,
            plan.k
        ));
    }
    Ok(block)
}

/// This thread's units of each group. A column of any group costs the same, so threads share all columns
/// evenly, and a unit belongs to the thread that its first column falls to.
fn shares<'c>(e: &Emit<'c, '_>, plan: &Plan<'c>, tile: Tile) -> Vec<(Int<'c>, Int<'c>)> {
    let total = plan.groups.iter().map(|group| group.width).sum();
    let (from, to) = e.share(e.int(total));
    let mut next = 0;
    let of_group = |group: &Group<'c>| {
        let (base, unit) = (next, group.unit(e, tile));
        next += group.width;
        let bound = |column| {
            let inside = e.max(e.sub(column, e.int(base)), e.int(0));
            let unit_of = e.div(e.plus(inside, unit - 1), e.int(unit));
            e.min(unit_of, e.int(group.width.div_ceil(unit)))
        };
        (bound(from), bound(to))
    };
    plan.groups.iter().map(of_group).collect()
}

/// Runs `body` for this thread's units with the columns of each: whole ones, and a shorter one at the end.
fn each_unit<'c>(
    e: &Emit<'c, '_>,
    (from, to): (Int<'c>, Int<'c>),
    (width, unit): (u64, u64),
    body: impl Fn(Int<'c>, u64),
) {
    let whole = width / unit;
    e.each(from, e.min(to, e.int(whole)), |index| body(index, unit));
    if whole * unit < width {
        let last = e.int(whole);
        let mine = e.and(e.cmp(IntPredicate::SLE, from, last), e.cmp(IntPredicate::SGT, to, last));
        e.when(mine, || body(last, width - whole * unit));
    }
}
