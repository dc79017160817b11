//! Text back to blocks and programs.
//!
//! A text is bounded in length and in what it may describe, so that a malicious one costs no more than
//! an honest one.

mod block;

use std::collections::HashMap;

use super::lex::{ParseError, Position, Token, lex};
use super::{is_identifier, is_weight_name};
use crate::graph::{Block, BlockBuilder, BuildError, Call, Program, Value};
use crate::ops::{self, Attr, AttrKind, Attrs, Op, OperandKind, TypeError};
use crate::plan::Phase;
use crate::rope::{Llama3Scaling, RopeTable};
use crate::step::StepInput;
use crate::types::{Dim, Dtype, Symbol, Type};

const MAX_BYTES: usize = 1 << 20;
const MAX_CALLS: usize = 1 << 11;
/// Statements in one block.
const MAX_STATEMENTS: usize = 1 << 10;
const MAX_DIMS: usize = 8;

/// Reads a program. The result still has to pass the verifier.
///
/// # Errors
/// The first [`ParseError`].
pub fn parse_program(text: &str) -> Result<Program, ParseError> {
    let mut parser = Parser::new(text)?;
    let program = parser.program()?;
    parser.end()?;
    Ok(program)
}

/// Reads a block. The result still has to pass the verifier.
///
/// # Errors
/// The first [`ParseError`].
pub fn parse_block(text: &str) -> Result<Block, ParseError> {
    let mut parser = Parser::new(text)?;
    let block = parser.block()?;
    parser.end()?;
    Ok(block)
}

type Parsed<T> = Result<T, ParseError>;

struct Parser<'a> {
    tokens: Vec<(Position, Token<'a>)>,
    next: usize,
}

