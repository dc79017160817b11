//! `ldmatrix` and `stmatrix`: 8x8 matrices of 16-bit elements between shared memory and fragments.
//!
//! "Warp-level matrix load instruction: ldmatrix" of the PTX ISA: matrix `i` has its eight row addresses in
//! lanes `8 i` to `8 i + 7`; a row is 16 bytes, aligned to 16, and rows need not follow one another. Lane `l`
//! receives elements `2 (l % 4)` and `2 (l % 4) + 1` of row `l / 4`, the first in the lower half. With `.trans`
//! it receives element `l / 4` of rows `2 (l % 4)` and `2 (l % 4) + 1`.

use super::Lanes;

/// How many matrices one instruction moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// `.x1`
    X1,
    /// `.x2`
    X2,
    /// `.x4`
    X4,
}

impl Count {
    /// Matrices, which is also registers a lane.
    pub const fn matrices(self) -> usize {
        match self {
            Self::X1 => 1,
            Self::X2 => 2,
            Self::X4 => 4,
        }
    }
}

/// How elements map to lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Rows of memory are rows of the fragment.
    Plain,
    /// `.trans`: rows of memory are columns of the fragment.
    Transposed,
}

/// The row addresses of each phase. One matrix is read in one phase; the eight rows of a phase conflict where
/// two of them lie in the same banks.
pub fn phases(count: Count, rows: &[u32; 32]) -> impl Iterator<Item = &[u32; 8]> {
    rows.as_chunks().0.iter().take(count.matrices())
}

/// `ldmatrix`: fragments of up to four matrices; registers beyond `count` are zero. `read` gets the 16 bytes
/// at a row address.
pub fn ldmatrix<E>(
    count: Count,
    order: Order,
    rows: &[u32; 32],
    mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<[Lanes; 4], E> {
    let mut fragments = [[0; 32]; 4];
    for (fragment, addresses) in fragments.iter_mut().zip(phases(count, rows)) {
        let mut matrix = [[0u16; 8]; 8];
        for (row, &address) in matrix.iter_mut().zip(addresses) {
            let bytes = read(address)?;
            for (element, pair) in row.iter_mut().zip(bytes.as_chunks().0) {
                *element = u16::from_le_bytes(*pair);
            }
        }
        for (lane, register) in fragment.iter_mut().enumerate() {
            let [low, high] = positions(order, lane).map(|(row, column)| matrix[row][column]);
            *register = u32::from(low) | u32::from(high) << 16;
        }
    }
    Ok(fragments)
}

/// `stmatrix`: the reverse of [`ldmatrix`]. `write` puts 16 bytes at a row address.
pub fn stmatrix<E>(
    count: Count,
    order: Order,
    rows: &[u32; 32],
    fragments: &[Lanes],
    mut write: impl FnMut(u32, [u8; 16]) -> Result<(), E>,
) -> Result<(), E> {
    for (fragment, addresses) in fragments.iter().zip(phases(count, rows)) {
        let mut matrix = [[0u16; 8]; 8];
        for (lane, &register) in fragment.iter().enumerate() {
            let [low, high] = positions(order, lane);
            matrix[low.0][low.1] = register as u16;
            matrix[high.0][high.1] = (register >> 16) as u16;
        }
        for (row, &address) in matrix.iter().zip(addresses) {
            let mut bytes = [0; 16];
            for (pair, element) in bytes.as_chunks_mut().0.iter_mut().zip(row) {
                *pair = element.to_le_bytes();
            }
            write(address, bytes)?;
        }
    }
    Ok(())
}

/// Row and column in memory of the two elements of a lane.
fn positions(order: Order, lane: usize) -> [(usize, usize); 2] {
    let (group, pair) = (lane / 4, 2 * (lane % 4));
    match order {
        Order::Plain => [(group, pair), (group, pair + 1)],
        Order::Transposed => [(pair, group), (pair + 1, group)],
    }
}
