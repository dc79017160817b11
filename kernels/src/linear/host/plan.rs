//! What a chain around products comes to: which columns of which weights are computed together, and where
//! they go.

use nemo_ir::ops::Source;
use nemo_ir::types::{Dim, Dtype};

use crate::attention::host::cache::Cache;
use crate::attention::host::rope::Angles;
use crate::host::{Chain, Emit, Link, Pointwise, Ptr, Rows, pointwise};
use crate::norm::host::Normed;
use crate::scan::host::conv::Taps;

/// The whole kernel.
pub(super) struct Plan<'c> {
    /// x as the products read it, or what gives it.
    pub x: Input<'c>,
    /// How many rows.
    pub rows: Dim,
    /// Its width.
    pub k: u64,
    /// In the order of the results.
    pub groups: Vec<Group<'c>>,
}

pub(super) enum Input<'c> {
    /// A tensor.
    Stored(Rows<'c>),
    /// A norm, rounded to that dtype.
    Normed(Normed<'c>, Dtype),
}

impl Input<'_> {
    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Self::Stored(rows) => rows.dtype,
            Self::Normed(_, dtype) => *dtype,
        }
    }
}

/// Products of the same columns, which meet in one sink.
pub(super) struct Group<'c> {
    pub products: Vec<Product<'c>>,
    /// Columns of each.
    pub width: u64,
    pub sink: Sink<'c>,
}

/// Some columns of a product.
#[derive(Clone, Copy)]
pub(super) struct Product<'c> {
    /// The weight's rows that belong to them.
    pub weight: Rows<'c>,
    /// What the product is rounded to.
    pub dtype: Dtype,
    width: u64,
}

/// Where a group goes.
pub(super) enum Sink<'c> {
    /// Element by element into a result.
    Map(Value<'c>, Rows<'c>),
    /// Head by head, maybe rotated.
    Heads(Option<Angles<'c>>, Heads<'c>),
    /// Through the convolution of each sequence into a result.
    Conv(Taps<'c>, Rows<'c>),
    /// Into a result, and the largest of each tile of so many columns into another.
    Maxima(u64, Rows<'c>, Rows<'c>),
}

/// Where heads go.
pub(super) enum Heads<'c> {
    /// Into a result, of heads as wide as the angles.
    Result(Rows<'c>),
    /// Into the cache, as keys (part 0) or values (part 1).
    Cache(Cache, u64),
}

