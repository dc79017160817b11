//! Operands.

use super::lex::Tok;
use super::module::{Parser, Result, Symbol};
use super::special::special;
use super::tree::{Address, Base, Class, Operand};
use crate::error::ParseErrorKind;

impl Parser<'_> {
    /// One operand, with what `|` joins to it.
    pub(super) fn operand(&mut self) -> Result<Operand> {
        let first = self.simple()?;
        if self.eat('|') {
            let second = self.simple()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn simple(&mut self) -> Result<Operand> {
        let start = self.at;
        match self.next().tok {
            Tok::Punct('{') => Ok(Operand::Vector(self.list('}')?)),
            Tok::Punct('(') => Ok(Operand::List(self.list(')')?)),
            Tok::Punct('[') => self.address(),
            Tok::Punct('-') => match self.next().tok {
                Tok::Int(value) => Ok(Operand::Int(value.wrapping_neg())),
                _ => {
                    self.at = start;
                    Err(self.expected("an integer"))
                }
            },
            Tok::Punct('!') => match self.next().tok {
                Tok::Word(name) => match self.lookup(name) {
                    Some(Symbol::Reg(reg)) if reg.class == Class::Pred => Ok(Operand::Not(reg)),
                    _ => {
                        self.at = start + 1;
                        Err(self.expected("a predicate"))
                    }
                },
                _ => {
                    self.at = start + 1;
                    Err(self.expected("a predicate"))
                }
            },
            Tok::Int(value) => Ok(Operand::Int(value)),
            Tok::F32(bits) => Ok(Operand::F32(bits)),
            Tok::F64(bits) => Ok(Operand::F64(bits)),
            Tok::Word("_") => Ok(Operand::Sink),
            Tok::Word(name) => match self.lookup(name) {
                Some(Symbol::Reg(reg)) => Ok(Operand::Reg(reg)),
                Some(Symbol::Variable(id)) => {
                    let offset = self.signed_offset()?;
                    Ok(Operand::Variable(id, offset))
                }
                None => match special(name) {
                    Some(special) => Ok(Operand::Special(special)),
                    None if name.starts_with('%') => {
                        Err(self.fail(start, ParseErrorKind::UnknownName(name.to_owned())))
                    }
                    None => Ok(Operand::Name(name.to_owned())),
                },
            },
            _ => {
                self.at = start;
                Err(self.expected("an operand"))
            }
        }
    }

    /// Operands up to a closing character; the opening one was read.
    fn list(&mut self, close: char) -> Result<Vec<Operand>> {
        let mut list = Vec::new();
        if self.eat(close) {
            return Ok(list);
        }
        loop {
            // Lists nest one deep: tensor coordinates inside an address.
            if matches!(self.peek(), Tok::Punct('{' | '(' | '[' | '!')) {
                return Err(self.expected("a register or number"));
            }
            list.push(self.simple()?);
            if self.eat(close) {
                return Ok(list);
            }
            self.expect(',')?;
        }
    }

    /// `+4`, `-4`, `+-4`, or nothing.
    fn signed_offset(&mut self) -> Result<i64> {
        let plus = self.eat('+');
        let minus = self.eat('-');
        if !plus && !minus {
            return Ok(0);
        }
        let value = self.int("an offset")? as i64;
        Ok(if minus { value.wrapping_neg() } else { value })
    }

    fn address(&mut self) -> Result<Operand> {
        let start = self.at;
        let base = match self.next().tok {
            Tok::Word(name) => match self.lookup(name) {
                Some(Symbol::Reg(reg)) => Base::Reg(reg),
                Some(Symbol::Variable(id)) => Base::Variable(id),
                None => return Err(self.fail(start, ParseErrorKind::UnknownName(name.to_owned()))),
            },
            Tok::Int(_) => {
                self.at = start;
                let offset = self.int("an address")? as i64;
                self.expect(']')?;
                return Ok(Operand::Address(Address { base: Base::Absolute, offset, coordinates: vec![] }));
            }
            _ => {
                self.at = start;
                return Err(self.expected("an address"));
            }
        };
        let offset = self.signed_offset()?;
        let mut coordinates = Vec::new();
        if self.eat(',') {
            self.expect('{')?;
            coordinates = self.list('}')?;
        }
        self.expect(']')?;
        Ok(Operand::Address(Address { base, offset, coordinates }))
    }
}
