//! Which target of an artifact runs, and on which device: a function of what the artifact has, what was asked for,
//! and what the machine is.

use std::cmp::Reverse;
use std::fmt;
use std::path::{Path, PathBuf};

use nemo_ir::artifact::{CudaNeeds, Needs, TargetManifest};
use thiserror::Error;

use super::gpu::driver::{DriverFactory, Facts};

/// Where an engine's model is to run.
#[derive(Debug, Clone, Default)]
pub enum DeviceChoice {
    /// On a GPU where the artifact has a target that one of this machine's runs, else on the CPU.
    #[default]
    Best,
    /// On this machine's CPU.
    Host,
    /// On the GPU of this number, or on the one that runs the best target.
    Cuda(Option<u32>),
    /// On a GPU behind a driver that the caller gives.
    Driver(DriverFactory),
}

/// A device as a choice names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whichever is best.
    Best,
    /// The CPU.
    Host,
    /// The GPU of this number, or the best one.
    Gpu(Option<u32>),
}

/// Why there is no GPU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoGpus {
    /// No driver.
    #[error("this machine has no NVIDIA driver: libcuda was not found")]
    NoLibrary,
    /// A driver older than any that nemort works with.
    #[error(
        "this machine's NVIDIA driver is too old: it is of branch {has}, and nemort needs {needs} or later"
    )]
    TooOld {
        /// Branch of the driver.
        has: u32,
        /// The oldest branch.
        needs: u32,
    },
    /// A driver that does not work.
    #[error("this machine's NVIDIA driver does not work: {0}")]
    Failed(String),
}

/// What a machine is, as far as targets ask.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Which of some CPU features it lacks.
    pub lacks: fn(&[String]) -> Vec<&str>,
    /// Its GPUs, by number.
    pub gpus: &'a Result<Vec<Facts>, NoGpus>,
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The target.
    pub target: &'a TargetManifest,
    /// The number of the GPU; `None` for the CPU.
    pub gpu: Option<u32>,
    /// What its users may want to know of it.
    pub note: Option<String>,
}

/// Why nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// No target that this CPU runs, and none for anything else.
    #[error("artifact `{}` is for another CPU: {targets}", file.display())]
    OtherCpu {
        /// The artifact.
        file: PathBuf,
        /// Its targets, each with the features that this CPU lacks.
        targets: String,
    },
    /// No target that anything here runs.
    #[error("artifact `{}` does not run here: {targets}", file.display())]
    Nothing {
        /// The artifact.
        file: PathBuf,
        /// Its targets, each with what stands against it.
        targets: String,
    },
    /// No target of the kind of device that was asked for.
    #[error("artifact `{}` has no target for a {kind}; it has {has}", file.display())]
    NoneOfKind {
        /// The artifact.
        file: PathBuf,
        /// `CPU` or `GPU`.
        kind: &'static str,
        /// Its targets.
        has: String,
    },
    /// A target and a device that exclude each other.
    #[error("target `{target}` is for a {of}, and `--device {device}` asks for a {kind}")]
    OtherKind {
        /// The target.
        target: String,
        /// `CPU` or `GPU`.
        of: &'static str,
        /// The device asked for.
        device: &'static str,
        /// `CPU` or `GPU`.
        kind: &'static str,
    },
    /// No driver.
    #[error("there is no GPU to run on: {0}")]
    NoGpus(#[from] NoGpus),
    /// No GPU of that number.
    #[error("there is no GPU {wanted}; {}", counted(*has))]
    NoSuchGpu {
        /// The number.
        wanted: u32,
        /// How many there are.
        has: usize,
    },
    /// No GPU at all.
    #[error("there is no GPU to run on: the NVIDIA driver sees none")]
    NoGpu,
    /// GPUs that run no target.
    #[error("artifact `{}` has no target for {gpus}: {targets}", file.display())]
    OtherGpu {
        /// The artifact.
        file: PathBuf,
        /// The GPUs.
        gpus: String,
        /// Its targets, each with what it needs.
        targets: String,
    },
}

