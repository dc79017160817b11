//! What goes into the artifact.

use nemo_ir::artifact::{Contents, TargetContents};
use nemo_ir::types::Dtype;
use nemo_models::Model;

use crate::compile::CompiledTarget;
use crate::lower;

/// Name and version, as manifests give them.
const COMPILER: &str = concat!("nemoc ", env!("CARGO_PKG_VERSION"));

/// Gathers the entries; nothing in them depends on the machine or the time of the compilation.
pub(crate) fn contents(model: &Model, activations: Dtype, targets: &[CompiledTarget]) -> Contents {
    let fused = |compiled: &CompiledTarget| {
        compiled.programs.iter().map(|ranged| (ranged.label(), ranged.program.to_string())).collect()
    };
    Contents {
        model: model.name.clone(),
        compiler: COMPILER.to_owned(),
        weights: lower::stored(model.dtype),
        activations,
        model_toml: model.to_toml(),
        targets: targets
            .iter()
            .map(|compiled| TargetContents {
                name: compiled.target.to_string(),
                cpu_features: compiled.target.cpu_features(),
                plan: compiled.planned.plan.clone(),
                object: compiled.object.elf.clone(),
                fused: fused(compiled),
                explain: None,
            })
            .collect(),
    }
}
