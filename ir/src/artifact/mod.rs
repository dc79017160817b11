//! The artifact `out.nemo`: what the compiler hands to the runtime, in one file.
//!
//! A zip with stored, 64-byte aligned entries and fixed timestamps, so that `unzip -l` works and the
//! same contents give the same bytes:
//!
//! | entry | holds |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: format version, model, targets, blake3 of every other entry; the zip's CRC-32 guards it |
//! | `model.toml` | the model description |
//! | `fused/<target>/<phase>-<first>-<last>.txt` | the graph IR after fusion of one program, for people |
//! | `explain/<target>.json` | what fusion did and why, where the compiler says, for people |
//! | `plan/<target>.json` | [`Plan`], all that the runtime interprets |
//! | `kernels/<target>.o` | for a CPU the machine code, a relocatable ELF object |
//! | `kernels/<target>.ptx`, `kernels/<target>.cubin` | for a GPU the PTX, and its machine code where it was assembled |

mod check;
mod output;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use check::{PlanFault, validate};
pub use output::{check_writable, write_whole, write_whole_with};
pub use read::{Artifact, Target};
pub use write::{to_bytes, write};

use crate::plan::{Limits, Plan};
use crate::types::Dtype;

/// The format that this build writes and reads.
pub const FORMAT: u32 = 3;

/// Name of the entry that describes the others.
pub const MANIFEST: &str = "manifest.json";

/// Name of the entry that holds the model description.
pub const MODEL: &str = "model.toml";

/// What the compiler puts into an artifact.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Name of the model.
    pub model: String,
    /// Name and version of the compiler.
    pub compiler: String,
    /// Dtype of the stored matrices that the kernels read.
    pub weights: Dtype,
    /// Dtype of the values between kernels.
    pub activations: Dtype,
    /// The model description.
    pub model_toml: String,
    /// Best target last or first as the compiler likes: the runtime chooses by what the machine has.
    pub targets: Vec<TargetContents>,
}

/// What an artifact holds for one target.
#[derive(Debug, Clone)]
pub struct TargetContents {
    /// Name with every feature spelled out; part of entry names, so `[A-Za-z0-9._+-]+`.
    pub name: String,
    /// What runs it.
    pub needs: Needs,
    /// The plan.
    pub plan: Plan,
    /// The kernels: a relocatable ELF object for a CPU, PTX for a GPU.
    pub object: Vec<u8>,
    /// For a GPU: the kernels as its machine code, where an assembler was at hand.
    pub cubin: Option<Vec<u8>>,
    /// The fused graph of each program: tail of the entry name (`decode-1-8`), and the text.
    pub fused: Vec<(String, String)>,
    /// What fusion did and why: JSON, written as it is.
    pub explain: Option<String>,
}

/// The entry `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Name of the model.
    pub model: String,
    /// Name and version of the compiler.
    pub compiler: String,
    /// Dtype of the stored matrices that the kernels read.
    pub weights: Dtype,
    /// Dtype of the values between kernels.
    pub activations: Dtype,
    /// The targets, in the compiler's order.
    pub targets: Vec<TargetManifest>,
    /// blake3, in hex, of every entry but the manifest.
    pub digests: BTreeMap<String, String>,
}

/// What the manifest says about one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetManifest {
    /// Name with every feature spelled out.
    pub name: String,
    /// What runs it.
    #[serde(flatten)]
    pub needs: Needs,
    /// The largest step, and what the model allows.
    pub limits: Limits,
    /// Entry of the plan.
    pub plan: String,
    /// Entry of the kernels.
    pub kernels: String,
    /// Entry of a GPU's machine code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cubin: Option<String>,
    /// Entries of the fused graphs, one per program.
    pub fused: Vec<String>,
    /// Entry that says what fusion did and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
}

/// The kind of device that runs a target, and what such a device must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Needs {
    /// This machine's CPU.
    Host {
        /// Features that it must have, as `is_x86_feature_detected!` spells them (`avx2`, `avx512bf16`).
        cpu_features: Vec<String>,
    },
    /// An NVIDIA GPU.
    Cuda(CudaNeeds),
}

impl Needs {
    /// The features that a CPU must have; `None` for another kind of device.
    pub fn cpu_features(&self) -> Option<&[String]> {
        match self {
            Self::Host { cpu_features } => Some(cpu_features),
            Self::Cuda(_) => None,
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { cpu_features } => f.write_str(&cpu_features.join(" ")),
            Self::Cuda(needs) => write!(f, "{needs}"),
        }
    }
}

impl fmt::Display for CudaNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capability: (major, minor), forward, ptx, driver } = self;
        let later = if *forward { " or later" } else { " alone" };
        write!(
            f,
            "compute capability {major}.{minor}{later}, driver {driver} or later (PTX {}.{})",
            ptx.0, ptx.1
        )
    }
}

/// What a GPU and its driver must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CudaNeeds {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Whether later capabilities run it too; not so where the PTX uses features of one architecture (`sm_90a`).
    pub forward: bool,
    /// Version of the PTX.
    pub ptx: (u32, u32),
    /// The oldest driver branch that takes this PTX.
    pub driver: u32,
}

/// Why an artifact could not be written or read.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The file could not be read.
    #[error("cannot read artifact `{}`: {source}", file.display())]
    Read {
        /// The artifact.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write artifact `{}`: {source}", file.display())]
    Write {
        /// The artifact.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Contents that cannot become an artifact.
    #[error("cannot write an artifact: {0}")]
    Contents(String),
    /// No zip at all.
    #[error("`{}` is not a nemoc artifact: it does not begin like a zip file", file.display())]
    NotZip {
        /// The file.
        file: PathBuf,
    },
    /// No byte at all.
    #[error("`{}` is not a nemoc artifact: it is empty", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A zip without its end.
    #[error("artifact `{}` is damaged or truncated: {what}", file.display())]
    Truncated {
        /// The artifact.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An entry that should be there.
    #[error("artifact `{}` has no entry `{entry}`; it has {has}", file.display())]
    MissingEntry {
        /// The artifact.
        file: PathBuf,
        /// The entry looked for.
        entry: String,
        /// The entries there are.
        has: String,
    },
    /// An entry whose bytes are not those that were written.
    #[error("artifact `{}`, entry `{entry}`: blake3 is {has}, the manifest wants {wanted}", file.display())]
    Digest {
        /// The artifact.
        file: PathBuf,
        /// The entry.
        entry: String,
        /// Digest of the bytes that the file has.
        has: String,
        /// Digest that the manifest gives.
        wanted: String,
    },
    /// Written by a later compiler.
    #[error(
        "artifact `{}` has format {has}, this runtime reads {FORMAT}: use a newer nemort",
        file.display()
    )]
    Newer {
        /// The artifact.
        file: PathBuf,
        /// Its format.
        has: u64,
    },
    /// Written by an earlier compiler.
    #[error(
        "artifact `{}` has format {has}, this runtime reads {FORMAT}: compile it anew",
        file.display()
    )]
    Older {
        /// The artifact.
        file: PathBuf,
        /// Its format.
        has: u64,
    },
    /// A target that the file does not hold.
    #[error("artifact `{}` has no target `{wanted}`; it has {has}", file.display())]
    MissingTarget {
        /// The artifact.
        file: PathBuf,
        /// The target asked for.
        wanted: String,
        /// The targets there are.
        has: String,
    },
    /// An entry that does not say what it should.
    #[error("artifact `{}`, entry `{entry}`: {what}", file.display())]
    Malformed {
        /// The artifact.
        file: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Names between backquotes, separated by commas.
fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

#[cfg(test)]
mod tests;