/// The values of a block by their names, sigil included.
type Scope<'a> = HashMap<(char, &'a str), Value>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parsed<Self> {
        if text.len() > MAX_BYTES {
            return Err(ParseError {
                at: Position { line: 1, column: 1 },
                wanted: format!("at most {MAX_BYTES} bytes"),
                found: text.len().to_string(),
            });
        }
        Ok(Self { tokens: lex(text)?, next: 0 })
    }

    /// The next token; the end repeats for ever.
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.next).map_or(Token::End, |(_, token)| *token)
    }

    fn at(&self) -> Position {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.next.min(last)).map_or(Position { line: 1, column: 1 }, |(at, _)| *at)
    }

    fn bump(&mut self) {
        self.next += 1;
    }

    /// The error that something else than the next token was expected.
    fn expected<T>(&self, wanted: impl Into<String>) -> Parsed<T> {
        self.wrong(self.at(), wanted, self.peek().to_string())
    }

    fn wrong<T>(&self, at: Position, wanted: impl Into<String>, found: impl Into<String>) -> Parsed<T> {
        Err(ParseError { at, wanted: wanted.into(), found: found.into() })
    }

    fn eat(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == token;
        if found {
            self.bump();
        }
        found
    }

    fn punct(&mut self, c: char) -> Parsed<()> {
        if self.eat(Token::Punct(c)) { Ok(()) } else { self.expected(format!("`{c}`")) }
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.eat(Token::Word(word)) { Ok(()) } else { self.expected(format!("`{word}`")) }
    }

    fn end(&mut self) -> Parsed<()> {
        if self.peek() == Token::End { Ok(()) } else { self.expected("the end of the text") }
    }

    fn word(&mut self, wanted: &str) -> Parsed<&'a str> {
        match self.peek() {
            Token::Word(word) => {
                self.bump();
                Ok(word)
            }
            _ => self.expected(wanted),
        }
    }

    /// The name after one of the sigils.
    fn name(&mut self, sigil: char, wanted: &str) -> Parsed<&'a str> {
        match self.peek() {
            Token::Name(found, name) if found == sigil => {
                self.bump();
                Ok(name)
            }
            _ => self.expected(format!("`{sigil}` and {wanted}")),
        }
    }

    fn int<T: std::str::FromStr>(&mut self, wanted: &str) -> Parsed<T> {
        match self.peek() {
            Token::Int(digits) => match digits.parse() {
                Ok(n) => {
                    self.bump();
                    Ok(n)
                }
                Err(_) => self.expected(format!("{wanted} of at most {} bits", 8 * size_of::<T>())),
            },
            _ => self.expected(wanted),
        }
    }

    fn float(&mut self) -> Parsed<f64> {
        let negative = self.eat(Token::Punct('-'));
        match self.peek() {
            Token::Int(word) | Token::Float(word) | Token::Word(word @ "inf") => match word.parse::<f64>() {
                Ok(x) => {
                    self.bump();
                    Ok(if negative { -x } else { x })
                }
                Err(_) => self.expected("a number"),
            },
            _ => self.expected("a number"),
        }
    }

    /// Items separated by commas, up to the closing character.
    fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(Token::Punct(close)) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(Token::Punct(close)) {
                return Ok(items);
            }
            if !self.eat(Token::Punct(',')) {
                return self.expected(format!("`,` or `{close}`"));
            }
        }
    }

    fn dtype(&mut self) -> Parsed<Dtype> {
        match self.peek() {
            Token::Word(word) => match word.parse() {
                Ok(dtype) => {
                    self.bump();
                    Ok(dtype)
                }
                Err(_) => self.expected("a dtype (f32, bf16, f16, i32, u8)"),
            },
            _ => self.expected("a dtype (f32, bf16, f16, i32, u8)"),
        }
    }

    fn ty(&mut self) -> Parsed<Type> {
        let dtype = self.dtype()?;
        let at = self.at();
        self.punct('[')?;
        let shape = self.list(']', Self::dim)?;
        if shape.len() > MAX_DIMS {
            return self.wrong(at, format!("at most {MAX_DIMS} dimensions"), shape.len().to_string());
        }
        Ok(Type { dtype, shape })
    }

    fn dim(&mut self) -> Parsed<Dim> {
        let factor = match self.peek() {
            Token::Int(_) => Some(self.int::<u64>("a dimension")?),
            _ => None,
        };
        match (factor, self.peek()) {
            (_, Token::Word(word)) => match word.parse::<Symbol>() {
                Ok(_) if factor == Some(0) => self.expected("a multiple of at least 1"),
                Ok(symbol) => {
                    self.bump();
                    Ok(Dim::Symbolic { factor: factor.unwrap_or(1), symbol })
                }
                Err(_) => self.expected("a dimension symbol (T, R, L, P, S, N)"),
            },
            (Some(n), _) => Ok(Dim::Const(n)),
            (None, _) => self.expected("a dimension: a number or a symbol (T, R, L, P, S, N)"),
        }
    }

    fn program(&mut self) -> Parsed<Program> {
        self.keyword("program")?;
        let phases = Phase::ALL.into_iter();
        let Some(phase) = phases.into_iter().find(|phase| self.peek() == Token::Word(phase.name())) else {
            return self.expected("`decode` or `prefill`");
        };
        self.bump();
        let mut blocks = Vec::new();
        let mut names = HashMap::new();
        while self.peek() == Token::Word("block") {
            let at = self.tokens.get(self.next + 1).map_or(self.at(), |(at, _)| *at);
            let block = self.block()?;
            if names.insert(block.name.clone(), blocks.len()).is_some() {
                return self.wrong(at, "a name that no other block has", format!("`{}`", block.name));
            }
            blocks.push(block);
        }
        if !self.eat(Token::Word("calls")) {
            return self.expected("`block` or `calls`");
        }
        self.punct('{')?;
        let mut calls = Vec::new();
        while !self.eat(Token::Punct('}')) {
            self.calls(&names, &mut calls)?;
        }
        Ok(Program { phase, blocks, calls })
    }

    fn block_name(&mut self, wanted: &str) -> Parsed<String> {
        match self.peek() {
            Token::Word(word) if is_identifier(word) => {
                self.bump();
                Ok(word.to_owned())
            }
            _ => self.expected(wanted),
        }
    }

    fn called_block(&mut self, names: &HashMap<String, usize>) -> Parsed<usize> {
        match self.peek() {
            Token::Word(word) if names.contains_key(word) => {
                self.bump();
                Ok(names[word])
            }
            _ => self.expected("the name of a block above, or `}`"),
        }
    }

    /// `block layer "prefix"`, or `layers "template" { block first-last, … }`.
    fn calls(&mut self, names: &HashMap<String, usize>, calls: &mut Vec<Call>) -> Parsed<()> {
        let after = |n: usize| self.tokens.get(self.next + n).map(|(_, token)| *token);
        let is_list = matches!(
            (after(0), after(1), after(2)),
            (Some(Token::Word("layers")), Some(Token::Text(_)), Some(Token::Punct('{')))
        );
        if is_list {
            self.bump();
            return self.layers(names, calls);
        }
        let block = self.called_block(names)?;
        let layer = match self.peek() {
            Token::Int(_) => Some(self.int("a layer")?),
            _ => None,
        };
        let prefix = match self.peek() {
            Token::Text(_) => self.prefix("")?,
            _ => "",
        };
        if calls.len() == MAX_CALLS {
            return self.expected(format!("at most {MAX_CALLS} calls"));
        }
        calls.push(Call { block, layer, prefix: prefix.to_owned() });
        Ok(())
    }

    /// A string that is a weight prefix once `placeholder` is taken out.
    fn prefix(&mut self, placeholder: &str) -> Parsed<&'a str> {
        match self.peek() {
            Token::Text(text) => {
                let plain = text.replacen(placeholder, "", 1);
                if text.contains(placeholder) && (plain.is_empty() || is_weight_name(&plain)) {
                    self.bump();
                    return Ok(text);
                }
                self.expected(match placeholder {
                    "" => "a prefix of letters, digits and `_`, `.`, `-`".to_owned(),
                    _ => format!("a prefix of letters, digits and `_`, `.`, `-` with one `{placeholder}`"),
                })
            }
            _ => self.expected("a quoted prefix"),
        }
    }

    fn layers(&mut self, names: &HashMap<String, usize>, calls: &mut Vec<Call>) -> Parsed<()> {
        let template = self.prefix("{}")?;
        self.punct('{')?;
        self.list('}', |this| {
            let block = this.called_block(names)?;
            let first: u32 = this.int("a layer")?;
            let at = this.at();
            let last = if this.eat(Token::Punct('-')) { this.int("a layer")? } else { first };
            let count = u64::from(last).checked_sub(u64::from(first));
            match count {
                None => return this.wrong(at, format!("a last layer of at least {first}"), last.to_string()),
                Some(count) if count + calls.len() as u64 >= MAX_CALLS as u64 => {
                    return this.wrong(at, format!("at most {MAX_CALLS} calls"), "more");
                }
                Some(_) => {}
            }
            calls.extend((first..=last).map(|layer| Call {
                block,
                layer: Some(layer),
                prefix: template.replacen("{}", &layer.to_string(), 1),
            }));
            Ok(())
        })?;
        Ok(())
    }
}