fn counted(has: usize) -> String {
    match has {
        0 => "the NVIDIA driver sees none".to_owned(),
        1 => "this machine has one, GPU 0".to_owned(),
        _ => format!("this machine has {has}, from GPU 0 to GPU {}", has - 1),
    }
}

/// The best target for a machine, or the one called `name` if the machine runs it: a GPU's before a CPU's, of a GPU's
/// the one of the highest capability that one of them runs, of a CPU's the one with the most features.
///
/// # Errors
/// [`ChoiceError`], which says what the artifact has and what this machine lacks.
pub fn choose<'a>(
    file: &Path,
    targets: &'a [TargetManifest],
    name: Option<&str>,
    wanted: Wanted,
    machine: &Machine<'_>,
) -> Result<Choice<'a>, ChoiceError> {
    let considered: Vec<_> =
        targets.iter().filter(|target| name.is_none_or(|name| target.name == name)).collect();
    let considered = considered.as_slice();
    match wanted {
        Wanted::Host => {
            require_kind(file, considered, name, Kind::Cpu)?;
            on_cpu(considered, machine).ok_or_else(|| no_cpu(file, considered, machine))
        }
        Wanted::Gpu(number) => {
            require_kind(file, considered, name, Kind::Gpu)?;
            let gpus = machine.gpus.as_ref().map_err(Clone::clone)?;
            match number {
                Some(wanted) if wanted as usize >= gpus.len() => {
                    return Err(ChoiceError::NoSuchGpu { wanted, has: gpus.len() });
                }
                None if gpus.is_empty() => return Err(ChoiceError::NoGpu),
                _ => {}
            }
            on_gpu(considered, gpus, number).ok_or_else(|| no_gpu(file, considered, gpus, number))
        }
        Wanted::Best => {
            let gpus = machine.gpus.as_deref().unwrap_or_default();
            let best = on_gpu(considered, gpus, None).or_else(|| on_cpu(considered, machine));
            best.ok_or_else(|| nothing(file, considered, machine))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    Gpu,
}

impl Kind {
    fn of(target: &TargetManifest) -> Self {
        match target.needs {
            Needs::Host { .. } => Self::Cpu,
            Needs::Cuda(_) => Self::Gpu,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Gpu => "GPU",
        }
    }

    fn device(self) -> &'static str {
        match self {
            Self::Cpu => "host",
            Self::Gpu => "cuda",
        }
    }
}

/// That some target is of a kind.
fn require_kind(
    file: &Path,
    considered: &[&TargetManifest],
    name: Option<&str>,
    kind: Kind,
) -> Result<(), ChoiceError> {
    if considered.iter().any(|target| Kind::of(target) == kind) {
        return Ok(());
    }
    match (name, considered) {
        (Some(_), [only, ..]) => Err(ChoiceError::OtherKind {
            target: only.name.clone(),
            of: Kind::of(only).name(),
            device: kind.device(),
            kind: kind.name(),
        }),
        _ => {
            let names: Vec<_> = considered.iter().map(|target| format!("`{}`", target.name)).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(ChoiceError::NoneOfKind { file: file.to_owned(), kind: kind.name(), has })
        }
    }
}

fn on_cpu<'a>(considered: &[&'a TargetManifest], machine: &Machine<'_>) -> Option<Choice<'a>> {
    let runs = considered
        .iter()
        .filter_map(|target| Some((*target, target.needs.cpu_features()?)))
        .filter(|(_, features)| (machine.lacks)(features).is_empty());
    let (target, _) = runs.max_by_key(|(_, features)| features.len())?;
    Some(Choice { target, gpu: None, note: None })
}

fn on_gpu<'a>(considered: &[&'a TargetManifest], gpus: &[Facts], number: Option<u32>) -> Option<Choice<'a>> {
    let mut best: Option<(_, Choice<'a>)> = None;
    for (gpu, facts) in numbered(gpus, number) {
        for target in considered {
            let Needs::Cuda(needs) = &target.needs else { continue };
            if against(needs, facts).is_some() {
                continue;
            }
            // Of two targets of a capability, the one for it alone uses more of it.
            let rank = (needs.capability, !needs.forward, Reverse(gpu));
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, Choice { target, gpu: Some(gpu), note: note(target, needs, gpu, facts) }));
            }
        }
    }
    best.map(|(_, choice)| choice)
}

