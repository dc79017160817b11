//! Text to tokens.

use crate::error::ParseErrorKind;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tok<'a> {
    /// A name, directive or opcode: `%r1`, `.reg`, `ld.global.b32`, `$L__BB0_1`.
    Word(&'a str),
    /// An integer.
    Int(u64),
    /// A decimal fraction, as in `.version 7.1`.
    Decimal(&'a str),
    /// `0f` and eight digits.
    F32(u32),
    /// `0d` and sixteen digits.
    F64(u64),
    /// A string without its quotes.
    Str,
    /// Any other character.
    Punct(char),
    /// After the last token.
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub tok: Tok<'a>,
    pub line: u32,
    pub start: usize,
    pub end: usize,
}

/// An error with the byte at which it was seen.
pub(crate) struct LexError {
    pub line: u32,
    pub start: usize,
    pub kind: ParseErrorKind,
}

/// All tokens of a text, with `End` at the end.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, LexError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    while at < bytes.len() {
        let start = at;
        let fail = |what| LexError { line, start, kind: ParseErrorKind::Lexical(what) };
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' => at += 1,
            b'/' if bytes[at..].starts_with(b"//") => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                let length = text[at..].find("*/").ok_or_else(|| fail("a comment does not end"))?;
                line += count_lines(&bytes[at..at + length]);
                at += length + 2;
            }
            b'"' => {
                let length = text[at + 1..].find('"').ok_or_else(|| fail("a string does not end"))?;
                tokens.push(Token { tok: Tok::Str, line, start, end: at + length + 2 });
                line += count_lines(&bytes[at..at + length]);
                at += length + 2;
            }
            b'0'..=b'9' => {
                let tok;
                (tok, at) = number(text, at).ok_or_else(|| fail("a number is malformed"))?;
                tokens.push(Token { tok, line, start, end: at });
            }
            byte if starts_word(byte) => {
                at += 1;
                loop {
                    match bytes.get(at) {
                        Some(b) if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.') => at += 1,
                        Some(b':')
                            if bytes.get(at + 1) == Some(&b':')
                                && bytes.get(at + 2).is_some_and(u8::is_ascii_alphanumeric) =>
                        {
                            at += 2;
                        }
                        _ => break,
                    }
                }
                tokens.push(Token { tok: Tok::Word(&text[start..at]), line, start, end: at });
            }
            byte if byte.is_ascii_punctuation() => {
                at += 1;
                tokens.push(Token { tok: Tok::Punct(byte as char), line, start, end: at });
            }
            _ => return Err(fail("a character that PTX does not have")),
        }
    }
    tokens.push(Token { tok: Tok::End, line, start: at, end: at });
    Ok(tokens)
}

fn count_lines(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u32
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// The number at a byte, and the byte after it.
fn number(text: &str, at: usize) -> Option<(Tok<'_>, usize)> {
    let digits = |from: usize, radix: u32| {
        let length = text.as_bytes()[from..].iter().take_while(|&&b| (b as char).is_digit(radix)).count();
        (&text[from..from + length], from + length)
    };
    let unsigned = |(tok, end): (Tok<'static>, usize)| {
        (tok, if text.as_bytes().get(end) == Some(&b'U') { end + 1 } else { end })
    };
    match text.as_bytes().get(at..at + 2) {
        Some(b"0x" | b"0X") => {
            let (text, end) = digits(at + 2, 16);
            Some(unsigned((Tok::Int(u64::from_str_radix(text, 16).ok()?), end)))
        }
        Some(b"0f" | b"0F") => {
            let (text, end) = digits(at + 2, 16);
            (text.len() == 8).then_some(())?;
            Some((Tok::F32(u32::from_str_radix(text, 16).ok()?), end))
        }
        Some(b"0d" | b"0D") => {
            let (text, end) = digits(at + 2, 16);
            (text.len() == 16).then_some(())?;
            Some((Tok::F64(u64::from_str_radix(text, 16).ok()?), end))
        }
        Some(b"0b" | b"0B") => {
            let (text, end) = digits(at + 2, 2);
            Some(unsigned((Tok::Int(u64::from_str_radix(text, 2).ok()?), end)))
        }
        _ => {
            let (whole, end) = digits(at, 10);
            if text.as_bytes().get(end) == Some(&b'.') {
                let (_, end) = digits(end + 1, 10);
                return Some((Tok::Decimal(&text[at..end]), end));
            }
            Some(unsigned((Tok::Int(whole.parse().ok()?), end)))
        }
    }
}
