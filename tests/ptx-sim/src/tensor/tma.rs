//! Copies of boxes between global and shared memory: what `cp.async.bulk.tensor` moves where.
//!
//! A box is laid out in shared memory without gaps, dimension 0 innermost, then swizzled by the address
//! ("Tensors" and "Swizzling Modes" of the PTX ISA). Elements outside the tensor are filled on a load and
//! skipped on a store. With an element stride `s` a box of extent `b` holds every `s`-th element, `ceil(b/s)`
//! in all. The stride of dimension 0 does not count, as there is no interleave here.

use super::swizzle::CHUNK;
use super::tma_map::{OobFill, TensorMap};

/// Where the bytes of a piece come from, on a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Global memory from this address on.
    Global(u64),
    /// Nowhere: the elements lie outside the tensor, and each becomes these bytes, of which as many count as
    /// an element has.
    Fill([u8; 8]),
}

/// Bytes that lie together on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Address in shared memory.
    pub shared: u32,
    /// The other side.
    pub source: Source,
    /// Bytes, a multiple of the element size.
    pub bytes: u32,
}

/// What is wrong with a tensor copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The address in shared memory is not aligned.
    #[error("a tensor copy takes an address in shared memory aligned to 128 bytes, found {0:#x}")]
    SharedAlignment(u32),
    /// A coordinate for each dimension is needed.
    #[error("a copy of {found} dimensions uses a tensor map of {expected}")]
    Rank {
        /// Coordinates of the instruction.
        found: usize,
        /// Dimensions of the map.
        expected: usize,
    },
}

impl TensorMap {
    /// Bytes of a box: what a load completes on its mbarrier, elements outside the tensor included.
    pub fn box_bytes(&self) -> u32 {
        self.extents().iter().product::<u32>() * self.spec().dtype.bytes()
    }

    /// The elements of a box along each dimension.
    pub fn extents(&self) -> [u32; 5] {
        let spec = self.spec();
        std::array::from_fn(|i| match i {
            0 => spec.box_dims[0],
            _ if i < spec.rank => spec.box_dims[i].div_ceil(spec.element_strides[i]),
            _ => 1,
        })
    }

    /// Visits the pieces of a load, global to shared: every byte of the box once.
    pub fn load<E: From<CopyError>>(
        &self,
        coordinates: &[i32],
        shared: u32,
        mut visit: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pieces(coordinates, shared, &mut visit)
    }

    /// Visits the pieces of a store or a reduction, shared to global: shared address, global address, bytes.
    pub fn store<E: From<CopyError>>(
        &self,
        coordinates: &[i32],
        shared: u32,
        mut visit: impl FnMut(u32, u64, u32) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pieces(coordinates, shared, &mut |piece: Piece| match piece.source {
            Source::Global(address) => visit(piece.shared, address, piece.bytes),
            Source::Fill(_) => Ok(()),
        })
    }

    fn pieces<E: From<CopyError>>(
        &self,
        coordinates: &[i32],
        shared: u32,
        visit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let spec = self.spec();
        if !shared.is_multiple_of(128) {
            return Err(CopyError::SharedAlignment(shared).into());
        }
        if coordinates.len() != spec.rank {
            return Err(CopyError::Rank { found: coordinates.len(), expected: spec.rank }.into());
        }
        let extents = self.extents();
        let row_bytes = extents[0] * spec.dtype.bytes();
        let rows = extents[1..].iter().product::<u32>();
        for row in 0..rows {
            let base = self.row_address(coordinates, &extents, row);
            self.row_pieces(coordinates[0], base, shared + row * row_bytes, visit)?;
        }
        Ok(())
    }

    /// Global address of element 0 of the tensor row that row `row` of the box is cut from, or none where the
    /// row lies outside the tensor.
    fn row_address(&self, coordinates: &[i32], extents: &[u32; 5], row: u32) -> Option<u64> {
        let spec = self.spec();
        let (mut rest, mut address) = (row, spec.address);
        for i in 1..spec.rank {
            let step = rest % extents[i] * spec.element_strides[i];
            rest /= extents[i];
            let index = i64::from(coordinates[i]) + i64::from(step);
            if index < 0 || index as u64 >= spec.dims[i] {
                return None;
            }
            address += index as u64 * spec.strides[i - 1];
        }
        Some(address)
    }

    /// The pieces of one row: cut where it enters and leaves the tensor, and at each chunk if chunks move.
    fn row_pieces<E>(
        &self,
        first: i32,
        base: Option<u64>,
        shared: u32,
        visit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let spec = self.spec();
        let size = spec.dtype.bytes();
        let (begin, count) = (i64::from(first), i64::from(spec.box_dims[0]));
        let clip = |index: i64| (index - begin).clamp(0, count) as u32 * size;
        let (inside, end) = match base {
            Some(_) => (clip(0), clip(spec.dims[0] as i64)),
            None => (0, 0),
        };
        let row_bytes = spec.box_dims[0] * size;
        let step = if spec.swizzle.span() == CHUNK { row_bytes } else { CHUNK };
        let fill = match spec.fill {
            OobFill::Zero => [0; 8],
            OobFill::Nan => spec.dtype.nan(),
        };
        for chunk in (0..row_bytes).step_by(step as usize) {
            let last = chunk + step.min(row_bytes - chunk);
            let cuts = [chunk, inside.clamp(chunk, last), end.clamp(chunk, last), last];
            for window in cuts.windows(2) {
                let (from, to) = (window[0], window[1]);
                if from >= to {
                    continue;
                }
                let source = match base {
                    Some(address) if (inside..end).contains(&from) => {
                        Source::Global(address.wrapping_add_signed(begin * i64::from(size) + i64::from(from)))
                    }
                    _ => Source::Fill(fill),
                };
                // A chunk moves as a whole, so the place within it is added after the swizzle.
                let target = spec.swizzle.apply(shared + chunk) + (from - chunk);
                visit(Piece { shared: target, source, bytes: to - from })?;
            }
        }
        Ok(())
    }
}
