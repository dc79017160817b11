//! What goes into the artifact.

use nemo_ir::artifact::{ArtifactError, Contents, Needs, TargetContents};
use nemo_ir::types::Dtype;
use nemo_kernels::target::Target;
use nemo_models::Model;

use crate::compile::CompiledTarget;
use crate::lower;

/// Name and version, as manifests give them.
const COMPILER: &str = concat!("nemoc ", env!("CARGO_PKG_VERSION"));

/// Gathers the entries of the targets that have kernels; nothing in them depends on the machine or the time of the
/// compilation.
pub(crate) fn contents(
    model: &Model,
    activations: Dtype,
    targets: &[CompiledTarget],
) -> Result<Contents, ArtifactError> {
    let mut packed = Vec::with_capacity(targets.len());
    for compiled in targets {
        let (Target::Host(host), Some(object)) = (&compiled.target, &compiled.object) else { continue };
        let programs = compiled.programs.iter();
        let mut explain = serde_json::to_string_pretty(&compiled.explanation)
            .map_err(|error| ArtifactError::Contents(format!("the explanation: {error}")))?;
        explain.push('\n');
        packed.push(TargetContents {
            name: host.to_string(),
            needs: Needs::Host { cpu_features: host.cpu_features() },
            cubin: None,
            plan: compiled.planned.plan.clone(),
            object: object.elf.clone(),
            fused: programs.map(|ranged| (ranged.label(), ranged.program.to_string())).collect(),
            explain: Some(explain),
        });
    }
    Ok(Contents {
        model: model.name.clone(),
        compiler: COMPILER.to_owned(),
        weights: lower::stored(model.dtype),
        activations,
        model_toml: model.to_toml(),
        targets: packed,
    })
}
