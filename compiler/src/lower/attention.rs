//! Grouped-query attention over the paged cache, with or without rotary positions, head norms and a window.

use nemo_ir::graph::{BuildError, Value};
use nemo_ir::rope::{Llama3Scaling, RopeTable};
use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::{Symbol, Type};
use nemo_models::{Attention, Rope};

use super::block::Lowering;
use super::vector;

pub(super) fn lower(lowering: &mut Lowering, attention: &Attention, x: Value) -> Result<Value, BuildError> {
    let context = lowering.context;
    let hidden = context.hidden;
    let mut q = lowering.product(x, &attention.q, attention.q_width(), hidden)?;
    let mut k = lowering.product(x, &attention.k, attention.kv_width(), hidden)?;
    let v = lowering.product(x, &attention.v, attention.kv_width(), hidden)?;

    if let Some(norm) = &attention.qk_norm {
        let attrs = vec![norm.eps.into(), attention.head_dim.into(), context.activations.into()];
        for (value, tensor) in [(&mut q, &norm.q_tensor), (&mut k, &norm.k_tensor)] {
            let weight = lowering.builder.weight(tensor, vector(attention.head_dim));
            *value = lowering.builder.op("rms_norm", &[*value, weight], attrs.clone())?;
        }
    }
    if let Some(rope) = &attention.rope {
        let table = lowering.builder.table(table(rope, attention.head_dim, context.max_context));
        for value in [&mut q, &mut k] {
            *value = lowering.builder.op("rope", &[*value, table], vec![context.activations.into()])?;
        }
    }

    let pages = Type::new(
        context.activations,
        [
            Symbol::N.into(),
            2.into(),
            attention.kv_heads.into(),
            PAGE_TOKENS.into(),
            attention.head_dim.into(),
        ],
    );
    let kv = lowering.state("kv", pages);
    let kv = lowering.builder.op("kv_append", &[k, v, kv], vec![])?;
    let scale = (attention.head_dim as f64).powf(-0.5);
    let attrs = vec![scale.into(), attention.window.unwrap_or(0).into(), context.activations.into()];
    let y = lowering.builder.op("paged_attention", &[q, kv], attrs)?;
    lowering.product(y, &attention.o, hidden, attention.q_width())
}

fn table(rope: &Rope, head_dim: u64, positions: u64) -> RopeTable {
    let scaling = rope.scaling.as_ref().map(|scaling| Llama3Scaling {
        factor: scaling.factor,
        low_freq_factor: scaling.low_freq_factor,
        high_freq_factor: scaling.high_freq_factor,
        original_context: scaling.original_context,
    });
    RopeTable { theta: rope.theta, head_dim, positions, scaling }
}
