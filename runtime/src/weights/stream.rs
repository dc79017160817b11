//! Weights for devices with a memory of their own: piece by piece, so that the whole of them is never in this machine's
//! memory, or made there.

use std::ops::Range;

use nemo_ir::plan::{Placement, Weight};

use super::checkpoint::Checkpoint;
use super::populate::{CHUNK, advise, bar};
use super::{Progress, WeightsError, WeightsSource, check, dtype, elements, widen};

/// How weights come to a device with a memory of its own.
#[derive(Debug)]
pub(crate) enum Supply<'a> {
    /// From a checkpoint.
    Stored(Stream<'a>),
    /// The device makes them itself.
    Random {
        /// What they depend on.
        seed: u64,
    },
}

impl<'a> Supply<'a> {
    /// Checks a plan's weights against a source.
    ///
    /// # Errors
    /// [`WeightsError`] at the first tensor that is missing or of another shape or dtype.
    pub(crate) fn open(
        source: &WeightsSource,
        weights: &'a [Weight],
        progress: Progress,
    ) -> Result<Self, WeightsError> {
        match source {
            WeightsSource::Directory(directory) => {
                Stream::open(Checkpoint::open(directory)?, weights, progress).map(Self::Stored)
            }
            WeightsSource::Random { seed } => Ok(Self::Random { seed: *seed }),
        }
    }
}

/// Weights of a checkpoint that were checked and not yet read.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    weights: &'a [Weight],
    checkpoint: Checkpoint,
    /// With the place of each weight.
    stored: Vec<Stored>,
    progress: Progress,
}

/// Where a checkpoint has a weight.
#[derive(Debug)]
struct Stored {
    shard: usize,
    range: Range<usize>,
    dtype: String,
}

impl<'a> Stream<'a> {
    fn open(checkpoint: Checkpoint, weights: &'a [Weight], progress: Progress) -> Result<Self, WeightsError> {
        let stored = |weight| {
            let (shard, tensor) = check(&checkpoint, weight)?;
            Ok(Stored { shard, range: tensor.range.clone(), dtype: tensor.dtype.clone() })
        };
        let stored = weights.iter().map(stored).collect::<Result<_, WeightsError>>()?;
        Ok(Self { weights, checkpoint, stored, progress })
    }

    /// Gives `take` every weight in pieces, with its index and the place of the piece in it, in order.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn each_piece<E>(
        &self,
        mut take: impl FnMut(usize, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let total = self.weights.iter().map(|weight| elements(weight) * dtype(weight).bytes()).sum();
        let bar = bar("loading", total, self.progress);
        let mut take = |index, at, bytes: &[u8]| {
            take(index, at, bytes)?;
            bar.inc(bytes.len() as u64);
            Ok(())
        };
        let mut made = Vec::new();
        for (index, weight) in self.weights.iter().enumerate() {
            let take = |at, bytes: &[u8]| take(index, at, bytes);
            each_stored(&self.checkpoint, (weight, &self.stored[index]), &mut made, take)?;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// A weight of a checkpoint, converted where it has to be.
fn each_stored<E>(
    checkpoint: &Checkpoint,
    (weight, stored): (&Weight, &Stored),
    made: &mut Vec<u8>,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = &checkpoint.files()[stored.shard].map[stored.range.clone()];
    if weight.placement == Placement::WidenedToF32 {
        made.clear();
        made.resize(elements(weight) as usize * 4, 0);
        widen(&stored.dtype, bytes, made);
        return take(0, made);
    }
    // The whole tensor first, so that the disk reads ahead.
    advise(bytes, libc::MADV_WILLNEED);
    for (n, piece) in bytes.chunks(CHUNK).enumerate() {
        take((n * CHUNK) as u64, piece)?;
        // The file keeps what the mapping gives back.
        advise(piece, libc::MADV_DONTNEED);
    }
    Ok(())
}
