//! Matrix instructions. All lanes of the warp execute them.
//!
//! A product of a warpgroup is made when it is issued, by each of the four warps for its own rows. So the
//! accumulators change early, and operands in shared memory count as read by the warp at the issue: a kernel
//! that overwrites them before it waits is not found.

use super::memory::{addresses, split_generic};
use super::shared::Touch;
use super::warp::Warp;
use super::{Machine, Result, Stop};
use crate::count::wavefronts;
use crate::decode::op::{Addr, D, W};
use crate::decode::tensor::{TensorOp, WarpgroupA, WarpgroupOp};
use crate::error::{FaultKind, Space};
use crate::tensor::Lanes;
use crate::tensor::ldmatrix::{Count, ldmatrix, stmatrix};
use crate::tensor::mma::mma;
use crate::tensor::wgmma::{Descriptor, Left, Operand, Wgmma, wgmma};

/// Bytes of a row of a matrix, and of a chunk of an operand in shared memory.
const ROW: usize = 16;

impl Machine<'_> {
    pub(super) fn tensor(&mut self, warp: &mut Warp, op: &TensorOp, mask: u32) -> Result<()> {
        if let TensorOp::Bulk(op) = op {
            return self.bulk(warp, op, mask);
        }
        if mask != u32::MAX {
            return Err(Stop::warp(FaultKind::DivergentSync { named: u32::MAX, active: mask }));
        }
        match op {
            TensorOp::Mma { kind, d, a, b, c } => {
                let mut fragments = [[[0; 32]; 4]; 3];
                for (fragment, registers) in fragments.iter_mut().zip([a, b, c]) {
                    gather(warp, registers, fragment);
                }
                let [a, b, c] = &fragments;
                scatter(warp, d, &mma(*kind, a, b, c));
                self.tally.counts.mma_flops += 2 * 16 * 8 * kind.k() as u64;
                Ok(())
            }
            TensorOp::LoadMatrix { count, order, d, addr, space } => {
                let rows = self.rows(warp, *count, *addr, *space, Touch::Read)?;
                let bytes = &self.shared.bytes;
                let read = |at: u32| Ok::<_, Box<Stop>>(chunk(bytes, at as usize));
                scatter(warp, d, &ldmatrix(*count, *order, &rows, read)?);
                Ok(())
            }
            TensorOp::StoreMatrix { count, order, a, addr, space } => {
                self.progress += 1;
                let rows = self.rows(warp, *count, *addr, *space, Touch::Write)?;
                let mut fragments = [[0; 32]; 4];
                gather(warp, a, &mut fragments);
                let shared = &mut self.shared;
                stmatrix(*count, *order, &rows, &fragments, |at, row| {
                    shared.bytes[at as usize..at as usize + ROW].copy_from_slice(&row);
                    shared.written.insert(at as usize, ROW);
                    Ok(())
                })
            }
            TensorOp::Wgmma(op) => self.warpgroup(warp, op),
            TensorOp::WgmmaFence | TensorOp::WgmmaCommit | TensorOp::WgmmaWait(_) => Ok(()),
            TensorOp::Bulk(_) => unreachable!("bulk copies were dealt with"),
        }
    }

    /// Offsets of the rows of all matrices, checked and counted; those of other lanes are 0.
    fn rows(&mut self, warp: &Warp, count: Count, addr: Addr, space: Space, touch: Touch) -> Result<Lanes> {
        let lanes = 8 * count.matrices();
        let mask = u32::MAX >> (32 - lanes);
        let mut places = addresses(warp, addr);
        if space == Space::Generic {
            let (found, group, resolved) = split_generic(&places, mask);
            if found != Space::Shared || group != mask {
                let kind = FaultKind::Undefined("a row of a matrix does not lie in shared memory");
                return Err(Stop::warp(kind));
            }
            places = resolved;
        }
        let mut offsets = [0; 32];
        for (lane, &address) in places[..lanes].iter().enumerate() {
            offsets[lane] = self.shared.touch(warp.id as usize, lane, address, ROW, touch)?;
        }
        let counts = &mut self.tally.counts;
        let counts = if touch == Touch::Read { &mut counts.shared_loads } else { &mut counts.shared_stores };
        let (needed, ideal) = wavefronts(&offsets, mask, ROW);
        counts.requests += 1;
        counts.bytes += (lanes * ROW) as u64;
        counts.replays += needed - ideal;
        Ok(offsets.map(|offset| offset as u32))
    }

    fn warpgroup(&mut self, warp: &mut Warp, op: &WarpgroupOp) -> Result<()> {
        let accumulate = match warp.p[op.accumulate.0.0 as usize] ^ op.accumulate.1 {
            0 => false,
            u32::MAX => true,
            _ => return Err(undefined("scale-d of wgmma differs from lane to lane")),
        };
        let mut fragment = [[0; 32]; 4];
        let a = match &op.a {
            WarpgroupA::Registers(registers) => {
                gather(warp, registers, &mut fragment);
                Left::Registers(&fragment)
            }
            WarpgroupA::Shared(descriptor, major) => {
                Left::Shared(Operand { descriptor: descriptor_of(warp, *descriptor)?, major: *major })
            }
        };
        let b = Operand { descriptor: descriptor_of(warp, op.b)?, major: op.b_major };
        let product = Wgmma {
            half: op.half,
            columns: op.columns,
            a,
            b,
            accumulate,
            a_sign: op.a_sign,
            b_sign: op.b_sign,
        };
        let mut d: Vec<Lanes> = op.d.iter().map(|&register| *warp.rw(register)).collect();
        let (shared, agent) = (&mut self.shared, warp.id as usize);
        wgmma(&product, agent % 4, &mut d, |address| {
            let at = shared.touch(agent, 0, u64::from(address), ROW, Touch::Read)?;
            Ok::<_, Box<Stop>>(chunk(&shared.bytes, at))
        })?;
        scatter(warp, &op.d, &d);
        self.tally.counts.mma_flops += 2 * 16 * 16 * op.columns.get() as u64;
        Ok(())
    }
}

fn chunk(bytes: &[u8], at: usize) -> [u8; ROW] {
    bytes[at..at + ROW].try_into().expect("as many bytes as a row has")
}

fn undefined(what: &'static str) -> Box<Stop> {
    Stop::warp(FaultKind::Undefined(what))
}

fn gather(warp: &Warp, registers: &[W], fragment: &mut [Lanes; 4]) {
    for (lanes, &register) in fragment.iter_mut().zip(registers) {
        *lanes = *warp.rw(register);
    }
}

fn scatter(warp: &mut Warp, registers: &[W], fragment: &[Lanes]) {
    for (&register, lanes) in registers.iter().zip(fragment) {
        warp.set_w(register, lanes, u32::MAX);
    }
}

fn descriptor_of(warp: &Warp, register: D) -> Result<Descriptor> {
    let lanes = warp.rd(register);
    if lanes.iter().any(|&bits| bits != lanes[0]) {
        return Err(undefined("a matrix descriptor differs from lane to lane"));
    }
    Descriptor::decode(lanes[0]).map_err(|error| Stop::warp(FaultKind::TensorCopy(error.to_string())))
}
