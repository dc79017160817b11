//! Shows an answer as it comes, with its thoughts dimmed.

use std::io::{self, Write};

use super::thoughts::{Part, Thoughts};

const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

/// One answer on its way to a reader.
pub(super) struct Show<'w> {
    out: &'w mut dyn Write,
    thoughts: Thoughts,
    /// Whether thoughts are to be dimmed.
    dim: bool,
    /// Whether what is written now is dimmed.
    dimmed: bool,
    /// Whether a line has been begun.
    open: bool,
}

impl<'w> Show<'w> {
    pub(super) fn new(out: &'w mut dyn Write, dim: bool) -> Self {
        Self { out, thoughts: Thoughts::default(), dim, dimmed: false, open: false }
    }

    /// Shows a piece, at once as far as it is certain what it is.
    pub(super) fn push(&mut self, piece: &str) -> io::Result<()> {
        for (part, text) in self.thoughts.push(piece) {
            self.write(part, &text)?;
        }
        self.out.flush()
    }

    /// Shows the rest and ends the line.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some((part, text)) = self.thoughts.finish() {
            self.write(part, &text)?;
        }
        self.turn(false)?;
        if self.open {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    fn write(&mut self, part: Part, text: &str) -> io::Result<()> {
        self.turn(part == Part::Thought)?;
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