/// An element as an expression of the products at its place.
pub(super) enum Value<'c> {
    /// One of the group's products.
    Product(usize),
    /// The element of a tensor.
    Tensor(Rows<'c>),
    /// An element-wise op, rounded to a dtype.
    Apply(Pointwise, Vec<Value<'c>>, Dtype),
}

impl<'c> Plan<'c> {
    pub(super) fn of(e: &Emit<'c, '_>) -> Result<Self, String> {
        let chain = &e.chain();
        let linear = chain.find(&["linear"]).ok_or("the chain has no product")?;
        let x = linear.source("x").ok_or("a product has an x")?;
        let of_other = |link: &Link| link.op.name == "linear" && link.source("x") != Some(x);
        if chain.links.iter().any(of_other) {
            return Err("products of different x in one kernel".to_owned());
        }
        let (input, rows, k) = match chain.giver(x) {
            None => {
                let x = e.taken(linear, "x")?;
                let k = x.1.ty.width().ok_or("the width of x is not constant")?;
                (Input::Stored(Rows::of(e, x)), x.1.ty.shape[0], k)
            }
            Some(norm) if norm.op.name.ends_with("rms_norm") => {
                let normed = Normed::of(e, chain, norm)?;
                let (rows, k) = (normed.extent(), normed.width);
                (Input::Normed(normed, norm.dtype()), rows, k)
            }
            Some(other) => return Err(format!("a product of `{}` in one kernel", other.op.name)),
        };
        let mut groups = Vec::new();
        let maxima = chain.find(&["tile_max"]);
        let of_maxima = |index| maxima.is_some_and(|link| chain.result(link, 0) == Some(index));
        for (index, source) in chain.results.iter().enumerate() {
            if e.spec().op.superseded(index).is_none() && !of_maxima(index) {
                groups.push(result(e, chain, *source, Rows::of(e, e.result_at(index)))?);
            }
        }
        if let Some(link) = maxima {
            let source = link.source("x").ok_or("maxima are of something")?;
            let product = product(e, chain, source)?;
            let place = |source| chain.results.iter().position(|result| *result == source);
            let logits = place(source).ok_or("the maxima of what is no result")?;
            let own = chain.result(link, 0).ok_or("maxima that are no result")?;
            let rows = |index| Rows::of(e, e.result_at(index));
            let sink = Sink::Maxima(link.int("tile"), rows(logits), rows(own));
            if groups.len() != 1 {
                return Err("tile maxima beside other results".to_owned());
            }
            // The logits leave together with their maxima.
            groups = vec![Group { width: product.width, products: vec![product], sink }];
        }
        if let Some(append) = chain.find(&["kv_append"]) {
            for (part, name) in (0..).zip(["k", "v"]) {
                let source = append.source(name).ok_or("the cache takes keys and values")?;
                let (angles, product) = rotated(e, chain, source)?;
                let sink = Sink::Heads(angles, Heads::Cache(Cache::of(e)?, part));
                groups.push(Group { width: product.width, products: vec![product], sink });
            }
        }
        Ok(Self { x: input, rows, k, groups })
    }
}

/// What becomes a result.
fn result<'c>(e: &Emit<'c, '_>, chain: &Chain, source: Source, to: Rows<'c>) -> Result<Group<'c>, String> {
    let giver = chain.giver(source).ok_or("a result is computed")?;
    let (product, sink) = match giver.op.name {
        "rope" => {
            let (angles, product) = rotated(e, chain, source)?;
            (product, Sink::Heads(angles, Heads::Result(to)))
        }
        "causal_conv1d" => {
            let x = giver.source("x").ok_or("the convolution has an x")?;
            (product(e, chain, x)?, Sink::Conv(Taps::of(e, giver)?, to))
        }
        _ => {
            let mut products = Vec::new();
            let value = value(e, chain, source, &mut products)?;
            let width = products.first().ok_or("a result without a product")?.width;
            return Ok(Group { products, width, sink: Sink::Map(value, to) });
        }
    };
    Ok(Group { width: product.width, products: vec![product], sink })
}

/// A product, or its rotation.
fn rotated<'c>(
    e: &Emit<'c, '_>,
    chain: &Chain,
    source: Source,
) -> Result<(Option<Angles<'c>>, Product<'c>), String> {
    match chain.giver(source) {
        Some(rope) if rope.op.name == "rope" => {
            let x = rope.source("x").ok_or("a rotation has an x")?;
            Ok((Some(Angles::of(e, rope)?), product(e, chain, x)?))
        }
        _ => Ok((None, product(e, chain, source)?)),
    }
}

/// A product, or some of its columns.
fn product<'c>(e: &Emit<'c, '_>, chain: &Chain, source: Source) -> Result<Product<'c>, String> {
    let giver = chain.giver(source).ok_or("an operand stands where a product should")?;
    match giver.op.name {
        "linear" => {
            let weight = e.taken(giver, "weight")?;
            match weight.1.ty.shape[0] {
                Dim::Const(width) => Ok(Product { weight: Rows::of(e, weight), dtype: giver.dtype(), width }),
                Dim::Symbolic { .. } => Err("the weight's shape is not constant".to_owned()),
            }
        }
        "slice" => {
            let of = product(e, chain, giver.source("x").ok_or("a slice has an x")?)?;
            let base: Ptr<'c> = of.weight.at(e, e.int(giver.int("offset")), e.int(0));
            Ok(Product { weight: Rows { base, ..of.weight }, width: giver.int("width"), ..of })
        }
        other => Err(format!("`{other}` after a product")),
    }
}

fn value<'c>(
    e: &Emit<'c, '_>,
    chain: &Chain,
    source: Source,
    products: &mut Vec<Product<'c>>,
) -> Result<Value<'c>, String> {
    if let Some(tensor) = e.given(Some(source)) {
        return Ok(Value::Tensor(Rows::of(e, tensor)));
    }
    let giver = chain.giver(source).ok_or("a value is computed where it is no operand")?;
    if let Some(lowered) = pointwise(giver.op.name) {
        let mut values = Vec::new();
        for source in giver.values() {
            values.push(value(e, chain, source, products)?);
        }
        return Ok(Value::Apply(lowered, values, giver.dtype()));
    }
    products.push(product(e, chain, source)?);
    Ok(Value::Product(products.len() - 1))
}
