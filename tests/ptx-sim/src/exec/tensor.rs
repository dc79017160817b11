//! Matrix instructions.
//!
//! A `wgmma` reads its operands and changes its accumulators when it is waited for: whoever does not wait, or
//! overwrites the operands too early, gets wrong numbers or a race.

use super::memory::{addresses, split_generic};
use super::shared::Touch;
use super::warp::Warp;
use super::{Machine, Result, Stop};
use crate::count::wavefronts;
use crate::decode::op::{Addr, W};
use crate::decode::tensor::{TensorOp, WarpgroupA, WarpgroupOp};
use crate::error::{FaultKind, Space};
use crate::tensor::Lanes;
use crate::tensor::ldmatrix::{Count, ldmatrix, stmatrix};
use crate::tensor::mma::mma;
use crate::tensor::wgmma::{Descriptor, Left, Operand, Wgmma, wgmma};

/// A `wgmma` of one warp that was not waited for.
#[derive(Debug)]
pub(super) struct PendingProduct<'a> {
    warp: u32,
    group: u32,
    op: &'a WarpgroupOp,
    /// Values of the registers of A when it was issued.
    registers: Option<Box<[Lanes; 4]>>,
    /// Descriptors of A and B.
    descriptors: [u64; 2],
    accumulate: bool,
}

/// All lanes of the warp must execute.
fn whole(mask: u32) -> Result<()> {
    if mask == u32::MAX {
        return Ok(());
    }
    Err(Stop::warp(FaultKind::DivergentSync { named: u32::MAX, active: mask }))
}

fn registers(warp: &Warp, list: &[W]) -> [Lanes; 4] {
    let mut values = [[0; 32]; 4];
    values.iter_mut().zip(list).for_each(|(value, &register)| *value = *warp.rw(register));
    values
}

impl<'a> Machine<'a> {
    pub(super) fn tensor(&mut self, warp: &mut Warp, op: &'a TensorOp, mask: u32) -> Result<()> {
        match op {
            TensorOp::Bulk(op) => return self.bulk(warp, op, mask),
            _ => whole(mask)?,
        }
        match op {
            TensorOp::Mma { kind, d, a, b, c } => {
                let [a, b, c] = [a, b, c].map(|list| registers(warp, list));
                let result = mma(*kind, &a, &b, &c);
                d.iter().zip(&result).for_each(|(&register, values)| warp.set_w(register, values, mask));
                self.tally.counts.mma_flops += 2 * 16 * 8 * kind.k() as u64;
                Ok(())
            }
            TensorOp::LoadMatrix { count, order, d, addr, space } => {
                let rows = self.rows(warp, *count, *addr, *space, Touch::Read)?;
                let shared = &self.shared.bytes;
                let read = |at: u32| {
                    let at = at as usize;
                    Ok::<_, std::convert::Infallible>(shared[at..at + 16].try_into().expect("16 bytes"))
                };
                let Ok(result) = ldmatrix(*count, *order, &rows, read);
                d.iter().zip(&result).for_each(|(&register, values)| warp.set_w(register, values, mask));
                Ok(())
            }
            TensorOp::StoreMatrix { count, order, a, addr, space } => {
                let rows = self.rows(warp, *count, *addr, *space, Touch::Write)?;
                let shared = &mut self.shared;
                let write = |at: u32, bytes: [u8; 16]| {
                    let at = at as usize;
                    shared.bytes[at..at + 16].copy_from_slice(&bytes);
                    shared.written.insert(at, 16);
                    Ok::<_, std::convert::Infallible>(())
                };
                let values = registers(warp, a);
                let Ok(()) = stmatrix(*count, *order, &rows, &values[..a.len()], write);
                Ok(())
            }
            TensorOp::Wgmma(op) => {
                let (registers, a) = match op.a {
                    WarpgroupA::Registers(list) => (Some(Box::new(registers(warp, &list))), 0),
                    WarpgroupA::Shared(a, _) => (None, warp.rd(a)[0]),
                };
                let (p, flip) = op.accumulate;
                self.products.push(PendingProduct {
                    warp: warp.id,
                    group: warp.product_group,
                    op,
                    registers,
                    descriptors: [a, warp.rd(op.b)[0]],
                    accumulate: (warp.p[p.0 as usize] ^ flip) & 1 != 0,
                });
                Ok(())
            }
            TensorOp::WgmmaCommit => {
                warp.product_group += 1;
                Ok(())
            }
            TensorOp::WgmmaWait(open) => self.wait_products(warp, *open),
            TensorOp::WgmmaFence | TensorOp::Bulk(_) => Ok(()),
        }
    }

