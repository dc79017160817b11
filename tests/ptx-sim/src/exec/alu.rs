//! Instructions that touch registers only.

use super::lanes;
use super::warp::Warp;
use crate::decode::op::{D, L32, L64, Logic, Op, P, Reg, SetDst, W};
use crate::error::Space;
use crate::layout;

const FULL: u32 = u32::MAX;

#[inline(always)]
fn commit32(to: &mut L32, from: &L32, mask: u32) {
    if mask == FULL {
        *to = *from;
    } else {
        for lane in 0..32 {
            to[lane] = if mask >> lane & 1 != 0 { from[lane] } else { to[lane] };
        }
    }
}

#[inline(always)]
fn commit64(to: &mut L64, from: &L64, mask: u32) {
    if mask == FULL {
        *to = *from;
    } else {
        for lane in 0..32 {
            to[lane] = if mask >> lane & 1 != 0 { from[lane] } else { to[lane] };
        }
    }
}

impl Warp {
    /// Registers of an index.
    #[inline(always)]
    pub(crate) fn rw(&self, register: W) -> &L32 {
        &self.w[register.0 as usize]
    }

    #[inline(always)]
    pub(crate) fn rd(&self, register: D) -> &L64 {
        &self.d[register.0 as usize]
    }

    #[inline(always)]
    pub(crate) fn set_w(&mut self, register: W, values: &L32, mask: u32) {
        commit32(&mut self.w[register.0 as usize], values, mask);
    }

    #[inline(always)]
    pub(crate) fn set_d(&mut self, register: D, values: &L64, mask: u32) {
        commit64(&mut self.d[register.0 as usize], values, mask);
    }

    #[inline(always)]
    pub(crate) fn set_p(&mut self, register: P, value: u32, mask: u32) {
        let p = &mut self.p[register.0 as usize];
        *p = *p & !mask | value & mask;
    }

    /// Sets one lane of a register of either width.
    #[inline(always)]
    pub(crate) fn set_lane(&mut self, register: Reg, lane: usize, value: u64) {
        match register {
            Reg::W(w) => self.w[w.0 as usize][lane] = value as u32,
            Reg::D(d) => self.d[d.0 as usize][lane] = value,
            Reg::Sink => {}
        }
    }

    /// One lane of a register of either width.
    #[inline(always)]
    pub(crate) fn lane(&self, register: Reg, lane: usize) -> u64 {
        match register {
            Reg::W(w) => u64::from(self.w[w.0 as usize][lane]),
            Reg::D(d) => self.d[d.0 as usize][lane],
            Reg::Sink => 0,
        }
    }

    /// Executes an instruction on registers; false if it is none.
    #[inline(always)]
    pub(super) fn arithmetic(&mut self, op: &Op, mask: u32) -> bool {
        let mut w = [0u32; 32];
        let mut d = [0u64; 32];
        match *op {
            Op::W2(f, dst, a, b) => {
                f(&mut w, self.rw(a), self.rw(b));
                self.set_w(dst, &w, mask);
            }
            Op::W3(f, dst, a, b, c) => {
                f(&mut w, self.rw(a), self.rw(b), self.rw(c));
                self.set_w(dst, &w, mask);
            }
            Op::W1(f, dst, a) => {
                f(&mut w, self.rw(a));
                self.set_w(dst, &w, mask);
            }
            Op::W4(f, dst, [a, b, c, e]) => {
                f(&mut w, self.rw(a), self.rw(b), self.rw(c), self.rw(e));
                self.set_w(dst, &w, mask);
            }
            Op::D1(f, dst, a) => {
                f(&mut d, self.rd(a));
                self.set_d(dst, &d, mask);
            }
            Op::D2(f, dst, a, b) => {
                f(&mut d, self.rd(a), self.rd(b));
                self.set_d(dst, &d, mask);
            }
            Op::D3(f, dst, a, b, c) => {
                f(&mut d, self.rd(a), self.rd(b), self.rd(c));
                self.set_d(dst, &d, mask);
            }
            Op::WD(f, dst, a) => {
                f(&mut w, self.rd(a));
                self.set_w(dst, &w, mask);
            }
            Op::DW(f, dst, a) => {
                f(&mut d, self.rw(a));
                self.set_d(dst, &d, mask);
            }
            Op::Dww(f, dst, a, b) => {
                f(&mut d, self.rw(a), self.rw(b));
                self.set_d(dst, &d, mask);
            }
            Op::Dwwd(f, dst, a, b, c) => {
                f(&mut d, self.rw(a), self.rw(b), self.rd(c));
                self.set_d(dst, &d, mask);
            }
            Op::Ddw(f, dst, a, b) => {
                f(&mut d, self.rd(a), self.rw(b));
                self.set_d(dst, &d, mask);
            }
            Op::Ddww(f, dst, a, b, c) => {
                f(&mut d, self.rd(a), self.rw(b), self.rw(c));
                self.set_d(dst, &d, mask);
            }
            Op::Dddww(f, dst, a, b, c, e) => {
                f(&mut d, self.rd(a), self.rd(b), self.rw(c), self.rw(e));
                self.set_d(dst, &d, mask);
            }
            Op::CmpW(f, dst, a, b) => {
                let holds = f(self.rw(a), self.rw(b));
                self.set_comparison(dst, holds, mask);
            }
            Op::CmpD(f, dst, a, b) => {
                let holds = f(self.rd(a), self.rd(b));
                self.set_comparison(dst, holds, mask);
            }
            Op::SelW(dst, a, b, p) => {
                let p = self.p[p.0 as usize];
                let (a, b) = (self.rw(a), self.rw(b));
                (0..32).for_each(|lane| w[lane] = if p >> lane & 1 != 0 { a[lane] } else { b[lane] });
                self.set_w(dst, &w, mask);
            }
            Op::SelD(dst, a, b, p) => {
                let p = self.p[p.0 as usize];
                let (a, b) = (self.rd(a), self.rd(b));
                (0..32).for_each(|lane| d[lane] = if p >> lane & 1 != 0 { a[lane] } else { b[lane] });
                self.set_d(dst, &d, mask);
            }
            Op::P1(f, dst, a) => self.set_p(dst, f(self.p[a.0 as usize]), mask),
            Op::P2(f, dst, a, b) => {
                self.set_p(dst, f(self.p[a.0 as usize], self.p[b.0 as usize]), mask);
            }
            Op::Nop => {}
            _ => return self.rare(op, mask),
        }
        true
    }

