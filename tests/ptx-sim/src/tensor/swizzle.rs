//! The swizzles of shared memory that tensor copies write and `wgmma` reads.
//!
//! A swizzle exchanges the 16-byte chunks within a line of 128 bytes, by exclusive or of bits of the address
//! ("Swizzling Modes" of the PTX ISA; `Swizzle<B, 4, 3>` in the notation of its layout tables): the `B` bits
//! from bit 4 on are combined with the `B` bits from bit 7 on. The address is that of shared memory, not an
//! offset into a tile: a tile that does not start at a multiple of [`Swizzle::repeat`] starts within the
//! pattern.

/// Which chunks change places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Swizzle {
    /// Chunks stay where they are.
    #[default]
    None,
    /// Within 32 bytes; two lines differ.
    B32,
    /// Within 64 bytes; four lines differ.
    B64,
    /// Within 128 bytes; eight lines differ.
    B128,
}

/// Bytes that move together.
pub const CHUNK: u32 = 16;

impl Swizzle {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::None, Self::B32, Self::B64, Self::B128];

    /// Bytes within which chunks change places: 16 (none does), 32, 64 or 128.
    pub const fn span(self) -> u32 {
        match self {
            Self::None => CHUNK,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }

    /// Bytes after which the pattern starts again.
    pub const fn repeat(self) -> u32 {
        match self {
            Self::None => CHUNK,
            _ => self.span() * 8,
        }
    }

    /// The address at which the byte is that has the address `plain` in the layout without swizzle.
    pub const fn apply(self, plain: u32) -> u32 {
        self.apply_from(plain, 0)
    }

    /// As [`Swizzle::apply`], for a pattern that starts `lines` times 128 bytes behind a multiple of its
    /// repeat: the base offset of a matrix descriptor.
    pub const fn apply_from(self, plain: u32, lines: u32) -> u32 {
        plain ^ ((plain.wrapping_sub(lines * 128) >> 3) & (self.span() - CHUNK))
    }
}
