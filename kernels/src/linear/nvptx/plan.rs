//! What a chain around products comes to, without LLVM: which columns of which weights are computed together, and where
//! they go.
//!
//! Places are arguments of the kernel. What is decided here is enough for a geometry; [`super::strips`] and
//! [`super::epilogue`] write the code.

use nemo_ir::ops::Source;
use nemo_ir::types::{Dim, Dtype};

use super::sink::{Angles, Cache, Sink, Taps, Value};
use crate::nvptx::{Chain, Emit, Int, Link, Ptr, pointwise};
use crate::spec::{KernelSpec, Layout};

/// The whole kernel.
pub(super) struct Plan {
    pub x: Input,
    /// How many rows.
    pub rows: Dim,
    /// The width of x.
    pub k: u64,
    /// In the order of the results.
    pub groups: Vec<Group>,
}

/// A tensor among the kernel's arguments.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub arg: usize,
    pub layout: Layout,
}

/// x as the products read it.
pub(super) struct Input {
    pub x: Rows,
    /// The argument that says which rows of x there are, where it is not all of them; -1 is a row of zeros.
    pub indices: Option<usize>,
    /// What is done to the rows.
    pub norm: Option<Norm>,
}

/// A norm of rows.
pub(super) struct Norm {
    /// x is multiplied by silu of this before.
    pub gate: Option<Rows>,
    /// The argument that holds its weight, f32.
    pub weight: Rows,
    /// One group's width of weights serves every group.
    pub shared: bool,
    /// Columns that share a scale.
    pub group: u64,
    pub eps: f64,
    /// What the normed rows are rounded to.
    pub dtype: Dtype,
}

/// Products of the same columns, which meet in one sink.
pub(super) struct Group {
    pub products: Vec<Product>,
    /// Columns of each.
    pub width: u64,
    pub sink: Sink,
}

/// Some columns of a product.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub weight: Rows,
    /// The weight's row that gives the first of them.
    pub first: u64,
    /// What the product is rounded to.
    pub dtype: Dtype,
    width: u64,
}

impl Rows {
    pub fn new(arg: usize, layout: &Layout) -> Self {
        Self { arg, layout: layout.clone() }
    }

    /// The operand of a step of the chain.
    pub fn taken(spec: &KernelSpec, link: &Link, name: &str) -> Result<Self, String> {
        let what = || format!("`{name}` of `{}` inside `{}` is no operand", link.op.name, spec.op.name);
        spec.given(link.source(name)).map(|arg| Self::new(arg, &spec.operands[arg])).ok_or_else(what)
    }

    /// The result of that index in the table.
    fn result(spec: &KernelSpec, index: usize) -> Self {
        let place = spec.result_place(index);
        Self::new(spec.operands.len() + place, &spec.results[place])
    }

    pub fn dtype(&self) -> Dtype {
        self.layout.dtype()
    }

    /// Columns, where they are constant.
    pub fn width(&self) -> Option<u64> {
        self.layout.ty.width()
    }

    /// The address of an element.
    pub fn at<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, column: Int<'c>) -> Ptr<'c> {
        e.at(e.row((e.arg(self.arg), &self.layout), row), self.dtype(), column)
    }
}

impl Input {
    /// What the products take.
    pub fn dtype(&self) -> Dtype {
        self.norm.as_ref().map_or(self.x.dtype(), |norm| norm.dtype)
    }

    /// Of a step's `x`: the input, how many rows, and their width.
    fn of(spec: &KernelSpec, chain: &Chain, link: &Link) -> Result<(Self, Dim, u64), String> {
        let source = link.source("x").ok_or("there is no x")?;
        match chain.giver(source) {
            None => {
                let x = Rows::taken(spec, link, "x")?;
                let k = x.width().ok_or("the width of x is not constant")?;
                let rows = x.layout.ty.shape[0];
                Ok((Self { x, indices: None, norm: None }, rows, k))
            }
            Some(gather) if gather.op.name == "gather_rows" => {
                let (x, indices) = (Rows::taken(spec, gather, "x")?, Rows::taken(spec, gather, "rows")?);
                let k = x.width().ok_or("the width of x is not constant")?;
                let rows = indices.layout.ty.shape[0];
                Ok((Self { x, indices: Some(indices.arg), norm: None }, rows, k))
            }
            Some(norm) if matches!(norm.op.name, "rms_norm" | "gated_rms_norm") => {
                let (inner, rows, k) = Self::of(spec, chain, norm)?;
                if inner.norm.is_some() {
                    return Err("a norm of a norm before a product".to_owned());
                }
                let gated = norm.op.name == "gated_rms_norm";
                let gate = gated.then(|| Rows::taken(spec, norm, "gate")).transpose()?;
                let weight = Rows::taken(spec, norm, "weight")?;
                let group = norm.int("group");
                let shared = weight.width() == Some(group);
                let (eps, dtype) = (norm.float("eps"), norm.dtype());
                let norm = Norm { gate, weight, shared, group, eps, dtype };
                Ok((Self { norm: Some(norm), ..inner }, rows, k))
            }
            Some(other) => Err(format!("a product of `{}` in one kernel", other.op.name)),
        }
    }
}