    #[inline(never)]
    fn rare(&mut self, op: &Op, mask: u32) -> bool {
        match *op {
            Op::CarryW { f, dst, args: [a, b, c], uses, sets } => {
                for lane in lanes(mask) {
                    let carry = uses && self.carry >> lane & 1 != 0;
                    let (value, out) = f(self.rw(a)[lane], self.rw(b)[lane], self.rw(c)[lane], carry);
                    self.w[dst.0 as usize][lane] = value;
                    self.set_carry(lane, sets, out);
                }
            }
            Op::CarryD { f, dst, args: [a, b, c], uses, sets } => {
                for lane in lanes(mask) {
                    let carry = uses && self.carry >> lane & 1 != 0;
                    let (value, out) = f(self.rd(a)[lane], self.rd(b)[lane], self.rd(c)[lane], carry);
                    self.d[dst.0 as usize][lane] = value;
                    self.set_carry(lane, sets, out);
                }
            }
            Op::IsSpace(space, p, a) => {
                let mut holds = 0;
                for (lane, &address) in self.rd(a).iter().enumerate() {
                    let (of, _) = layout::resolve(address);
                    holds |= u32::from(of == space || space == Space::Generic) << lane;
                }
                self.set_p(p, holds, mask);
            }
            Op::ToFloat(ref how, dst, src) => {
                for lane in lanes(mask) {
                    let value = how.apply(self.lane(src, lane));
                    self.set_lane(dst, lane, value);
                }
            }
            Op::ActiveMask(dst) => self.set_w(dst, &[mask; 32], mask),
            Op::Clock(dst) => {
                let now = self.executed;
                lanes(mask).for_each(|lane| self.set_lane(dst, lane, now));
            }
            _ => return false,
        }
        true
    }

    fn set_carry(&mut self, lane: usize, sets: bool, carry: bool) {
        if sets {
            self.carry = self.carry & !(1 << lane) | u32::from(carry) << lane;
        }
    }

    #[inline(always)]
    fn set_comparison(&mut self, dst: SetDst, holds: u32, mask: u32) {
        let combine = |value: u32, with: u32, logic: Logic| match logic {
            Logic::And => value & with,
            Logic::Or => value | with,
            Logic::Xor => value ^ with,
        };
        let (mut yes, mut no) = (holds, !holds);
        if let Some((logic, p, flip)) = dst.with {
            let with = self.p[p.0 as usize] ^ flip;
            (yes, no) = (combine(yes, with, logic), combine(no, with, logic));
        }
        if let Some(q) = dst.q {
            self.set_p(q, no, mask);
        }
        self.set_p(dst.p, yes, mask);
    }
}
