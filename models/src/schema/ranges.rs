//! Layer lists written as runs and ranges: `0-5, 8-10, 52`.

use std::fmt::Write as _;
use std::ops::{Range, RangeInclusive};

/// A piece of the text that is not a range of layers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRange {
    /// Bytes of the text it stands in.
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
}

/// One range and the bytes it was written in.
pub(crate) type Spelled = (RangeInclusive<usize>, Range<usize>);

/// Parses a list of layers of a model with `count` of them.
pub(crate) fn parse(text: &str, count: usize) -> Result<Vec<Spelled>, BadRange> {
    let mut found = Vec::new();
    let mut offset = 0;
    for piece in text.split(',') {
        let word = piece.trim();
        let start = offset + (piece.len() - piece.trim_start().len());
        let at = start..start + word.len();
        offset += piece.len() + 1;
        let bad = |message: String| BadRange { at: at.clone(), message };
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (Some(first), Some(last)) = (layer(first), layer(last)) else {
            return Err(bad(format!("`{word}` is neither a layer nor a range like `3-7`")));
        };
        if last < first {
            return Err(bad(format!("the range `{word}` runs backwards")));
        }
        if last >= count {
            return Err(bad(format!("layer {last} does not exist: the last of {count} is {}", count - 1)));
        }
        found.push((first..=last, at));
    }
    Ok(found)
}

fn layer(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Writes layers, given in rising order, as ranges.
pub(crate) fn print(layers: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = layers;
    while let Some(&first) = rest.first() {
        let length = rest.iter().enumerate().take_while(|(i, layer)| **layer == first + i).count();
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = match length {
            1 => write!(text, "{separator}{first}"),
            _ => write!(text, "{separator}{first}-{}", first + length - 1),
        };
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_print_and_parse_back() {
        let layers = [0, 1, 2, 5, 7, 8];
        assert_eq!(print(&layers), "0-2, 5, 7-8");
        let parsed: Vec<usize> =
            parse("0-2, 5, 7-8", 9).unwrap().into_iter().flat_map(|(range, _)| range).collect();
        assert_eq!(parsed, layers);
    }

    #[test]
    fn a_bad_range_is_placed() {
        assert_eq!(parse("0-2, 5-4", 9).unwrap_err().at, 5..8);
        assert_eq!(parse("0-2,  9", 9).unwrap_err().at, 6..7);
        assert_eq!(parse("", 9).unwrap_err().message, "`` is neither a layer nor a range like `3-7`");
    }
}