    /// The rows of `ldmatrix` or `stmatrix`, checked and counted.
    fn rows(
        &mut self,
        warp: &Warp,
        count: Count,
        addr: Addr,
        space: Space,
        touch: Touch,
    ) -> Result<[u32; 32]> {
        let used = 8 * count.matrices();
        let mask = u32::MAX >> (32 - used);
        let mut places = addresses(warp, addr);
        if space == Space::Generic {
            let (found, group, resolved) = split_generic(&places, mask);
            if found != Space::Shared || group != mask {
                return Err(Stop::warp(FaultKind::Undefined("a row does not lie in shared memory")));
            }
            places = resolved;
        }
        let mut offsets = [0; 32];
        for lane in 0..used {
            offsets[lane] = self.shared.touch(warp.id as usize, lane, places[lane], 16, touch)?;
        }
        let counts = &mut self.tally.counts;
        let counts = if touch == Touch::Read { &mut counts.shared_loads } else { &mut counts.shared_stores };
        let (needed, ideal) = wavefronts(&offsets, mask, 16);
        counts.requests += 1;
        counts.bytes += 16 * used as u64;
        counts.replays += needed - ideal;
        Ok(offsets.map(|at| at as u32))
    }

    /// Executes the products that a wait of this warp is for.
    fn wait_products(&mut self, warp: &mut Warp, open: u32) -> Result<()> {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for product in std::mem::take(&mut self.products) {
            let waited = product.warp == warp.id && product.group + open < warp.product_group;
            if waited { now.push(product) } else { later.push(product) }
        }
        self.products = later;
        now.into_iter().try_for_each(|product| self.product(warp, &product))
    }

    fn product(&mut self, warp: &mut Warp, product: &PendingProduct<'_>) -> Result<()> {
        let op = product.op;
        let [a, b] = product.descriptors;
        let decode = |bits| {
            Descriptor::decode(bits).map_err(|error| Stop::warp(FaultKind::TensorCopy(error.to_string())))
        };
        let left = match (&product.registers, &op.a) {
            (Some(registers), _) => Left::Registers(registers),
            (None, WarpgroupA::Shared(_, major)) => {
                Left::Shared(Operand { descriptor: decode(a)?, major: *major })
            }
            (None, WarpgroupA::Registers(_)) => unreachable!("registers are kept when A is in registers"),
        };
        let instruction = Wgmma {
            half: op.half,
            columns: op.columns,
            a: left,
            b: Operand { descriptor: decode(b)?, major: op.b_major },
            accumulate: product.accumulate,
            a_sign: op.a_sign,
            b_sign: op.b_sign,
        };
        let mut sums: Vec<Lanes> = op.d.iter().map(|&register| *warp.rw(register)).collect();
        let agent = warp.id as usize;
        let shared = &mut self.shared;
        wgmma(&instruction, agent % 4, &mut sums, |address| {
            let at = shared.touch(agent, 0, u64::from(address), 16, Touch::Read)?;
            Ok::<_, Box<Stop>>(shared.bytes[at..at + 16].try_into().expect("16 bytes"))
        })?;
        op.d.iter().zip(&sums).for_each(|(&register, values)| warp.set_w(register, values, u32::MAX));
        self.tally.counts.mma_flops += 2 * 16 * 16 * op.columns.get() as u64;
        Ok(())
    }
}
