//! Weights: from a checkpoint's files, or random, to bytes that kernels read.
//!
//! Every tensor's presence, shape and dtype is checked against the plan before anything runs.

pub mod checkpoint;
pub mod header;
mod populate;
pub(crate) mod random;
pub(crate) mod stream;

use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use nemo_ir::plan::{Placement, Weight};
use nemo_ir::types::Dtype;
use thiserror::Error;

use crate::device::host::memory::{MemoryError, Region};
use checkpoint::{Checkpoint, Shard};
use header::{HeaderError, Tensor};

pub use populate::Progress;

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsSource {
    /// A directory with `model.safetensors`, or an index and its shards.
    Directory(PathBuf),
    /// Made up: for measuring speed without a checkpoint.
    Random {
        /// The same seed gives the same weights.
        seed: u64,
    },
}

/// Why weights cannot be used.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// Nothing where a checkpoint should be.
    #[error("there is no directory `{}`", directory.display())]
    NoDirectory {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file where a checkpoint should be.
    #[error("`{}` is a file; --weights takes the directory of the checkpoint", file.display())]
    NotDirectory {
        /// The file.
        file: PathBuf,
    },
    /// No file that a checkpoint begins with.
    #[error("`{}` has neither model.safetensors nor model.safetensors.index.json", directory.display())]
    NoCheckpoint {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file that could not be read.
    #[error("cannot read `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A shard that could not be read.
    #[error("cannot read `{}`, which the index names: {source}", file.display())]
    Shard {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A safetensors file that contradicts itself.
    #[error("cannot use `{}`: {source}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<HeaderError>,
    },
    /// An index that is none.
    #[error("cannot use index `{}`: {what}", file.display())]
    Index {
        /// The index.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An index that promises what its shards do not keep.
    #[error("index `{}` puts tensor `{tensor}` in `{file}`, which does not have it", index.display())]
    IndexMismatch {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        file: String,
    },
    /// A name in two shards.
    #[error("tensor `{tensor}` is in both `{}` and `{}`", first.display(), second.display())]
    TwoFiles {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A tensor that the plan wants.
    #[error("checkpoint `{}` has no tensor `{}`", directory.display(), names.join("` or `"))]
    Missing {
        /// The checkpoint.
        directory: PathBuf,
        /// The accepted names.
        names: Vec<String>,
    },
    /// A tensor of another shape.
    #[error("tensor `{tensor}` in `{}` has shape {has:?}, the artifact wants {wanted:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape in the file.
        has: Vec<u64>,
        /// Shape in the plan.
        wanted: Vec<u64>,
    },
    /// A tensor of another dtype.
    #[error("tensor `{tensor}` in `{}` has dtype {has}, the artifact wants {wanted}", file.display())]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Dtype in the file.
        has: String,
        /// Dtypes that would do.
        wanted: String,
    },
    /// No memory for converted or random weights.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Every weight of a plan, in place or converted, by the plan's index.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    /// Converted and random weights, one after the other.
    own: Region,
    placed: Vec<Placed>,
}

#[derive(Debug, Clone)]
enum Placed {
    Mapped { shard: usize, range: Range<usize> },
    Own(Range<usize>),
}

/// Converted and random tensors begin at multiples of this.
const ALIGN: u64 = 64;

impl Weights {
    /// Checks a plan's weights against a source and places them.
    ///
    /// # Errors
    /// [`WeightsError`] at the first tensor that is missing or of another shape or dtype.
    pub fn load(
        source: &WeightsSource,
        weights: &[Weight],
        threads: u32,
        progress: Progress,
    ) -> Result<Self, WeightsError> {
        match source {
            WeightsSource::Directory(directory) => {
                let placed = Self::place(Checkpoint::open(directory)?, weights)?;
                populate::populate(placed.mapped(), progress);
                Ok(placed)
            }
            WeightsSource::Random { seed } => {
                let sizes = weights.iter().map(|weight| elements(weight) * dtype(weight).bytes());
                let (placed, bytes) = lay_out(sizes);
                crate::device::host::memory::check_available("random weights", bytes, "")?;
                let mut own = Region::new(bytes)?;
                random::fill(&mut own, weights, &placed, *seed, (threads, progress));
                Ok(Self { shards: Vec::new(), own, placed: placed.into_iter().map(Placed::Own).collect() })
            }
        }
    }

    /// Checks every tensor, then converts those that are not read in place.
    fn place(checkpoint: Checkpoint, weights: &[Weight]) -> Result<Self, WeightsError> {
        let found = weights.iter().map(|weight| check(&checkpoint, weight)).collect::<Result<Vec<_>, _>>()?;
        let sizes = weights.iter().map(|weight| match weight.placement {
            Placement::InPlace(_) => 0,
            Placement::WidenedToF32 => elements(weight) * 4,
        });
        let (ranges, bytes) = lay_out(sizes);
        let mut own = Region::new(bytes)?;
        let mut placed = Vec::with_capacity(weights.len());
        for ((weight, (shard, tensor)), range) in weights.iter().zip(found).zip(ranges) {
            placed.push(match weight.placement {
                Placement::InPlace(_) => Placed::Mapped { shard, range: tensor.range.clone() },
                Placement::WidenedToF32 => {
                    let stored = &checkpoint.files()[shard].map[tensor.range.clone()];
                    widen(&tensor.dtype, stored, &mut own.bytes_mut()[range.clone()]);
                    Placed::Own(range)
                }
            });
        }
        Ok(Self { shards: checkpoint.into_files(), own, placed })
    }

    /// Bytes of the weight with the plan's index `weight`.
    pub fn bytes(&self, weight: usize) -> &[u8] {
        match &self.placed[weight] {
            Placed::Mapped { shard, range } => &self.shards[*shard].map[range.clone()],
            Placed::Own(range) => &self.own.bytes()[range.clone()],
        }
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.placed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        (0..self.len()).map(|weight| self.bytes(weight).len() as u64).sum()
    }

    fn mapped(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len())
            .filter(|weight| matches!(self.placed[*weight], Placed::Mapped { .. }))
            .map(|at| self.bytes(at))
    }
}

