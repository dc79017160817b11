//! The two ends of a program: token ids to the residual stream, and the stream to logits and tokens.

use nemo_ir::graph::{Block, BlockBuilder, BuildError};
use nemo_ir::types::Dtype;
use nemo_models::Model;

use super::Context;
use super::block::Lowering;

pub(super) fn embed(context: Context, model: &Model, name: &str) -> Result<Block, BuildError> {
    let mut builder = BlockBuilder::new(name);
    let table = builder.weight(&model.embedding.tensor, context.matrix(model.vocab, model.hidden));
    let x = builder.op("embed", &[table], vec![context.activations.into()])?;
    builder.output("x", x);
    Ok(builder.finish())
}

pub(super) fn head(context: Context, model: &Model, name: &str) -> Result<Block, BuildError> {
    let mut lowering = Lowering::new(context, name);
    let x = lowering.builder.input("x", context.stream());
    let rows = lowering.builder.op("gather_rows", &[x], vec![])?;
    let normed = lowering.norm(rows, &model.head.norm)?;
    let tensor = model.head.tensor.as_ref().unwrap_or(&model.embedding.tensor);
    let mut builder = lowering.builder;
    let matrix = builder.weight(tensor, context.matrix(model.vocab, model.hidden));
    let logits = builder.op("linear", &[normed, matrix], vec![Dtype::F32.into()])?;
    let next = builder.op("sample", &[logits], vec![])?;
    builder.output("logits", logits);
    builder.output("next", next);
    Ok(builder.finish())
}
