//! What decoding one instruction needs: its modifiers and operands, and a place for the result.

use super::link::{Const, Linker};
use super::op::{Addr, AddrBase, D, Guard, Instr, Kind, Op, P, Reg, W};
use crate::error::{ParseErrorKind, Space};
use crate::parse::{Address, Base, Class, Operand, Special, VarId};

pub(super) type Result<T> = std::result::Result<T, ParseErrorKind>;

/// First registers of the function at hand, by class.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bases {
    pub p: u32,
    pub w16: u32,
    pub w32: u32,
    pub d64: u32,
    pub d128: u32,
}

/// An instruction being decoded.
pub(super) struct Cx<'l, 't> {
    pub linker: &'l mut Linker<'t>,
    pub opcode: &'t str,
    /// Parts of the opcode after the first that are not yet understood.
    pub mods: Vec<&'t str>,
    pub operands: &'t [Operand],
    pub guard: Option<Guard>,
    pub bases: Bases,
    /// Whether the function is a kernel.
    pub entry: bool,
    pub line: u32,
    pub text: (u32, u32),
    pub scope: usize,
}

impl<'t> Cx<'_, 't> {
    /// The instruction has a part that is not known.
    pub(super) fn unknown<T>(&self) -> Result<T> {
        Err(ParseErrorKind::UnknownInstruction(self.opcode.to_owned()))
    }

    pub(super) fn operand_error<T>(&self, index: usize, expected: &'static str) -> Result<T> {
        Err(ParseErrorKind::Operand { opcode: self.opcode.to_owned(), index, expected })
    }

    /// Takes a modifier away if it is there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let found = self.mods.iter().position(|&part| part == name);
        found.map(|at| self.mods.remove(at)).is_some()
    }

    /// Takes away modifiers that change no value.
    pub(super) fn drop_mods(&mut self, ignored: &[&str]) {
        self.mods.retain(|part| !ignored.contains(part));
    }

    /// Takes the first modifier that a table knows.
    pub(super) fn take_of<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        for (at, part) in self.mods.iter().enumerate() {
            if let Some(&(_, value)) = table.iter().find(|(name, _)| name == part) {
                self.mods.remove(at);
                return Some(value);
            }
        }
        None
    }

    /// Takes the last modifier, the type.
    pub(super) fn ty(&mut self) -> Result<&'t str> {
        match self.mods.pop() {
            Some(ty) => Ok(ty),
            None => self.unknown(),
        }
    }

    /// All modifiers must have been taken, and the operands be so many.
    pub(super) fn finish(&self, operands: usize) -> Result<()> {
        if !self.mods.is_empty() {
            return self.unknown();
        }
        if self.operands.len() != operands {
            return self.operand_error(self.operands.len().min(operands), "there or the last one");
        }
        Ok(())
    }

    pub(super) fn emit(&mut self, kind: Kind, op: Op) -> Result<()> {
        self.linker.code.push(Instr { op, guard: self.guard, kind, line: self.line, text: self.text });
        Ok(())
    }

    pub(super) fn operand(&self, index: usize) -> Result<&'t Operand> {
        match self.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.operand_error(index, "there"),
        }
    }

    /// A 16- or 32-bit source of a type of so many bits.
    pub(super) fn w(&mut self, index: usize, bits: u32) -> Result<W> {
        let operand = self.operand(index)?;
        self.w_of(operand, index, bits)
    }

    pub(super) fn w_of(&mut self, operand: &Operand, index: usize, bits: u32) -> Result<W> {
        let mask = if bits >= 32 { u32::MAX } else { (1 << bits) - 1 };
        match *operand {
            Operand::Reg(reg) if matches!(reg.class, Class::B16 | Class::B32) => {
                if reg.class == Class::B16 && bits > 16 {
                    return self.operand_error(index, "a register of 32 bits");
                }
                Ok(self.w_reg(reg.class, reg.index))
            }
            Operand::Int(value) => Ok(self.linker.w_const(Const::Value(u64::from(value as u32 & mask)))),
            Operand::F32(value) if bits == 32 => Ok(self.linker.w_const(Const::Value(u64::from(value)))),
            Operand::F64(value) if bits == 32 => {
                let value = (f64::from_bits(value) as f32).to_bits();
                Ok(self.linker.w_const(Const::Value(u64::from(value))))
            }
            Operand::Special(Special::Clock | Special::Clock64) => {
                self.operand_error(index, "readable but by `mov`")
            }
            Operand::Special(special) => Ok(self.linker.w_const(Const::Special(special))),
            Operand::Variable(id, offset) => {
                let address = self.variable(id, offset)?;
                Ok(self.linker.w_const(address))
            }
            _ => self.operand_error(index, "a value of at most 32 bits"),
        }
    }

    fn w_reg(&self, class: Class, index: u32) -> W {
        W(index + if class == Class::B16 { self.bases.w16 } else { self.bases.w32 })
    }

    /// A 64-bit source.
    pub(super) fn d(&mut self, index: usize) -> Result<D> {
        let operand = self.operand(index)?;
        self.d_of(operand, index)
    }

    pub(super) fn d_of(&mut self, operand: &Operand, index: usize) -> Result<D> {
        match *operand {
            Operand::Reg(reg) if reg.class == Class::B64 => Ok(D(reg.index + self.bases.d64)),
            Operand::Int(value) | Operand::F64(value) => Ok(self.linker.d_const(Const::Value(value))),
            Operand::Special(Special::Clock | Special::Clock64) => {
                self.operand_error(index, "readable but by `mov`")
            }
            Operand::Special(special) => Ok(self.linker.d_const(Const::Special(special))),
            Operand::Variable(id, offset) => {
                let address = self.variable(id, offset)?;
                Ok(self.linker.d_const(address))
            }
            _ => self.operand_error(index, "a value of 64 bits"),
        }
    }

    /// A predicate source and what flips it.
    pub(super) fn p(&mut self, index: usize) -> Result<(P, u32)> {
        match *self.operand(index)? {
            Operand::Reg(reg) if reg.class == Class::Pred => Ok((P(reg.index + self.bases.p), 0)),
            Operand::Not(reg) => Ok((P(reg.index + self.bases.p), u32::MAX)),
            Operand::Int(value) => Ok((P(0), if value == 0 { u32::MAX } else { 0 })),
            _ => self.operand_error(index, "a predicate"),
        }
    }

    /// A predicate source that is not negated.
    pub(super) fn p_plain(&mut self, index: usize) -> Result<P> {
        match self.p(index)? {
            (p, 0) => Ok(p),
            (p, _) => {
                let flipped = P(self.linker.new_p());
                self.emit(Kind::Part, Op::P1(|a| !a, flipped, p))?;
                Ok(flipped)
            }
        }
    }

    /// A 16- or 32-bit destination.
    pub(super) fn w_dst(&mut self, index: usize, bits: u32) -> Result<W> {
        let operand = self.operand(index)?;
        self.w_dst_of(operand, index, bits)
    }

    pub(super) fn w_dst_of(&mut self, operand: &Operand, index: usize, bits: u32) -> Result<W> {
        match *operand {
            Operand::Reg(reg) if reg.class == Class::B32 || (reg.class == Class::B16 && bits <= 16) => {
                Ok(self.w_reg(reg.class, reg.index))
            }
            Operand::Sink => Ok(W(self.linker.new_w())),
            _ => self.operand_error(index, "a register of the type's size"),
        }
    }

    pub(super) fn d_dst(&mut self, index: usize) -> Result<D> {
        let operand = self.operand(index)?;
        self.d_dst_of(operand, index)
    }

    pub(super) fn d_dst_of(&mut self, operand: &Operand, index: usize) -> Result<D> {
        match *operand {
            Operand::Reg(reg) if reg.class == Class::B64 => Ok(D(reg.index + self.bases.d64)),
            Operand::Sink => Ok(D(self.linker.new_d())),
            _ => self.operand_error(index, "a register of 64 bits"),
        }
    }

    pub(super) fn p_dst(&mut self, index: usize) -> Result<P> {
        let operand = self.operand(index)?;
        self.p_dst_of(operand, index)
    }

    pub(super) fn p_dst_of(&mut self, operand: &Operand, index: usize) -> Result<P> {
        match *operand {
            Operand::Reg(reg) if reg.class == Class::Pred => Ok(P(reg.index + self.bases.p)),
            Operand::Sink => Ok(P(self.linker.new_p())),
            _ => self.operand_error(index, "a predicate register"),
        }
    }

    /// The two halves of a 128-bit register.
    pub(super) fn halves(&self, operand: &Operand) -> Option<[D; 2]> {
        match operand {
            Operand::Reg(reg) if reg.class == Class::B128 => {
                let first = self.bases.d128 + 2 * reg.index;
                Some([D(first), D(first + 1)])
            }
            _ => None,
        }
    }

    /// A destination of either width that holds so many bits.
    pub(super) fn dst_of(&mut self, operand: &Operand, index: usize, bits: u32) -> Result<Reg> {
        match operand {
            Operand::Sink => Ok(Reg::Sink),
            Operand::Reg(reg) if reg.class == Class::B64 => Ok(Reg::D(self.d_dst_of(operand, index)?)),
            _ if bits > 32 => self.operand_error(index, "a register of 64 bits"),
            _ => Ok(Reg::W(self.w_dst_of(operand, index, bits)?)),
        }
    }

    /// A source of either width that holds so many bits.
    pub(super) fn src_of(&mut self, operand: &Operand, index: usize, bits: u32) -> Result<Reg> {
        match operand {
            Operand::Reg(reg) if reg.class == Class::B64 => Ok(Reg::D(self.d_of(operand, index)?)),
            _ if bits > 32 => Ok(Reg::D(self.d_of(operand, index)?)),
            _ => Ok(Reg::W(self.w_of(operand, index, bits)?)),
        }
    }

    /// Bits of a register operand, or `None`.
    pub(super) fn bits(&self, operand: &Operand) -> Option<u32> {
        match operand {
            Operand::Reg(reg) => Some(reg.class.bytes() * 8),
            _ => None,
        }
    }

    /// Address of a variable in its own space.
    fn variable(&mut self, id: VarId, offset: i64) -> Result<Const> {
        self.linker.place(id, offset)
    }

    pub(super) fn address_operand(&self, index: usize) -> Result<&'t Address> {
        match self.operand(index)? {
            Operand::Address(address) => Ok(address),
            _ => self.operand_error(index, "an address"),
        }
    }

    /// An address, and the space that a `.param` access really goes to.
    pub(super) fn address(&mut self, index: usize, space: Space) -> Result<(Addr, Space)> {
        let address = self.address_operand(index)?;
        if !address.coordinates.is_empty() {
            return self.operand_error(index, "an address without coordinates");
        }
        self.address_of(address, index, space)
    }

    pub(super) fn address_of(
        &mut self,
        address: &Address,
        index: usize,
        space: Space,
    ) -> Result<(Addr, Space)> {
        // Parameters of functions, and those made for a call, lie in the frame of the thread.
        let mut space = space;
        let base = match address.base {
            Base::Reg(reg) => {
                if space == Space::Param && !self.entry {
                    space = Space::Local;
                }
                match reg.class {
                    Class::B32 => AddrBase::W(self.w_reg(reg.class, reg.index)),
                    Class::B64 => AddrBase::D(D(reg.index + self.bases.d64)),
                    _ => return self.operand_error(index, "an address of 32 or 64 bits"),
                }
            }
            Base::Variable(id) => {
                if space == Space::Param && !self.linker.is_kernel_param(id) {
                    space = Space::Local;
                }
                let place = if space == Space::Generic {
                    self.linker.generic_place(id)?
                } else {
                    self.variable(id, 0)?
                };
                AddrBase::D(self.linker.d_const(place))
            }
            Base::Absolute => AddrBase::D(self.linker.d_const(Const::Value(0))),
        };
        Ok((Addr { base, offset: address.offset }, space))
    }
}
