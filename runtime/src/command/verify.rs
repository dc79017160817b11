//! `nemort verify`.

use std::path::PathBuf;

use clap::Args;
use nemo_ir::artifact::{Artifact, Needs, Target};

use super::{CommandError, output};
use crate::device::choice::DeviceChoice;
use crate::device::gpu::check_ptx;
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
        output::line(&match &named.needs {
            Needs::Host { cpu_features } => host_target(&artifact, &target, cpu_features)?,
            Needs::Cuda(_) => gpu_target(&artifact, &target)?,
        })?;
        if let Some(directory) = &args.weights {
            let bytes = weights::verify(directory, &target.plan.weights)?;
            let count = target.plan.weights.len();
            output::line(&format!("weights   {count} tensors, {}, fit", human_bytes(bytes)))?;
        }
    }
    // An artifact that nothing here can run does not pass.
    let best = choose_target(&artifact, None, &DeviceChoice::Best)?;
    if let Some(directory) =
        args.weights.as_ref().filter(|directory| directory.join("tokenizer.json").exists())
    {
        Text::open(directory, best.target.limits.vocab)?;
        output::line("tokenizer fits the vocabulary")?;
    }
    let place = best.gpu.map_or_else(String::new, |gpu| format!(" on GPU {gpu}"));
    output::line(&format!("would run {}{place}", best.target.name))
}

/// What there is to say of a target for a CPU, whose code has been loaded.
fn host_target(
    artifact: &Artifact,
    target: &Target<'_>,
    features: &[String],
) -> Result<String, CommandError> {
    let name = &target.manifest.name;
    let kernels =
        |source| CommandError::Kernels { file: artifact.file().to_owned(), target: name.clone(), source };
    let code = object::load(target.object).map_err(kernels)?;
    for kernel in &target.plan.kernels {
        code.function(&kernel.symbol).map_err(kernels)?;
    }
    let missing = cpu::missing(features);
    let here = if missing.is_empty() {
        "this CPU runs it".to_owned()
    } else {
        format!("this CPU lacks {}", missing.join(", "))
    };
    let (count, size) = (target.plan.kernels.len(), human_bytes(target.object.len() as u64));
    Ok(format!("target    {name}: {count} kernels in {size} load; {here}"))
}

/// What there is to say of a target for a GPU: its text names every kernel of the plan. More only a driver knows.
fn gpu_target(artifact: &Artifact, target: &Target<'_>) -> Result<String, CommandError> {
    let name = &target.manifest.name;
    check_ptx(&target.plan, target.object).map_err(|source| CommandError::GpuKernels {
        file: artifact.file().to_owned(),
        target: name.clone(),
        source,
    })?;
    let here = match choose_target(artifact, Some(name), &DeviceChoice::Cuda(None)) {
        Ok(choice) => format!("GPU {} runs it", choice.gpu.unwrap_or_default()),
        Err(_) => format!("no GPU here runs it, as it needs {}", target.manifest.needs),
    };
    let (count, size) = (target.plan.kernels.len(), human_bytes(target.object.len() as u64));
    let cubin = target.cubin.map_or_else(String::new, |cubin| {
        format!(" and {} of machine code", human_bytes(cubin.len() as u64))
    });
    Ok(format!("target    {name}: {count} kernels in {size} of PTX{cubin}; {here}"))
}
