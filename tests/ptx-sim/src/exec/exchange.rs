//! What lanes of a warp tell each other.

use super::warp::Warp;
use super::{Result, Stop, lanes};
use crate::decode::op::{FnRedux, P, Reg, Shuffle, Vote, W};
use crate::error::FaultKind;

impl Warp {
    /// The member mask; all live lanes that it names must execute, and name the same lanes.
    pub(super) fn members(&self, members: W, mask: u32) -> Result<u32> {
        let values = self.rw(members);
        for lane in lanes(mask) {
            let named = values[lane];
            if named & self.live != mask {
                return Err(Stop::lane(lane, FaultKind::DivergentSync { named, active: mask }));
            }
        }
        Ok(mask)
    }

    pub(super) fn shuffle(
        &mut self,
        mode: Shuffle,
        (dst, valid): (W, Option<P>),
        [a, b, c]: [W; 3],
        members: W,
        mask: u32,
    ) -> Result<()> {
        self.members(members, mask)?;
        let (values, by, clamp) = (self.rw(a), self.rw(b), self.rw(c));
        let mut result = *self.rw(dst);
        let mut inside = 0u32;
        for lane in 0..32u32 {
            let at = lane as usize;
            let step = by[at] & 31;
            let segment = clamp[at] >> 8 & 31;
            let last = lane & segment | clamp[at] & 31 & !segment;
            let first = lane & segment;
            let (from, ok) = match mode {
                Shuffle::Up => (lane.wrapping_sub(step), lane as i32 - step as i32 >= last as i32),
                Shuffle::Down => (lane + step, lane + step <= last),
                Shuffle::Bfly => (lane ^ step, lane ^ step <= last),
                Shuffle::Idx => (first | step & !segment, first | step & !segment <= last),
            };
            result[at] = if ok { values[from as usize & 31] } else { values[at] };
            inside |= u32::from(ok) << lane;
        }
        self.set_w(dst, &result, mask);
        if let Some(valid) = valid {
            self.set_p(valid, inside, mask);
        }
        Ok(())
    }

    pub(super) fn vote(
        &mut self,
        vote: Vote,
        value: u32,
        dst: Reg,
        dst_p: Option<P>,
        members: Option<W>,
        mask: u32,
    ) -> Result<()> {
        if let Some(members) = members {
            self.members(members, mask)?;
        }
        let value = value & mask;
        let holds = match vote {
            Vote::All => value == mask,
            Vote::Any => value != 0,
            Vote::Uni => value == mask || value == 0,
            Vote::Ballot => false,
        };
        lanes(mask).for_each(|lane| self.set_lane(dst, lane, u64::from(value)));
        if let Some(p) = dst_p {
            self.set_p(p, if holds { u32::MAX } else { 0 }, mask);
        }
        Ok(())
    }

    pub(super) fn matching(
        &mut self,
        all: bool,
        dst: W,
        valid: Option<P>,
        a: Reg,
        members: W,
        mask: u32,
    ) -> Result<()> {
        self.members(members, mask)?;
        let mut result = [0u32; 32];
        for lane in lanes(mask) {
            let mine = self.lane(a, lane);
            for other in lanes(mask) {
                result[lane] |= u32::from(self.lane(a, other) == mine) << other;
            }
        }
        let same = lanes(mask).all(|lane| result[lane] == mask);
        if all && !same {
            result = [0; 32];
        }
        self.set_w(dst, &result, mask);
        if let Some(valid) = valid {
            self.set_p(valid, if same { u32::MAX } else { 0 }, mask);
        }
        Ok(())
    }

    pub(super) fn redux(&mut self, f: FnRedux, dst: W, a: W, members: W, mask: u32) -> Result<()> {
        self.members(members, mask)?;
        let values = self.rw(a);
        let result = lanes(mask).map(|lane| values[lane]).reduce(f).unwrap_or(0);
        self.set_w(dst, &[result; 32], mask);
        Ok(())
    }

    pub(super) fn elect(&mut self, dst: Reg, p: P, members: W, mask: u32) -> Result<()> {
        self.members(members, mask)?;
        let leader = mask.trailing_zeros();
        lanes(mask).for_each(|lane| self.set_lane(dst, lane, u64::from(leader)));
        self.set_p(p, 1 << leader, mask);
        Ok(())
    }
}
