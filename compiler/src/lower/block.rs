//! A block of the model: parts that each add to the residual stream.

use std::collections::HashMap;

use nemo_ir::graph::{Block, BlockBuilder, BuildError, Value};
use nemo_ir::types::Type;
use nemo_models::{Mixer, Norm};

use super::{Context, attention, ffn, linear, scan, vector};

/// A graph block in the making.
pub(super) struct Lowering {
    pub(super) context: Context,
    pub(super) builder: BlockBuilder,
    states: HashMap<&'static str, usize>,
}

impl Lowering {
    pub(super) fn new(context: Context, name: &str) -> Self {
        Self { context, builder: BlockBuilder::new(name), states: HashMap::new() }
    }

    /// State of one mixer; the second of a kind in a block is called `kv_1`.
    pub(super) fn state(&mut self, kind: &'static str, ty: Type) -> Value {
        let count = self.states.entry(kind).or_default();
        let name = if *count == 0 { kind.to_owned() } else { format!("{kind}_{count}") };
        *count += 1;
        self.builder.state(name, ty)
    }

    /// RMSNorm of each row of `x` as one group.
    pub(super) fn norm(&mut self, x: Value, norm: &Norm) -> Result<Value, BuildError> {
        let hidden = self.context.hidden;
        let weight = self.builder.weight(&norm.tensor, vector(hidden));
        let attrs = vec![norm.eps.into(), hidden.into(), self.context.activations.into()];
        self.builder.op("rms_norm", &[x, weight], attrs)
    }

    /// The product of `x`, `columns` wide, with the transposed `[rows, columns]` matrix `tensor`.
    pub(super) fn product(
        &mut self,
        x: Value,
        tensor: &str,
        rows: u64,
        columns: u64,
    ) -> Result<Value, BuildError> {
        let weight = self.builder.weight(tensor, self.context.matrix(rows, columns));
        self.builder.op("linear", &[x, weight], vec![self.context.activations.into()])
    }
}

pub(super) fn lower(context: Context, block: &nemo_models::Block) -> Result<Block, BuildError> {
    let mut lowering = Lowering::new(context, &block.name);
    let mut x = lowering.builder.input("x", context.stream());
    for part in &block.parts {
        let normed = lowering.norm(x, &part.norm)?;
        let y = match &part.mixer {
            Mixer::Attention(attention) => attention::lower(&mut lowering, attention, normed)?,
            Mixer::Mamba2(mamba) => scan::lower(&mut lowering, mamba, normed)?,
            Mixer::Ffn(ffn) => ffn::lower(&mut lowering, ffn, normed)?,
            Mixer::Linear(linear) => linear::lower(&mut lowering, linear, normed)?,
        };
        x = lowering.builder.op("add", &[x, y], vec![context.activations.into()])?;
    }
    lowering.builder.output("x", x);
    Ok(lowering.builder.finish())
}
