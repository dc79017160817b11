//! Tells thoughts from the answer while the text comes in.

use crate::text::{self, CLOSE, Reader};

/// What a piece of text is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Thoughts, with their tags.
    Thought,
    /// The answer.
    Answer,
}

impl From<text::Part> for Part {
    fn from(part: text::Part) -> Self {
        match part {
            text::Part::Thought | text::Part::Tag => Self::Thought,
            text::Part::Gap | text::Part::Answer => Self::Answer,
        }
    }
}

/// Parts a text that comes in pieces, and holds back what may become a tag.
#[derive(Debug, Clone, Default)]
pub struct Thoughts {
    reader: Reader,
}

impl Thoughts {
    /// The parts that are now certain, in order.
    pub fn push(&mut self, piece: &str) -> Vec<(Part, String)> {
        self.reader.push(piece).into_iter().map(|(part, text)| (part.into(), text)).collect()
    }

    /// What was held back, when no more comes.
    pub fn finish(&mut self) -> Option<(Part, String)> {
        self.reader.finish().map(|(part, text)| (part.into(), text))
    }
}

/// A text whose thoughts end: where they are open, a closing tag is put behind them.
///
/// A template takes what stands before the tag for thoughts, so where an answer has begun there is none.
pub(super) fn closed(text: &str) -> String {
    let mut reader = Reader::default();
    let pieces = reader.push(text);
    let answered = pieces.iter().any(|(part, text)| *part == text::Part::Answer && !text.trim().is_empty());
    if reader.inside() && !answered {
        let thoughts = &text[..text.len() - reader.matched()];
        format!("{}\n{CLOSE}\n\n", thoughts.trim_end())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thoughts and answer of a text that comes in pieces.
    fn parted<'p>(pieces: impl IntoIterator<Item = &'p str>) -> [String; 2] {
        let mut thoughts = Thoughts::default();
        let mut parts = Vec::new();
        for piece in pieces {
            parts.extend(thoughts.push(piece));
        }
        parts.extend(thoughts.finish());
        [Part::Thought, Part::Answer].map(|wanted| {
            parts.iter().filter(|(part, _)| *part == wanted).map(|(_, text)| text.as_str()).collect()
        })
    }

    #[test]
    fn tags_are_shown_with_their_thoughts() {
        assert_eq!(parted(["<thi", "nk>a <b </thin", "k", ">\n\n", "c"]), ["<think>a <b </think>", "\n\nc"]);
        assert_eq!(
            parted([" <think>a</think>\n<think>b</think>c"]),
            ["<think>a</think><think>b</think>", " \nc"]
        );
        assert_eq!(parted(["a <think>b</think>c"]), ["<think>b</think>", "a c"]);
        assert_eq!(parted(["a</think>b"]), ["", "a</think>b"]);
        assert_eq!(parted(["<think>a </th"]), ["<think>a </th", ""]);
        assert_eq!(parted(["<thi"]), ["", "<thi"]);
        assert_eq!(parted(["  "]), ["", "  "]);
    }

    #[test]
    fn open_thoughts_are_closed() {
        assert_eq!(closed("<think>\na \n"), "<think>\na\n</think>\n\n");
        assert_eq!(closed(" <think>\na </thi"), " <think>\na\n</think>\n\n");
        assert_eq!(closed("<think>a</think>\n<think>b"), "<think>a</think>\n<think>b\n</think>\n\n");
        for whole in ["", "a", "<think>a</think>", "<think>a</think>b", "<thi", "a <think>b"] {
            assert_eq!(closed(whole), whole);
        }
    }
}
