//! Tensor maps: what `cuTensorMapEncodeTiled` makes and a tensor copy reads.
//!
//! The checks are those that the driver API documents for tiled maps without interleave. The 128 bytes are this
//! simulator's own; the driver's are opaque. A magic number and a checksum catch a kernel that is handed
//! anything else.

use super::swizzle::Swizzle;

/// Element types, by the names of the driver API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// `UINT8`
    U8,
    /// `UINT16`
    U16,
    /// `UINT32`
    U32,
    /// `INT32`
    I32,
    /// `UINT64`
    U64,
    /// `INT64`
    I64,
    /// `FLOAT16`
    F16,
    /// `FLOAT32`
    F32,
    /// `FLOAT64`
    F64,
    /// `BFLOAT16`
    Bf16,
}

impl DataType {
    const ALL: [Self; 10] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
    ];

    /// Bytes of an element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64 | Self::Bf16)
    }

    /// The canonical NaN, little-endian. The driver speaks of a special NaN without giving its bits.
    pub const fn nan(self) -> [u8; 8] {
        match self {
            Self::F16 | Self::Bf16 => [0xff, 0x7f, 0, 0, 0, 0, 0, 0],
            Self::F32 => [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
            _ => [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        }
    }
}

/// What elements outside the tensor become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OobFill {
    /// Zero.
    #[default]
    Zero,
    /// NaN, for floats.
    Nan,
}

/// The arguments of `cuTensorMapEncodeTiled`. L2 promotion changes no result and is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions, 1 to 5. Entries of the arrays beyond it are ignored.
    pub rank: usize,
    /// Global address.
    pub address: u64,
    /// Elements along each dimension, innermost first.
    pub dims: [u64; 5],
    /// Bytes from one index to the next of dimensions 1 and up.
    pub strides: [u64; 4],
    /// Extent of the box along each dimension.
    pub box_dims: [u32; 5],
    /// Every how many elements one is copied.
    pub element_strides: [u32; 5],
    /// Swizzle in shared memory.
    pub swizzle: Swizzle,
    /// Fill outside the tensor.
    pub fill: OobFill,
}

/// Why there is no such tensor map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Rank out of range.
    #[error("a tensor map has 1 to 5 dimensions, found {0}")]
    Rank(usize),
    /// Global address not aligned.
    #[error("the global address of a tensor map is a multiple of 16, found {0:#x}")]
    Address(u64),
    /// A dimension is empty or too large.
    #[error("dimension {index} of a tensor map has 1 to 2^32 elements, found {found}")]
    Dim {
        /// Which dimension.
        index: usize,
        /// Its extent.
        found: u64,
    },
    /// A stride is not a multiple of 16 or too large.
    #[error("the stride of dimension {index} of a tensor map is a multiple of 16 below 2^40, found {found}")]
    Stride {
        /// Which dimension.
        index: usize,
        /// Its stride in bytes.
        found: u64,
    },
    /// A box extent out of range.
    #[error("a box has 1 to 256 elements along dimension {index}, found {found}")]
    Box {
        /// Which dimension.
        index: usize,
        /// Its extent.
        found: u32,
    },
    /// The rows of a box are not whole chunks.
    #[error("the rows of a box take a multiple of 16 bytes, found {0}")]
    InnerBytes(u32),
    /// The rows of a box are wider than the swizzle.
    #[error("the rows of a box take at most the {span} bytes of the swizzle, found {found}")]
    InnerBeyondSwizzle {
        /// Bytes of the swizzle.
        span: u32,
        /// Bytes of a row.
        found: u32,
    },
    /// The rows of a box are narrower than the swizzle: documented as legal, but not how rows then lie.
    #[error("the simulator takes rows of a box as wide as the swizzle's {span} bytes, found {found}")]
    InnerBelowSwizzle {
        /// Bytes of the swizzle.
        span: u32,
        /// Bytes of a row.
        found: u32,
    },
    /// An element stride out of range.
    #[error("the element stride of dimension {index} is 1 to 8, found {found}")]
    ElementStride {
        /// Which dimension.
        index: usize,
        /// Its stride.
        found: u32,
    },
    /// NaN in a tensor of integers.
    #[error("only a tensor of floats can be filled with NaN")]
    NanFill,
    /// Bytes that are no tensor map.
    #[error("the 128 bytes are no tensor map of this simulator: {0} is wrong")]
    Garbage(&'static str),
}

/// A checked tensor map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(TensorSpec);

/// Bytes of a tensor map in memory.
pub const MAP_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"ptxsimTM";
const CHECKED: usize = MAP_BYTES - 8;

impl TensorMap {
    /// Checks as the driver does.
    pub fn new(spec: TensorSpec) -> Result<Self, MapError> {
        let rank = spec.rank;
        if !(1..=5).contains(&rank) {
            return Err(MapError::Rank(rank));
        }
        if !spec.address.is_multiple_of(16) {
            return Err(MapError::Address(spec.address));
        }
        for index in 0..rank {
            check_dimension(&spec, index)?;
        }
        check_rows(&spec)?;
        if spec.fill == OobFill::Nan && !spec.dtype.is_float() {
            return Err(MapError::NanFill);
        }
        Ok(Self(normalised(spec)))
    }

