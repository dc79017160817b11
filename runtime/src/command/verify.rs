//! `nemort verify`.

use std::path::PathBuf;

use clap::Args;
use nemo_ir::artifact::Artifact;

use super::{CommandError, output};
use crate::device::host::{cpu, object};
use crate::device::human_bytes;
use crate::engine::choose_target;
use crate::text::Text;
use crate::weights;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The artifact.
    #[arg(value_name = "OUT.NEMO")]
    artifact: PathBuf,
    /// Directory of a checkpoint to check against it.
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), CommandError> {
    // Opening checks the digest of every entry.
    let artifact = Artifact::open(&args.artifact)?;
    let manifest = artifact.manifest();
    output::line(&format!("model     {} ({})", manifest.model, manifest.compiler))?;
    output::line(&format!("entries   {}, digests right", artifact.entries().count()))?;
    for named in &manifest.targets {
        let target = artifact.target(&named.name)?;
        let kernels = |source| CommandError::Kernels {
            file: artifact.file().to_owned(),
            target: named.name.clone(),
            source,
        };
        let code = object::load(target.object).map_err(kernels)?;
        for kernel in &target.plan.kernels {
            code.function(&kernel.symbol).map_err(kernels)?;
        }
        let missing = cpu::missing(named.needs.cpu_features().unwrap_or_default());
        let here = if missing.is_empty() {
            "this CPU runs it".to_owned()
        } else {
            format!("this CPU lacks {}", missing.join(", "))
        };
        let count = target.plan.kernels.len();
        let size = human_bytes(target.object.len() as u64);
        output::line(&format!("target    {}: {count} kernels in {size} load; {here}", named.name))?;
        if let Some(directory) = &args.weights {
            let bytes = weights::verify(directory, &target.plan.weights)?;
            let count = target.plan.weights.len();
            output::line(&format!("weights   {count} tensors, {}, fit", human_bytes(bytes)))?;
        }
    }
    // An artifact that nothing here can run does not pass.
    let best = choose_target(&artifact, None)?;
    if let Some(directory) =
        args.weights.as_ref().filter(|directory| directory.join("tokenizer.json").exists())
    {
        Text::open(directory, best.limits.vocab)?;
        output::line("tokenizer fits the vocabulary")?;
    }
    output::line(&format!("would run {}", best.name))
}