impl Plan {
    pub fn of(spec: &KernelSpec, chain: &Chain) -> Result<Self, String> {
        let linear = chain.find(&["linear"]).ok_or("the chain has no product")?;
        let x = linear.source("x");
        if chain.links.iter().any(|link| link.op.name == "linear" && link.source("x") != x) {
            return Err("products of different x in one kernel".to_owned());
        }
        let (x, rows, k) = Input::of(spec, chain, linear)?;
        let plan = Self { x, rows, k, groups: groups(spec, chain)? };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        for group in &self.groups {
            let first = &group.products[0].weight.layout;
            for product in &group.products {
                let layout = &product.weight.layout;
                if (layout.dtype(), layout.row_stride) != (first.dtype(), first.row_stride) {
                    return Err("weights of different layouts meet in one value".to_owned());
                }
                if product.width != group.width {
                    return Err("products of different widths meet in one value".to_owned());
                }
            }
        }
        Ok(())
    }
}

fn groups(spec: &KernelSpec, chain: &Chain) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let maxima = chain.find(&["tile_max"]);
    let of_maxima = |index| maxima.is_some_and(|link| chain.result(link, 0) == Some(index));
    for (index, source) in chain.results.iter().enumerate() {
        if spec.op.superseded(index).is_none() && !of_maxima(index) {
            groups.push(result(spec, chain, *source, Rows::result(spec, index))?);
        }
    }
    if let Some(link) = maxima {
        let source = link.source("x").ok_or("maxima are of something")?;
        let product = product(spec, chain, source)?;
        let place = |source| chain.results.iter().position(|result| *result == source);
        let columns = place(source).ok_or("the maxima of what is no result")?;
        let own = chain.result(link, 0).ok_or("maxima that are no result")?;
        if groups.len() != 1 {
            return Err("tile maxima beside other results".to_owned());
        }
        let (to, maxima) = (Rows::result(spec, columns), Rows::result(spec, own));
        // The columns leave together with their maxima.
        let sink = Sink::Maxima { tile: link.int("tile"), to, maxima };
        groups = vec![Group { width: product.width, products: vec![product], sink }];
    }
    if let Some(append) = chain.find(&["kv_append"]) {
        for (part, name) in (0..).zip(["k", "v"]) {
            let source = append.source(name).ok_or("the cache takes keys and values")?;
            let (angles, product) = rotated(spec, chain, source)?;
            let sink = Sink::Cache { angles, cache: Cache::of(spec, append)?, part };
            groups.push(Group { width: product.width, products: vec![product], sink });
        }
    }
    Ok(groups)
}

/// What becomes a result.
fn result(spec: &KernelSpec, chain: &Chain, source: Source, to: Rows) -> Result<Group, String> {
    let giver = chain.giver(source).ok_or("a result is computed")?;
    let (product, sink) = match giver.op.name {
        "rope" => {
            let (angles, product) = rotated(spec, chain, source)?;
            (product, Sink::Rotated { angles: angles.ok_or("a rotation has angles")?, to })
        }
        "causal_conv1d" => {
            let x = giver.source("x").ok_or("the convolution has an x")?;
            (product(spec, chain, x)?, Sink::Conv { taps: Taps::of(spec, giver)?, to })
        }
        _ => {
            let mut products = Vec::new();
            let value = value(spec, chain, source, &mut products)?;
            let width = products.first().ok_or("a result without a product")?.width;
            return Ok(Group { products, width, sink: Sink::Map { value, to } });
        }
    };
    Ok(Group { width: product.width, products: vec![product], sink })
}

/// A product, or its rotation.
fn rotated(spec: &KernelSpec, chain: &Chain, source: Source) -> Result<(Option<Angles>, Product), String> {
    match chain.giver(source) {
        Some(rope) if rope.op.name == "rope" => {
            let x = rope.source("x").ok_or("a rotation has an x")?;
            Ok((Some(Angles::of(spec, rope)?), product(spec, chain, x)?))
        }
        _ => Ok((None, product(spec, chain, source)?)),
    }
}

/// A product, or some of its columns.
fn product(spec: &KernelSpec, chain: &Chain, source: Source) -> Result<Product, String> {
    let giver = chain.giver(source).ok_or("an operand stands where a product should")?;
    match giver.op.name {
        "linear" => {
            let weight = Rows::taken(spec, giver, "weight")?;
            match weight.layout.ty.shape[0] {
                Dim::Const(width) => Ok(Product { weight, first: 0, dtype: giver.dtype(), width }),
                Dim::Symbolic { .. } => Err("the weight's shape is not constant".to_owned()),
            }
        }
        "slice" => {
            let of = product(spec, chain, giver.source("x").ok_or("a slice has an x")?)?;
            Ok(Product { first: of.first + giver.int("offset"), width: giver.int("width"), ..of })
        }
        other => Err(format!("`{other}` after a product")),
    }
}

fn value(
    spec: &KernelSpec,
    chain: &Chain,
    source: Source,
    products: &mut Vec<Product>,
) -> Result<Value, String> {
    if let Some(arg) = spec.given(Some(source)) {
        return Ok(Value::Tensor(Rows::new(arg, &spec.operands[arg])));
    }
    let giver = chain.giver(source).ok_or("a value is computed where it is no operand")?;
    if let Some(lowered) = pointwise(giver.op.name) {
        let mut values = Vec::new();
        for source in giver.values() {
            values.push(value(spec, chain, source, products)?);
        }
        return Ok(Value::Apply(lowered, values, giver.dtype()));
    }
    products.push(product(spec, chain, source)?);
    Ok(Value::Product(products.len() - 1))
}
