//! Shows an answer as it comes, with its thoughts dimmed.

use std::io::{self, Write};

use crate::text::{Part, Reader};

const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

/// One answer on its way to a reader.
pub(super) struct Show<'w> {
    out: &'w mut dyn Write,
    reader: Reader,
    /// Whether thoughts are to be dimmed.
    dim: bool,
    /// Whether what is written now is dimmed.
    dimmed: bool,
    /// Whether a line has been begun.
    open: bool,
}

/// Whether a part is shown as thoughts, which their tags are, too.
fn is_thought(part: Part) -> bool {
    matches!(part, Part::Thought | Part::Tag)
}

impl<'w> Show<'w> {
    pub(super) fn new(out: &'w mut dyn Write, dim: bool) -> Self {
        Self { out, reader: Reader::default(), dim, dimmed: false, open: false }
    }

    /// Shows a piece, at once as far as it is certain what it is.
    pub(super) fn push(&mut self, piece: &str) -> io::Result<()> {
        for (part, text) in self.reader.push(piece) {
            self.write(part, &text)?;
        }
        self.out.flush()
    }

    /// Shows the rest and ends the line.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some((part, text)) = self.reader.finish() {
            self.write(part, &text)?;
        }
        self.turn(false)?;
        if self.open {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    fn write(&mut self, part: Part, text: &str) -> io::Result<()> {
        self.turn(is_thought(part))?;
        self.open = !text.ends_with('\n');
        self.out.write_all(text.as_bytes())
    }

    /// Dims what follows, or no longer.
    fn turn(&mut self, dimmed: bool) -> io::Result<()> {
        if !self.dim || self.dimmed == dimmed {
            return Ok(());
        }
        self.dimmed = dimmed;
        self.out.write_all(if dimmed { DIM } else { NORMAL }.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thoughts and answer of a text that comes in pieces.
    fn parted<'p>(pieces: impl IntoIterator<Item = &'p str>) -> [String; 2] {
        let mut reader = Reader::default();
        let mut parts = Vec::new();
        for piece in pieces {
            parts.extend(reader.push(piece));
        }
        parts.extend(reader.finish());
        [true, false].map(|thoughts| {
            parts
                .iter()
                .filter(|(part, _)| is_thought(*part) == thoughts)
                .map(|(_, text)| text.as_str())
                .collect()
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

    fn shown(pieces: &[&str], dim: bool) -> String {
        let mut out = Vec::new();
        let mut show = Show::new(&mut out, dim);
        pieces.iter().for_each(|piece| show.push(piece).unwrap());
        show.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn thoughts_are_dimmed_where_that_is_asked_for() {
        let pieces = ["<think>\na", "b</think>", "\n\nc"];
        assert_eq!(shown(&pieces, false), "<think>\nab</think>\n\nc\n");
        assert_eq!(shown(&pieces, true), "\x1b[2m<think>\nab</think>\x1b[0m\n\nc\n");
        assert_eq!(shown(&["<think>\na"], true), "\x1b[2m<think>\na\x1b[0m\n");
        assert_eq!(shown(&["a\n"], true), "a\n");
        assert_eq!(shown(&[], true), "");
    }
}
