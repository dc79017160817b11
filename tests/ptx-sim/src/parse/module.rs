//! Directives of a module: variables, kernels, functions.

use super::lex::{Tok, Token, lex};
use super::tree::{Class, Function, Reg, Tree, VarId, Variable};
use crate::error::{ParseError, ParseErrorKind, Space};
use std::collections::HashMap;

/// A place in the text, for messages.
pub(super) type At = usize;
pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// What a name means inside a function.
#[derive(Debug, Clone, Copy)]
pub(super) enum Symbol {
    Reg(Reg),
    Variable(VarId),
}

/// Names of one scope.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub names: HashMap<String, Symbol>,
    /// Prefix, class, first index and count of `%r<10>`.
    pub ranges: Vec<(String, Class, u32, u32)>,
    pub id: usize,
}

/// The state of parsing.
pub(super) struct Parser<'a> {
    pub text: &'a str,
    pub tokens: Vec<Token<'a>>,
    pub at: At,
    pub tree: Tree,
    /// Names of the module's variables.
    pub globals: HashMap<String, VarId>,
    /// Open scopes of the current function, outermost first.
    pub scopes: Vec<Scope>,
}

/// Parses a module.
pub(crate) fn parse(text: &str) -> Result<Tree> {
    let tokens = lex(text).map_err(|e| {
        let line = text[e.start..].lines().next().unwrap_or("").trim().chars().take(80).collect();
        ParseError { line: e.line, text: line, kind: e.kind }
    })?;
    let mut parser =
        Parser { text, tokens, at: 0, tree: Tree::default(), globals: HashMap::new(), scopes: Vec::new() };
    parser.module()?;
    Ok(parser.tree)
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Tok<'a> {
        self.tokens[self.at].tok
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.tokens[self.at];
        if token.tok != Tok::End {
            self.at += 1;
        }
        token
    }

    pub(super) fn eat(&mut self, punct: char) -> bool {
        let found = self.peek() == Tok::Punct(punct);
        if found {
            self.at += 1;
        }
        found
    }

    pub(super) fn expect(&mut self, punct: char) -> Result<()> {
        if self.eat(punct) { Ok(()) } else { Err(self.expected(&format!("`{punct}`"))) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Tok::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn int(&mut self, what: &str) -> Result<u64> {
        match self.peek() {
            Tok::Int(value) => {
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// An integer that counts or sizes something.
    pub(super) fn small(&mut self, what: &str) -> Result<u32> {
        let start = self.at;
        let value = self.int(what)?;
        match u32::try_from(value) {
            Ok(value) if value < 1 << 30 => Ok(value),
            _ => Err(self.fail(start, ParseErrorKind::Unsupported(format!("a {what} of {value}")))),
        }
    }

    /// An error about the token that stands here.
    pub(super) fn expected(&self, what: &str) -> ParseError {
        let token = self.tokens[self.at];
        let found = match token.tok {
            Tok::End => "the end of the text".to_owned(),
            _ => format!("`{}`", &self.text[token.start..token.end]),
        };
        self.fail(self.at, ParseErrorKind::Syntax { expected: what.to_owned(), found })
    }

    /// An error about the statement in which a token stands.
    pub(super) fn fail(&self, at: At, kind: ParseErrorKind) -> ParseError {
        let token = self.tokens[at.min(self.tokens.len() - 1)];
        let bytes = self.text.as_bytes();
        let mut start = token.start;
        while start > 0 && !matches!(bytes[start - 1], b';' | b'{' | b'}' | b'\n') {
            start -= 1;
        }
        let mut end = token.start;
        while end < bytes.len() && !matches!(bytes[end], b';' | b'\n') {
            end += 1;
        }
        ParseError { line: token.line, text: collapse(&self.text[start..end]), kind }
    }

    /// Passes over the rest of the line on which a token stands.
    fn skip_line(&mut self, line: u32) {
        while self.tokens[self.at].line == line && self.peek() != Tok::End {
            self.at += 1;
        }
    }

    /// `.loc`, `.file`, `.pragma`, `.section`: nothing that is executed. True if one stood here.
    pub(super) fn ignored_directive(&mut self) -> bool {
        let token = self.tokens[self.at];
        match token.tok {
            Tok::Word(".loc" | ".file") => self.skip_line(token.line),
            Tok::Word(".pragma") => while !matches!(self.next().tok, Tok::Punct(';') | Tok::End) {},
            Tok::Word(".section") => while !matches!(self.next().tok, Tok::Punct('}') | Tok::End) {},
            _ => return false,
        }
        true
    }

    fn module(&mut self) -> Result<()> {
        let mut versioned = false;
        loop {
            if self.ignored_directive() {
                continue;
            }
            let start = self.at;
            match self.peek() {
                Tok::End => break,
                Tok::Word(".version") => {
                    self.at += 1;
                    let Tok::Decimal(text) = self.peek() else { return Err(self.expected("a version")) };
                    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
                    let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
                        return Err(self.expected("a version"));
                    };
                    self.tree.version = (major, minor);
                    versioned = true;
                    self.at += 1;
                }
                Tok::Word(".target") => {
                    self.at += 1;
                    self.tree.target = self.word("a target")?.to_owned();
                    while self.eat(',') {
                        self.word("a target option")?;
                    }
                }
                Tok::Word(".address_size") => {
                    self.at += 1;
                    if self.int("an address size")? != 64 {
                        let kind = ParseErrorKind::Unsupported("an address size other than 64".to_owned());
                        return Err(self.fail(start, kind));
                    }
                }
                Tok::Word(_) if !versioned => return Err(self.expected("`.version`")),
                Tok::Word(_) => self.declaration()?,
                _ => return Err(self.expected("a directive")),
            }
        }
        if self.tree.target.is_empty() {
            return Err(self.expected("`.target`"));
        }
        Ok(())
    }

    fn declaration(&mut self) -> Result<()> {
        let mut external = false;
        loop {
            let start = self.at;
            match self.peek() {
                Tok::Word(".visible" | ".weak" | ".common") => self.at += 1,
                Tok::Word(".extern") => {
                    external = true;
                    self.at += 1;
                }
                Tok::Word(".entry") => return self.function(true),
                Tok::Word(".func") => return self.function(false),
                Tok::Word(word) => {
                    let Some(space) = space(word) else {
                        return Err(self.fail(start, ParseErrorKind::UnknownDirective(word.to_owned())));
                    };
                    self.at += 1;
                    for id in self.variables(space, external)? {
                        let name = self.tree.variables[id].name.clone();
                        // A function may name a variable that an `.extern` declaration announced.
                        if let Some(&old) = self.globals.get(&name) {
                            if !self.tree.variables[old].external {
                                return Err(self.fail(start, ParseErrorKind::DuplicateName(name)));
                            }
                            let new = self.tree.variables[id].clone();
                            self.tree.variables[old] = new;
                        } else {
                            self.globals.insert(name, id);
                        }
                    }
                    return Ok(());
                }
                _ => return Err(self.expected("a declaration")),
            }
        }
    }

    /// `.align 4 .b8 name[16] = {1, 2}, other;` after its state space.
    pub(super) fn variables(&mut self, space: Space, external: bool) -> Result<Vec<VarId>> {
        let (align, element) = self.type_of_variable()?;
        let mut ids = Vec::new();
        loop {
            let mut variable = self.variable(space, align, element)?;
            variable.external = external && variable.size == 0;
            if self.eat('=') {
                self.initialiser(&mut variable, element)?;
            }
            ids.push(self.tree.variables.len());
            self.tree.variables.push(variable);
            if self.eat(';') {
                return Ok(ids);
            }
            self.expect(',')?;
        }
    }

    /// Alignment and element size, from the modifiers before a name.
    fn type_of_variable(&mut self) -> Result<(u32, u32)> {
        let (mut align, mut element) = (0, None);
        while let Tok::Word(word) = self.peek() {
            if !word.starts_with('.') {
                break;
            }
            let start = self.at;
            self.at += 1;
            match word {
                ".align" => {
                    align = self.small("alignment")?;
                    if !align.is_power_of_two() {
                        return Err(
                            self.fail(start, ParseErrorKind::Unsupported(format!("alignment {align}")))
                        );
                    }
                }
                ".ptr" | ".global" | ".shared" | ".const" | ".local" | ".managed" | ".attribute" => {}
                _ => {
                    let bytes = type_bytes(word)
                        .ok_or_else(|| self.fail(start, ParseErrorKind::UnknownDirective(word.to_owned())))?;
                    element = Some(bytes);
                    // What `.ptr .align` says is about the memory pointed at.
                    if self.peek() == Tok::Word(".ptr") {
                        while let Tok::Word(word) = self.peek() {
                            match word {
                                ".align" => {
                                    self.at += 1;
                                    self.int("an alignment")?;
                                }
                                _ if word.starts_with('.') => self.at += 1,
                                _ => break,
                            }
                        }
                    }
                }
            }
        }
        let element = element.ok_or_else(|| self.expected("a type"))?;
        Ok((if align == 0 { element } else { align }, element))
    }

    fn variable(&mut self, space: Space, align: u32, element: u32) -> Result<Variable> {
        let start = self.at;
        let name = self.word("a name")?.to_owned();
        let mut size = u64::from(element);
        while self.eat('[') {
            let count = if self.peek() == Tok::Punct(']') { 0 } else { self.small("array length")? };
            self.expect(']')?;
            size = size.saturating_mul(u64::from(count));
        }
        if size > 1 << 40 {
            return Err(self.fail(start, ParseErrorKind::Unsupported(format!("a variable of {size} bytes"))));
        }
        let line = self.tokens[start].line;
        Ok(Variable { name, space, align, size, external: false, init: None, addresses: Vec::new(), line })
    }

    fn initialiser(&mut self, variable: &mut Variable, element: u32) -> Result<()> {
        let mut bytes = Vec::new();
        let start = self.at;
        self.values(variable, element as usize, &mut bytes)?;
        if bytes.len() as u64 > variable.size {
            let kind = ParseErrorKind::Unsupported("an initialiser longer than its variable".to_owned());
            return Err(self.fail(start, kind));
        }
        variable.init = Some(bytes);
        Ok(())
    }

    fn values(&mut self, variable: &mut Variable, element: usize, bytes: &mut Vec<u8>) -> Result<()> {
        if self.eat('{') {
            let mut depth = 1;
            while depth > 0 {
                match self.peek() {
                    Tok::Punct('{') => depth += 1,
                    Tok::Punct('}') => depth -= 1,
                    Tok::Punct(',') => {}
                    Tok::End => return Err(self.expected("`}`")),
                    _ => {
                        self.value(variable, element, bytes)?;
                        continue;
                    }
                }
                self.at += 1;
            }
            return Ok(());
        }
        self.value(variable, element, bytes)
    }

    fn value(&mut self, variable: &mut Variable, element: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let start = self.at;
        let negative = self.eat('-');
        let value = match self.next().tok {
            Tok::Int(value) if negative => value.wrapping_neg(),
            Tok::Int(value) => value,
            Tok::F32(bits) => u64::from(bits),
            Tok::F64(bits) => bits,
            Tok::Word(name) if element == 8 && !negative => {
                let generic = name == "generic" && self.eat('(');
                let name = if generic { self.word("a name")? } else { name };
                if generic {
                    self.expect(')')?;
                }
                let addend = if self.eat('+') { self.small("offset")? } else { 0 };
                variable.addresses.push((bytes.len(), name.to_owned(), i64::from(addend), generic));
                0
            }
            _ => {
                self.at = start;
                return Err(self.expected("a value"));
            }
        };
        bytes.extend_from_slice(&value.to_le_bytes()[..element.min(8)]);
        Ok(())
    }

    fn function(&mut self, entry: bool) -> Result<()> {
        self.at += 1;
        let line = self.tokens[self.at].line;
        self.scopes = vec![Scope::default()];
        let returns = if self.peek() == Tok::Punct('(') { self.parameters()? } else { Vec::new() };
        let start = self.at;
        let name = self.word("a name")?.to_owned();
        let params = if self.peek() == Tok::Punct('(') { self.parameters()? } else { Vec::new() };
        let mut function =
            Function { name, entry, returns, params, scopes: vec![0], line, ..Function::default() };
        self.performance_directives(&mut function)?;
        if !self.eat(';') {
            self.expect('{')?;
            self.body(&mut function)?;
        }
        if let Some(old) = self.tree.functions.iter_mut().find(|old| old.name == function.name) {
            if old.body.is_some() && function.body.is_some() {
                return Err(self.fail(start, ParseErrorKind::DuplicateName(function.name)));
            }
            if old.body.is_none() {
                *old = function;
            }
        } else {
            self.tree.functions.push(function);
        }
        Ok(())
    }

    fn parameters(&mut self) -> Result<Vec<VarId>> {
        let mut ids = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            if self.word("`.param`")? != ".param" {
                self.at -= 1;
                return Err(self.expected("`.param`"));
            }
            let (align, element) = self.type_of_variable()?;
            let start = self.at;
            let variable = self.variable(Space::Param, align, element)?;
            let id = self.tree.variables.len();
            self.declare(start, variable.name.clone(), Symbol::Variable(id))?;
            self.tree.variables.push(variable);
            ids.push(id);
            if self.peek() != Tok::Punct(')') {
                self.expect(',')?;
            }
        }
        Ok(ids)
    }

    fn performance_directives(&mut self, function: &mut Function) -> Result<()> {
        while let Tok::Word(word) = self.peek() {
            let start = self.at;
            if self.ignored_directive() {
                continue;
            }
            self.at += 1;
            match word {
                ".maxntid" | ".reqntid" => {
                    let mut threads = u64::from(self.small("thread count")?);
                    while self.eat(',') {
                        threads = threads.saturating_mul(u64::from(self.small("thread count")?));
                    }
                    function.max_threads = Some(u32::try_from(threads).unwrap_or(u32::MAX));
                }
                ".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".maxclusterrank" | ".abi_preserve" => {
                    self.int("a number")?;
                }
                ".reqnctapercluster" => {
                    let mut ctas = self.int("a cluster size")?;
                    while self.eat(',') {
                        ctas = ctas.saturating_mul(self.int("a cluster size")?);
                    }
                    if ctas > 1 {
                        let kind = ParseErrorKind::Unsupported("a cluster of more than one CTA".to_owned());
                        return Err(self.fail(start, kind));
                    }
                }
                ".explicitcluster" | ".noreturn" => {}
                _ => return Err(self.fail(start, ParseErrorKind::UnknownDirective(word.to_owned()))),
            }
        }
        Ok(())
    }
}

/// Bytes of a fundamental type.
pub(super) fn type_bytes(word: &str) -> Option<u32> {
    Some(match word {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        ".b128" => 16,
        _ => return None,
    })
}

/// The state space of a directive.
pub(super) fn space(word: &str) -> Option<Space> {
    Some(match word {
        ".global" => Space::Global,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        ".const" => Space::Const,
        _ => return None,
    })
}

/// A text with each run of white space made one space.
pub(crate) fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
