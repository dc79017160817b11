//! Tokens of the text form, with their positions.

use std::fmt;

use thiserror::Error;

use super::is_weight_char;

/// Where something stands: both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Why a text is no block or program.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {}, column {}: expected {wanted}, found {found}", at.line, at.column)]
pub struct ParseError {
    /// Where.
    pub at: Position,
    /// What would be legal there.
    pub wanted: String,
    /// What there is.
    pub found: String,
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// Letters, digits and `_`, not starting with a digit.
    Word(&'a str),
    /// Digits only.
    Int(&'a str),
    /// An unsigned number with a point or an exponent.
    Float(&'a str),
    /// `%name`, `&name`, `&name.1`, `@name`, `#0`, `$name`: sigil and the rest.
    Name(char, &'a str),
    /// Between quotes.
    Text(&'a str),
    /// One of the punctuation characters.
    Punct(char),
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) | Self::Int(word) | Self::Float(word) => write!(f, "`{word}`"),
            Self::Name(sigil, name) => write!(f, "`{sigil}{name}`"),
            Self::Text(text) => write!(f, "`\"{text}\"`"),
            Self::Punct(c) => write!(f, "`{c}`"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

const PUNCTUATION: &str = "(){}[],:=-";

/// Splits a text into tokens; the last one is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<(Position, Token<'_>)>, ParseError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut at = Position { line: 1, column: 1 };
    loop {
        let skipped = blank(rest);
        advance(&mut at, &rest[..skipped]);
        rest = &rest[skipped..];
        let (token, len) = token(rest).map_err(|(wanted, found)| ParseError { at, wanted, found })?;
        tokens.push((at, token));
        if token == Token::End {
            return Ok(tokens);
        }
        advance(&mut at, &rest[..len]);
        rest = &rest[len..];
    }
}

fn advance(at: &mut Position, text: &str) {
    for c in text.chars() {
        if c == '\n' {
            *at = Position { line: at.line + 1, column: 1 };
        } else {
            at.column += 1;
        }
    }
}

/// Bytes of white space and comments.
fn blank(text: &str) -> usize {
    let mut rest = text.trim_start();
    while rest.starts_with("//") {
        rest = rest.find('\n').map_or("", |end| &rest[end..]).trim_start();
    }
    text.len() - rest.len()
}

/// Bytes of the longest prefix of such characters.
fn run(text: &str, legal: impl Fn(char) -> bool) -> usize {
    text.find(|c| !legal(c)).unwrap_or(text.len())
}

/// The token at the start of a text, and its bytes; or what was expected and what was found.
fn token(text: &str) -> Result<(Token<'_>, usize), (String, String)> {
    let Some(first) = text.chars().next() else { return Ok((Token::End, 0)) };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = |legal: &dyn Fn(char) -> bool| {
        let len = run(&text[1..], legal);
        if len == 0 {
            let found =
                text.chars().nth(1).map_or(Token::End.to_string(), |c| format!("`{}`", c.escape_debug()));
            return Err((format!("a name after `{first}`"), found));
        }
        Ok((Token::Name(first, &text[1..=len]), len + 1))
    };
    match first {
        '@' => name(&is_weight_char),
        '&' => name(&|c| word(c) || c == '.'),
        '%' | '#' | '$' => name(&word),
        '"' => match text[1..].find(['"', '\n']).filter(|len| text[1 + len..].starts_with('"')) {
            Some(len) => Ok((Token::Text(&text[1..=len]), len + 2)),
            None => Err(("a closing `\"` on the same line".to_owned(), "none".to_owned())),
        },
        '0'..='9' => Ok(number(text)),
        c if c.is_ascii_alphabetic() || c == '_' => {
            let len = run(text, word);
            Ok((Token::Word(&text[..len]), len))
        }
        c if PUNCTUATION.contains(c) => Ok((Token::Punct(c), 1)),
        c => Err(("a token of the text form".to_owned(), format!("`{}`", c.escape_debug()))),
    }
}

/// Digits, then perhaps a fraction and an exponent.
fn number(text: &str) -> (Token<'_>, usize) {
    let digit = |c: char| c.is_ascii_digit();
    let whole = run(text, digit);
    let mut len = whole;
    if text[len..].starts_with('.') && text[len + 1..].starts_with(digit) {
        len += 1 + run(&text[len + 1..], digit);
    }
    if text[len..].starts_with(['e', 'E']) {
        let sign = usize::from(text[len + 1..].starts_with(['-', '+']));
        let exponent = run(&text[len + 1 + sign..], digit);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    let token = if len == whole { Token::Int(&text[..len]) } else { Token::Float(&text[..len]) };
    (token, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        lex(text).unwrap().into_iter().map(|(_, token)| token).collect()
    }

    #[test]
    fn numbers_ranges_and_symbols() {
        use Token::*;
        assert_eq!(
            tokens("2-5 1e-5 2T 0.5 inf"),
            [
                Int("2"),
                Punct('-'),
                Int("5"),
                Float("1e-5"),
                Int("2"),
                Word("T"),
                Float("0.5"),
                Word("inf"),
                End
            ]
        );
    }

    #[test]
    fn names_keep_their_sigil() {
        use Token::*;
        assert_eq!(
            tokens("%x @mixer.in_proj.weight &conv.1 #0 $rows // %y\n\"a.{}.\""),
            [
                Name('%', "x"),
                Name('@', "mixer.in_proj.weight"),
                Name('&', "conv.1"),
                Name('#', "0"),
                Name('$', "rows"),
                Text("a.{}."),
                End
            ]
        );
    }

    #[test]
    fn positions_count_characters() {
        let error = lex("// é\n  é").unwrap_err();
        assert_eq!(error.at, Position { line: 2, column: 3 });
        let error = lex("a\n \"open\n\"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2, column 2: expected a closing `\"` on the same line, found none"
        );
    }
}