/// Checks every weight of a plan against a checkpoint without reading any; the bytes they have there.
///
/// # Errors
/// As [`Weights::load`].
pub fn verify(directory: &Path, weights: &[Weight]) -> Result<u64, WeightsError> {
    let checkpoint = Checkpoint::open(directory)?;
    weights.iter().map(|weight| Ok(check(&checkpoint, weight)?.1.range.len() as u64)).sum()
}

fn elements(weight: &Weight) -> u64 {
    weight.shape.iter().product()
}

/// Dtype that the kernels see.
fn dtype(weight: &Weight) -> Dtype {
    match weight.placement {
        Placement::InPlace(dtype) => dtype,
        Placement::WidenedToF32 => Dtype::F32,
    }
}

/// Ranges one after the other, aligned, and their end.
fn lay_out(sizes: impl Iterator<Item = u64>) -> (Vec<Range<usize>>, u64) {
    let mut end = 0_u64;
    let ranges = sizes
        .map(|size| {
            let start = end.next_multiple_of(ALIGN);
            end = start + size;
            start as usize..end as usize
        })
        .collect();
    (ranges, end)
}

/// The tensor of a weight, when shape and dtype are right.
fn check<'a>(checkpoint: &'a Checkpoint, weight: &Weight) -> Result<(usize, &'a Tensor), WeightsError> {
    let (shard, tensor) = checkpoint.find(&weight.names).ok_or_else(|| WeightsError::Missing {
        directory: checkpoint.directory().to_owned(),
        names: weight.names.clone(),
    })?;
    let file = || checkpoint.files()[shard].path.clone();
    if tensor.shape != weight.shape {
        return Err(WeightsError::Shape {
            file: file(),
            tensor: tensor.name.clone(),
            has: tensor.shape.clone(),
            wanted: weight.shape.clone(),
        });
    }
    let wanted = match weight.placement {
        Placement::InPlace(dtype) => stored_name(dtype),
        Placement::WidenedToF32 => "F32, BF16 or F16",
    };
    if !wanted.split([',', ' ']).any(|name| name == tensor.dtype) {
        return Err(WeightsError::Dtype {
            file: file(),
            tensor: tensor.name.clone(),
            has: tensor.dtype.clone(),
            wanted: wanted.to_owned(),
        });
    }
    Ok((shard, tensor))
}

/// How safetensors spells a dtype.
fn stored_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "F32",
        Dtype::Bf16 => "BF16",
        Dtype::F16 => "F16",
        Dtype::I32 => "I32",
        Dtype::U8 => "U8",
    }
}

/// Converts stored elements, at any alignment, to f32; the dtype was checked.
fn widen(dtype: &str, stored: &[u8], out: &mut [u8]) {
    let halves = |value: fn([u8; 2]) -> f32| stored.as_chunks().0.iter().map(move |bytes| value(*bytes));
    let (out, _) = out.as_chunks_mut::<4>();
    match dtype {
        "BF16" => store(out, halves(|bytes| bf16::from_le_bytes(bytes).to_f32())),
        "F16" => store(out, halves(|bytes| f16::from_le_bytes(bytes).to_f32())),
        _ => store(out, stored.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
    }
}

fn store(out: &mut [[u8; 4]], values: impl Iterator<Item = f32>) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_ne_bytes();
    }
}

#[cfg(test)]
mod tests;
