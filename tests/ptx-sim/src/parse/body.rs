//! Bodies of functions: scopes, register declarations, statements.

use super::lex::Tok;
use super::module::{At, Parser, Result, Scope, Symbol, space, type_bytes};
use super::tree::{Class, Function, Reg, Statement, StatementKind};
use crate::error::ParseErrorKind;

/// Most registers of one class, so that a text of a few bytes cannot ask for gigabytes.
const MAX_REGISTERS: u32 = 1 << 20;

impl Parser<'_> {
    /// Declares a name in the innermost scope.
    pub(super) fn declare(&mut self, at: At, name: String, symbol: Symbol) -> Result<()> {
        let names = &mut self.scopes.last_mut().expect("a scope is open in a function").names;
        if names.insert(name.clone(), symbol).is_some() {
            return Err(self.fail(at, ParseErrorKind::DuplicateName(name)));
        }
        Ok(())
    }

    /// Looks a name up, from the innermost scope outwards.
    pub(super) fn lookup(&self, name: &str) -> Option<Symbol> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, suffix) = name.split_at(name.len() - digits);
        for scope in self.scopes.iter().rev() {
            if let Some(&symbol) = scope.names.get(name) {
                return Some(symbol);
            }
            if digits == 0 || (digits > 1 && suffix.starts_with('0')) {
                continue;
            }
            for (range, class, first, count) in &scope.ranges {
                if range == prefix
                    && let Ok(index) = suffix.parse::<u32>()
                    && index < *count
                {
                    return Some(Symbol::Reg(Reg { class: *class, index: first + index }));
                }
            }
        }
        self.globals.get(name).map(|&id| Symbol::Variable(id))
    }

    /// Everything up to the brace that closes the body.
    pub(super) fn body(&mut self, function: &mut Function) -> Result<()> {
        let mut statements = Vec::new();
        // The outermost scope holds the parameters already.
        let base = self.scopes.len();
        loop {
            if self.ignored_directive() {
                continue;
            }
            let start = self.at;
            match self.peek() {
                Tok::End => return Err(self.expected("`}`")),
                Tok::Punct('{') => {
                    self.at += 1;
                    let id = function.scopes.len();
                    let parent = self.scopes.last().map_or(0, |scope| scope.id);
                    function.scopes.push(parent);
                    self.scopes.push(Scope { id, ..Scope::default() });
                }
                Tok::Punct('}') => {
                    self.at += 1;
                    if self.scopes.len() == base {
                        break;
                    }
                    self.scopes.pop();
                }
                Tok::Punct(';') => self.at += 1,
                Tok::Word(".reg") => self.registers(function)?,
                Tok::Word(word) if word.starts_with('.') => {
                    let Some(space) = space(word) else {
                        return Err(self.fail(start, ParseErrorKind::UnknownDirective(word.to_owned())));
                    };
                    self.at += 1;
                    for id in self.variables(space, false)? {
                        let name = self.tree.variables[id].name.clone();
                        self.declare(start, name, Symbol::Variable(id))?;
                    }
                }
                _ => {
                    let kind = self.statement()?;
                    let scope = self.scopes.last().map_or(0, |scope| scope.id);
                    let (first, last) = (self.tokens[start], self.tokens[self.at - 1]);
                    statements.push(Statement {
                        line: first.line,
                        start: first.start,
                        end: last.start,
                        scope,
                        kind,
                    });
                }
            }
        }
        function.body = Some(statements);
        Ok(())
    }

    /// `.reg .b32 %r<10>, %tmp;`
    fn registers(&mut self, function: &mut Function) -> Result<()> {
        self.at += 1;
        let start = self.at;
        let word = self.word("a type")?;
        let class = match (word, type_bytes(word)) {
            (".pred", _) => Class::Pred,
            (_, Some(1 | 2)) => Class::B16,
            (_, Some(4)) => Class::B32,
            (_, Some(8)) => Class::B64,
            (_, Some(16)) => Class::B128,
            _ => return Err(self.fail(start, ParseErrorKind::UnknownDirective(word.to_owned()))),
        };
        loop {
            let at = self.at;
            let name = self.word("a register")?.to_owned();
            let first = function.registers[class as usize];
            let mut count = 1;
            if self.eat('<') {
                count = self.small("register count")?;
                self.expect('>')?;
                let scope = self.scopes.last_mut().expect("a scope is open in a function");
                scope.ranges.push((name, class, first, count));
            } else {
                self.declare(at, name, Symbol::Reg(Reg { class, index: first }))?;
            }
            if first + count > MAX_REGISTERS {
                let kind = ParseErrorKind::Unsupported(format!("more than {MAX_REGISTERS} registers"));
                return Err(self.fail(at, kind));
            }
            function.registers[class as usize] += count;
            if self.eat(';') {
                return Ok(());
            }
            self.expect(',')?;
        }
    }

    /// A label or an instruction.
    fn statement(&mut self) -> Result<StatementKind> {
        let mut guard = None;
        if self.eat('@') {
            let negated = self.eat('!');
            let at = self.at;
            let name = self.word("a predicate")?;
            match self.lookup(name) {
                Some(Symbol::Reg(reg)) if reg.class == Class::Pred => guard = Some((reg, negated)),
                Some(_) => {
                    self.at = at;
                    return Err(self.expected("a predicate"));
                }
                None => return Err(self.fail(at, ParseErrorKind::UnknownName(name.to_owned()))),
            }
        }
        let opcode = self.word("an instruction")?.to_owned();
        if guard.is_none() && self.eat(':') {
            return self.label(opcode);
        }
        let mut operands = Vec::new();
        if !self.eat(';') {
            loop {
                operands.push(self.operand()?);
                if self.eat(';') {
                    break;
                }
                self.expect(',')?;
            }
        }
        Ok(StatementKind::Instruction { guard, opcode, operands })
    }

    fn label(&mut self, name: String) -> Result<StatementKind> {
        if self.peek() != Tok::Word(".branchtargets") {
            return Ok(StatementKind::Label(name));
        }
        self.at += 1;
        let mut targets = Vec::new();
        loop {
            targets.push(self.word("a label")?.to_owned());
            if self.eat(';') {
                return Ok(StatementKind::Targets(name, targets));
            }
            self.expect(',')?;
        }
    }
}
