//! What goes into the artifact.

use nemo_ir::artifact::{ArtifactError, Contents, Needs, TargetContents};
use nemo_ir::types::Dtype;
use nemo_kernels::nvptx;
use nemo_kernels::target::Target;
use nemo_models::Model;

use crate::compile::{Code, CompiledTarget};
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
        let (needs, object, cubin) = match (&compiled.target, &compiled.code) {
            (Target::Host(host), Some(Code::Host(object))) => {
                (Needs::Host { cpu_features: host.cpu_features() }, object.elf.clone(), None)
            }
            (Target::Gpu(sm), Some(Code::Gpu(module, assembled))) => {
                let cubin = assembled.as_ref().map(|assembled| assembled.cubin.clone());
                (Needs::Cuda(nvptx::needs(*sm)), module.ptx.clone().into_bytes(), cubin)
            }
            _ => continue,
        };
        let programs = compiled.programs.iter();
        let mut explain = serde_json::to_string_pretty(&compiled.explanation)
            .map_err(|error| ArtifactError::Contents(format!("the explanation: {error}")))?;
        explain.push('\n');
        packed.push(TargetContents {
            name: compiled.target.to_string(),
            needs,
            cubin,
            plan: compiled.planned.plan.clone(),
            object,
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
