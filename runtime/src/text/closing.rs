//! The text that closes thoughts, as tokens.

use std::sync::Arc;

use super::thoughts::{CLOSE, Thoughts};
use super::{Frame, Text, TextError};

/// What the families write between thoughts and answer: the tag on a line of its own, and an empty line.
const BEFORE: &str = "\n";
const AFTER: &str = "\n\n";

/// The tokens that close thoughts, for each way in which they may have ended.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    /// After a line that has begun.
    line: Vec<u32>,
    /// After this many bytes of the tag.
    rest: Vec<Vec<u32>>,
}

impl Closing {
    /// Spells the closings with a tokenizer.
    ///
    /// # Errors
    /// [`TextError::NoTag`] when it cannot spell the closing tag.
    pub(super) fn new(text: &Arc<Text>) -> Result<Self, TextError> {
        let spell = |written: &str| text.encode(written, Frame::Written);
        // A tokenizer may spell a text's beginning in another way than its middle, or drop what it does not know.
        let reads = |before: &[u32], closing: &[u32]| -> Result<bool, TextError> {
            Ok(text.decode(&[before, closing].concat())?.contains(CLOSE))
        };
        let whole = spell(&format!("{CLOSE}{AFTER}"))?;
        let line = spell(&format!("{BEFORE}{CLOSE}{AFTER}"))?;
        if !reads(&[], &whole)? || !reads(&[], &line)? {
            return Err(TextError::NoTag { tag: CLOSE });
        }
        let mut rest = vec![whole];
        for matched in 1..CLOSE.len() {
            let closing = spell(&format!("{}{AFTER}", &CLOSE[matched..]))?;
            let fits = reads(&spell(&CLOSE[..matched])?, &closing)?;
            rest.push(if fits { closing } else { line.clone() });
        }
        Ok(Self { line, rest })
    }

    /// The tokens that close these thoughts.
    pub(super) fn of(&self, thoughts: &Thoughts) -> &[u32] {
        match thoughts.matched() {
            0 if !thoughts.tail().is_empty() && !thoughts.tail().ends_with('\n') => &self.line,
            matched => &self.rest[matched],
        }
    }
}
