//! Keys and values on their way to the cache, either of them rotated where the chain says so.

use inkwell::IntPredicate;
use nemo_ir::plan::Extent;

use super::cache::{Cache, Place};
use super::rope::{self, Angles};
use crate::nvptx::{Chain, Emit, Kernel, Link, Written, geometry};
use crate::spec::KernelSpec;

/// The most threads of a CTA.
const THREADS: u64 = 128;
/// The operands by the part of a page that they go to.
const PARTS: [&str; 2] = ["k", "v"];

/// How a thread takes one of the parts.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Elements of an access.
    vector: u32,
    /// Stretches of a head that threads take: of pairs where the part is rotated, of elements otherwise.
    stretches: u64,
    rotated: bool,
}

pub(super) fn kernel(spec: &KernelSpec, chain: &Chain) -> Result<Kernel, String> {
    let cache = Cache::of(spec)?;
    let link = chain.links.last().ok_or("the chain is empty")?;
    let mut parts = Vec::new();
    for name in PARTS {
        let rope = rotation(chain, link, name);
        let x = rope.map_or_else(|| spec.layout_of(link, name), |rope| spec.layout_of(rope, "x"))?;
        let vector = x.vector().min(cache.vector);
        let vector = if rope.is_some() { rope::vector(cache.head_dim, vector) } else { vector };
        let elements = if rope.is_some() { cache.head_dim / 2 } else { cache.head_dim };
        parts.push(Part { vector, stretches: elements / u64::from(vector), rotated: rope.is_some() });
    }
    let items = parts.iter().map(|part| part.stretches * cache.heads).max().unwrap_or(0);
    let threads = items.next_multiple_of(32).min(THREADS);
    let rows = geometry::rows(spec.operands[0].ty.shape[0]);
    let grid = [Extent::Const(items.div_ceil(threads)), rows, Extent::Const(PARTS.len() as u64)];
    let geometry = geometry::of(grid, threads as u32);
    Ok(Kernel::new(geometry, move |e| {
        let chain = e.chain();
        let link = chain.links.last().ok_or("the chain is empty")?;
        let place = Place::of_row(e, cache, e.cta(1));
        let mut done = Ok(());
        e.when(place.exists(e), || {
            for (index, (part, name)) in parts.iter().zip(PARTS).enumerate() {
                let mine = e.cmp(IntPredicate::EQ, e.cta(2), e.word(index as u32));
                e.when(mine, || {
                    let appended = append(e, cache, (&chain, link), (index as u64, name, *part), place);
                    done = std::mem::replace(&mut done, Ok(())).and(appended);
                });
            }
        });
        done
    }))
}

/// The rotation that gives a part.
fn rotation<'a>(chain: &'a Chain, link: &Link, name: &str) -> Option<&'a Link> {
    link.source(name).and_then(|source| chain.giver(source))
}

/// One part of the row.
fn append<'c>(
    e: &Emit<'c, '_>,
    cache: Cache,
    (chain, link): (&Chain, &Link),
    (index, name, part): (u64, &str, Part),
    place: Place<'c>,
) -> Result<(), String> {
    let rope = rotation(chain, link, name);
    let x = rope.map_or_else(|| e.taken(link, name), |rope| e.taken(rope, "x"))?;
    let angles = rope.map(|rope| Angles::of(e, rope)).transpose()?;
    let Part { vector, stretches, rotated } = part;
    let row = e.cta(1);
    let item = e.add(e.times(e.cta(0), e.threads().into()), e.thread());
    e.when(e.cmp(IntPredicate::ULT, item, e.word((stretches * cache.heads) as u32)), || {
        let head = e.div(item, e.word(stretches as u32));
        let first = e.times(e.rem(item, e.word(stretches as u32)), vector.into());
        let column = |half: u64| e.plus(first, half * (cache.head_dim / 2));
        let load = |half| {
            let at = e.add(e.times(head, cache.head_dim), column(half));
            let from = e.at(e.row(x, row), x.1.dtype(), at);
            e.load(from, x.1.dtype(), (vector, vector), Written::Now)
        };
        let store = |half, values: &[_]| {
            e.store(place.at(e, index, head, column(half)), cache.dtype, values, vector);
        };
        match angles.filter(|_| rotated) {
            Some(angles) => {
                let (low, high) = (load(0), load(1));
                let turns = angles.turns(e, row, first, (vector, vector));
                let [low, high] = turns.rotate_all(e, [&low, &high]);
                store(0, &low);
                store(1, &high);
            }
            None => store(0, &load(0)),
        }
    });
    Ok(())
}