    /// The arguments; entries beyond the rank are 1, or 0 for strides.
    pub fn spec(&self) -> &TensorSpec {
        &self.0
    }

    /// The bytes that a kernel gets.
    pub fn encode(&self) -> [u8; MAP_BYTES] {
        let spec = &self.0;
        let mut writer = Vec::with_capacity(MAP_BYTES);
        writer.extend(MAGIC);
        writer.extend([
            spec.dtype as u8,
            spec.rank as u8,
            spec.swizzle as u8,
            u8::from(spec.fill == OobFill::Nan),
        ]);
        writer.extend(spec.box_dims.iter().flat_map(|&extent| (extent as u16).to_le_bytes()));
        writer.extend(spec.element_strides.map(|stride| stride as u8));
        writer.extend(spec.address.to_le_bytes());
        // An extent may be 2^32, so one less is kept.
        writer.extend(spec.dims.iter().flat_map(|&extent| ((extent - 1) as u32).to_le_bytes()));
        writer.extend(spec.strides.iter().flat_map(|stride| stride.to_le_bytes()));
        writer.resize(CHECKED, 0);
        let sum = checksum(&writer);
        writer.extend(sum.to_le_bytes());
        let mut bytes = [0; MAP_BYTES];
        bytes.copy_from_slice(&writer);
        bytes
    }

    /// Reads what [`TensorMap::encode`] wrote.
    pub fn decode(bytes: &[u8; MAP_BYTES]) -> Result<Self, MapError> {
        if bytes[..8] != MAGIC {
            return Err(MapError::Garbage("the magic number"));
        }
        if bytes[CHECKED..] != checksum(&bytes[..CHECKED]).to_le_bytes() {
            return Err(MapError::Garbage("the checksum"));
        }
        let mut reader = Reader { bytes: &bytes[8..] };
        let [dtype, rank, swizzle, nan] = reader.take();
        let box_dims = std::array::from_fn(|_| u32::from(u16::from_le_bytes(reader.take())));
        let element_strides = reader.take::<5>().map(u32::from);
        let address = u64::from_le_bytes(reader.take());
        let dims = std::array::from_fn(|_| u64::from(u32::from_le_bytes(reader.take())) + 1);
        let strides = std::array::from_fn(|_| u64::from_le_bytes(reader.take()));
        Self::new(TensorSpec {
            dtype: *DataType::ALL.get(usize::from(dtype)).ok_or(MapError::Garbage("the element type"))?,
            rank: usize::from(rank),
            address,
            dims,
            strides,
            box_dims,
            element_strides,
            swizzle: *Swizzle::ALL.get(usize::from(swizzle)).ok_or(MapError::Garbage("the swizzle"))?,
            fill: if nan == 0 { OobFill::Zero } else { OobFill::Nan },
        })
    }
}

fn check_dimension(spec: &TensorSpec, index: usize) -> Result<(), MapError> {
    let (extent, cut, skip) = (spec.dims[index], spec.box_dims[index], spec.element_strides[index]);
    if !(1..=1 << 32).contains(&extent) {
        return Err(MapError::Dim { index, found: extent });
    }
    if index > 0 {
        let stride = spec.strides[index - 1];
        if !stride.is_multiple_of(16) || stride >= 1 << 40 {
            return Err(MapError::Stride { index, found: stride });
        }
    }
    if !(1..=256).contains(&cut) {
        return Err(MapError::Box { index, found: cut });
    }
    if !(1..=8).contains(&skip) {
        return Err(MapError::ElementStride { index, found: skip });
    }
    Ok(())
}

fn check_rows(spec: &TensorSpec) -> Result<(), MapError> {
    let found = spec.box_dims[0] * spec.dtype.bytes();
    if !found.is_multiple_of(16) {
        return Err(MapError::InnerBytes(found));
    }
    let span = spec.swizzle.span();
    match spec.swizzle {
        Swizzle::None => Ok(()),
        _ if found > span => Err(MapError::InnerBeyondSwizzle { span, found }),
        _ if found < span => Err(MapError::InnerBelowSwizzle { span, found }),
        _ => Ok(()),
    }
}

/// The same map has the same bytes, whatever stood in the unused entries.
fn normalised(mut spec: TensorSpec) -> TensorSpec {
    spec.dims[spec.rank..].fill(1);
    spec.strides[spec.rank - 1..].fill(0);
    spec.box_dims[spec.rank..].fill(1);
    spec.element_strides[spec.rank..].fill(1);
    spec
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    /// The next bytes. The layout fits into a tensor map, so they are there.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let (head, rest) = self.bytes.split_at(N);
        taken.copy_from_slice(head);
        self.bytes = rest;
        taken
    }
}