fn numbered(gpus: &[Facts], number: Option<u32>) -> impl Iterator<Item = (u32, &Facts)> {
    let all = (0..).zip(gpus);
    all.filter(move |(at, _)| number.is_none_or(|number| number == *at))
}

/// That a GPU runs a target that was made for an earlier one.
fn note(target: &TargetManifest, needs: &CudaNeeds, gpu: u32, facts: &Facts) -> Option<String> {
    (facts.capability > needs.capability).then(|| {
        format!("GPU {gpu} ({facts}) has no target of its own in the artifact: it runs `{}`", target.name)
    })
}

/// What a target needs that a GPU has not.
fn against(needs: &CudaNeeds, facts: &Facts) -> Option<impl fmt::Display + use<>> {
    let (major, minor) = needs.capability;
    let runs = if needs.forward {
        facts.capability >= needs.capability
    } else {
        facts.capability == needs.capability
    };
    if !runs {
        let later = if needs.forward { " or later" } else { " and no other" };
        return Some(format!("compute capability {major}.{minor}{later}"));
    }
    (facts.driver < needs.driver).then(|| format!("driver {} or later", needs.driver))
}

fn no_cpu(file: &Path, considered: &[&TargetManifest], machine: &Machine<'_>) -> ChoiceError {
    let described: Vec<_> = considered
        .iter()
        .filter(|target| Kind::of(target) == Kind::Cpu)
        .map(|target| {
            let missing = (machine.lacks)(target.needs.cpu_features().unwrap_or_default()).join(", ");
            format!("target `{}` needs {missing}, which this one lacks", target.name)
        })
        .collect();
    let targets = if described.is_empty() { "it has no target".to_owned() } else { described.join("; ") };
    ChoiceError::OtherCpu { file: file.to_owned(), targets }
}

fn no_gpu(file: &Path, considered: &[&TargetManifest], gpus: &[Facts], number: Option<u32>) -> ChoiceError {
    let gpus: Vec<_> = numbered(gpus, number).collect();
    let mut described = Vec::new();
    for target in considered {
        if let Needs::Cuda(needs) = &target.needs {
            // Of several GPUs, the need that any of them lacks.
            if let Some(need) = gpus.iter().find_map(|(_, facts)| against(needs, facts)) {
                described.push(format!("target `{}` needs {need}", target.name));
            }
        }
    }
    let gpus: Vec<_> = gpus.iter().map(|(gpu, facts)| format!("GPU {gpu} ({facts})")).collect();
    ChoiceError::OtherGpu { file: file.to_owned(), gpus: gpus.join(" or "), targets: described.join("; ") }
}

fn nothing(file: &Path, considered: &[&TargetManifest], machine: &Machine<'_>) -> ChoiceError {
    if considered.iter().all(|target| Kind::of(target) == Kind::Cpu) {
        return no_cpu(file, considered, machine);
    }
    let describe = |target: &&TargetManifest| {
        let name = &target.name;
        match (&target.needs, machine.gpus) {
            (Needs::Host { cpu_features }, _) => {
                let missing = (machine.lacks)(cpu_features).join(", ");
                format!("target `{name}` needs {missing}, which this CPU lacks")
            }
            (Needs::Cuda(needs), Ok(gpus)) => match gpus.iter().find_map(|facts| against(needs, facts)) {
                Some(need) => format!("target `{name}` needs {need}"),
                None => format!("target `{name}` needs a GPU, and the NVIDIA driver sees none"),
            },
            (Needs::Cuda(_), Err(error)) => format!("target `{name}` needs a GPU, and {error}"),
        }
    };
    let targets: Vec<_> = considered.iter().map(describe).collect();
    ChoiceError::Nothing { file: file.to_owned(), targets: targets.join("; ") }
}

#[cfg(test)]
mod tests;
