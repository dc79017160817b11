//! Model description to graph IR.
//!
//! A file per family of mixers. Every distinct block that a layer uses becomes one block of the graph, and every
//! layer slot that does something becomes a call; a slot without parts leaves no trace but the index of those after
//! it.

mod attention;
mod block;
mod ffn;
mod head;
mod linear;
mod scan;

use nemo_ir::graph::{BuildError, Call, Program};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Symbol, Type};
use nemo_models::Model;
use thiserror::Error;

/// What a model leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowerOptions {
    /// Dtype of the values between ops and of the KV and convolution caches.
    pub activations: Dtype,
    /// Positions that a sequence may reach: the rows of the rotary tables.
    pub max_context: u64,
}

impl LowerOptions {
    /// What the model itself says.
    pub fn of(model: &Model) -> Self {
        Self { activations: stored(model.dtype), max_context: model.max_context }
    }
}

/// A block of the model that the op table does not admit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("block `{block}` of model `{model}` cannot be compiled: {source}")]
pub struct LowerError {
    /// Name of the model.
    pub model: String,
    /// Name of the block.
    pub block: String,
    /// What the op table said.
    pub source: Box<BuildError>,
}

/// What every mixer needs to know.
#[derive(Debug, Clone, Copy)]
struct Context {
    phase: Phase,
    hidden: u64,
    weights: Dtype,
    activations: Dtype,
    max_context: u64,
}

impl Context {
    /// The type of the residual stream.
    fn stream(&self) -> Type {
        Type::new(self.activations, [Symbol::T.into(), self.hidden.into()])
    }

    /// The type of a weight matrix.
    fn matrix(&self, rows: u64, columns: u64) -> Type {
        Type::new(self.weights, [rows.into(), columns.into()])
    }
}

/// The type of a small weight: widened at load, whatever the checkpoint stores.
fn vector(width: u64) -> Type {
    Type::new(Dtype::F32, [width.into()])
}

/// The graph dtype of what a model stores.
pub fn stored(dtype: nemo_models::Dtype) -> Dtype {
    match dtype {
        nemo_models::Dtype::Bf16 => Dtype::Bf16,
        nemo_models::Dtype::F32 => Dtype::F32,
    }
}

/// The graph of one phase of a model.
///
/// # Errors
/// [`LowerError`] when a block has a shape that no op takes; the released systems have none.
pub fn lower(model: &Model, phase: Phase, options: LowerOptions) -> Result<Program, LowerError> {
    let context = Context {
        phase,
        hidden: model.hidden,
        weights: stored(model.dtype),
        activations: options.activations,
        max_context: options.max_context,
    };
    let failed = |block: &str| {
        let (model, block) = (model.name.clone(), block.to_owned());
        move |source| LowerError { model, block, source: Box::new(source) }
    };

    let embed_name = free_name(model, "embed");
    let head_name = free_name(model, "head");
    let mut blocks = vec![head::embed(context, model, &embed_name).map_err(failed(&embed_name))?];
    let mut calls = vec![Call { block: 0, layer: None, prefix: String::new() }];
    let mut places = Vec::with_capacity(model.blocks.len());
    for (index, block) in model.blocks.iter().enumerate() {
        let used = !block.parts.is_empty() && model.layers.contains(&index);
        let place = used.then_some(blocks.len());
        if place.is_some() {
            blocks.push(block::lower(context, block).map_err(failed(&block.name))?);
        }
        places.push(place);
    }
    for (layer, block) in (0u32..).zip(&model.layers) {
        if let Some(block) = places.get(*block).copied().flatten() {
            calls.push(Call { block, layer: Some(layer), prefix: model.layer_tensor(layer as usize, "") });
        }
    }
    calls.push(Call { block: blocks.len(), layer: None, prefix: String::new() });
    blocks.push(head::head(context, model, &head_name).map_err(failed(&head_name))?);
    Ok(Program { phase, blocks, calls })
}

/// `base`, or with a number where a block of the model has that name.
fn free_name(model: &Model, base: &str) -> String {
    let mut name = base.to_owned();
    let mut number = 0;
    while model.blocks.iter().any(|block| block.name == name) {
        number += 1;
        name = format!("{base}_{number}");
    }
    name
}
