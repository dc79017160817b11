//! The threads that norm a group together.

use inkwell::IntPredicate;
use inkwell::values::IntValue;
use nemo_ir::plan::{Extent, Geometry};
use nemo_ir::types::Dim;

use crate::nvptx::geometry::{self, tiles};
use crate::nvptx::{Emit, Float, Int, Ptr, SharedBytes};

/// The most columns that a thread keeps in registers.
pub(super) const MOST_HELD: u32 = 32;
/// Pieces that a thread of a CTA takes, where there are enough threads: loads under way together.
const PIECES: u64 = 4;
/// The most pieces of a group that a warp takes.
const MOST_OF_WARP: u64 = 32 * PIECES;
/// Threads of a CTA whose teams are lanes of warps.
const SHARING: u32 = 128;
const WARP: u32 = 32;

/// How many threads, and what each takes: pieces of `vector` columns, a team's width apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Team {
    /// Threads: a power of two up to a warp, or whole warps, which then are the CTA.
    pub threads: u32,
    /// Columns of a piece, a power of two.
    pub vector: u32,
    /// Pieces of a group.
    pieces: u64,
}

/// This thread's part of the work.
pub(super) struct Place<'c> {
    pub row: Int<'c>,
    pub group: Int<'c>,
    /// Its first column in the group.
    pub first: Int<'c>,
    /// Whether there is such a group; `None` where there always is.
    pub there: Option<IntValue<'c>>,
}

impl Team {
    /// For groups of so many columns, of which an access takes at most `vector`.
    pub fn of(group: u64, vector: u32) -> Self {
        let vector = vector.min(1 << group.trailing_zeros().min(3));
        let pieces = group / u64::from(vector);
        let threads = match pieces {
            0..=32 => pieces.next_power_of_two(),
            33..=MOST_OF_WARP => u64::from(WARP),
            _ => pieces.div_ceil(PIECES).next_multiple_of(u64::from(WARP)).min(1024),
        };
        Self { threads: threads as u32, vector, pieces }
    }

    /// Pieces that a thread takes at most.
    pub fn rounds(self) -> u32 {
        self.pieces.div_ceil(u64::from(self.threads)) as u32
    }

    /// Rounds in which every thread has a piece.
    pub fn full_rounds(self) -> u32 {
        (self.pieces / u64::from(self.threads)) as u32
    }

    /// Columns from a thread's piece to its next.
    pub fn stride(self) -> u32 {
        self.threads * self.vector
    }

    /// Whether this thread has a piece in the round after the full ones.
    pub fn has_rest<'c>(self, e: &Emit<'c, '_>, place: &Place<'c>) -> IntValue<'c> {
        let columns = (self.pieces % u64::from(self.threads)) as u32 * self.vector;
        e.cmp(IntPredicate::ULT, place.first, e.word(columns))
    }

    fn is_cta(self) -> bool {
        self.threads > WARP
    }

    /// Teams of a CTA.
    fn teams(self) -> u32 {
        if self.is_cta() { 1 } else { SHARING / self.threads }
    }

    /// Rows whose groups are all of one CTA: where a row has too few groups for it.
    fn rows(self, groups: u64) -> u64 {
        (u64::from(self.teams()) / groups).max(1)
    }

    pub fn geometry(self, rows: Dim, groups: u64) -> Geometry {
        let per_cta = self.rows(groups);
        let across = if per_cta > 1 { 1 } else { groups.div_ceil(u64::from(self.teams())) };
        let grid = [tiles(rows, per_cta), Extent::Const(across), Extent::Const(1)];
        let threads = if self.is_cta() { self.threads } else { SHARING };
        let shared = if self.is_cta() { SharedBytes::default().and(threads / WARP * 4, 4).0 } else { 0 };
        Geometry { shared, ..geometry::of(grid, threads) }
    }

    pub fn place<'c>(self, e: &Emit<'c, '_>, rows: Dim, groups: u64) -> Place<'c> {
        let piece = |index| e.times(index, self.vector.into());
        if self.is_cta() {
            return Place { row: e.cta(0), group: e.cta(1), first: piece(e.thread()), there: None };
        }
        let (lanes, per_cta) = (e.word(self.threads), self.rows(groups));
        let (team, first) = (e.div(e.thread(), lanes), piece(e.rem(e.thread(), lanes)));
        if per_cta == 1 {
            let group = e.add(e.times(e.cta(1), self.teams().into()), team);
            let there = e.cmp(IntPredicate::ULT, group, e.word(groups as u32));
            return Place { row: e.cta(0), group, first, there: Some(there) };
        }
        let count = e.word(groups as u32);
        let row = e.add(e.times(e.cta(0), per_cta), e.div(team, count));
        let inside = e.cmp(IntPredicate::ULT, team, e.word((per_cta * groups) as u32));
        let there = e.and(inside, e.cmp(IntPredicate::ULT, row, e.dim(rows)));
        Place { row, group: e.rem(team, count), first, there: Some(there) }
    }

    /// Space for [`Team::sum`].
    pub fn space<'c>(self, e: &Emit<'c, '_>) -> Option<Ptr<'c>> {
        self.is_cta().then(|| e.shared(e.warps() * 4, 4))
    }

    /// The sum over the team's threads, in each of them.
    pub fn sum<'c>(self, e: &Emit<'c, '_>, value: Float<'c>, space: Option<Ptr<'c>>) -> Float<'c> {
        match space {
            Some(space) => e.cta_sum(value, space),
            None => e.across(value, self.threads, |a, b| e.fadd(a, b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use nemo_ir::types::Symbol;

    use super::*;

    fn grid(group: u64, vector: u32, groups: u64) -> (Team, [Extent; 2], u32) {
        let team = Team::of(group, vector);
        let geometry = team.geometry(Symbol::T.into(), groups);
        (team, [geometry.grid[0], geometry.grid[1]], geometry.threads)
    }

    #[test]
    fn a_wide_group_has_a_cta() {
        let (team, grid, threads) = grid(4480, 4, 1);
        assert_eq!((team.threads, team.rounds(), team.full_rounds()), (288, 4, 3));
        assert_eq!((grid, threads), ([Extent::each(Symbol::T), Extent::Const(1)], 288));
        let team = Team::of(16384, 4);
        assert_eq!((team.threads, team.rounds()), (1024, 4));
    }

    #[test]
    fn small_groups_share_a_cta() {
        let (team, of_heads, threads) = grid(128, 4, 40);
        assert_eq!((team.threads, team.rounds()), (32, 1));
        assert_eq!((of_heads, threads), ([Extent::each(Symbol::T), Extent::Const(10)], 128));
        // Two lanes for each of three groups: 21 rows fill 126 of the CTA's 128 lanes.
        let (team, narrow, _) = grid(8, 4, 3);
        assert_eq!((team.threads, narrow), (2, [Extent::per(Symbol::T, 21), Extent::Const(1)]));
    }

    #[test]
    fn a_piece_divides_the_group() {
        assert_eq!(Team::of(4481, 4).vector, 1);
        assert_eq!(Team::of(6, 4).vector, 2);
    }
}
