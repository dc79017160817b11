//! Text as tokens come in, never half a character.

use std::sync::Arc;

use super::{Text, TextError};

/// Turns tokens into text piece by piece; the pieces together are the text of all tokens.
#[derive(Debug)]
pub struct TextStream {
    text: Arc<Text>,
    ids: Vec<u32>,
    /// Tokens from here on are decoded again each time: those whose text was given out last, so that
    /// decoders that treat a first token differently see the same first token, and those after.
    from: usize,
    /// The text of tokens before this one has been given out.
    given: usize,
}

impl TextStream {
    /// No token yet.
    pub fn new(text: Arc<Text>) -> Self {
        Self { text, ids: Vec::new(), from: 0, given: 0 }
    }

    /// The text that `token` completes; empty while a character is not whole.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        // What is left out wherever it stands would only make the window grow.
        if self.text.is_silent(token) {
            return Ok(String::new());
        }
        self.ids.push(token);
        let (known, whole) = self.window()?;
        // A torn character decodes to U+FFFD. So does a real one, which then waits for the next token.
        if whole.len() <= known.len() || whole.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.from = self.given;
        self.given = self.ids.len();
        Ok(tail(&known, &whole))
    }

    /// Whether tokens have come whose text has not been given out, such as a part of a character.
    pub fn holds_back(&self) -> bool {
        self.given < self.ids.len()
    }

    /// What is left at the end, torn or not.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        let (known, whole) = self.window()?;
        self.from = self.ids.len();
        self.given = self.ids.len();
        Ok(tail(&known, &whole))
    }

    /// The text given out of the window, and the window's whole text.
    fn window(&self) -> Result<(String, String), TextError> {
        let known = self.text.decode(&self.ids[self.from..self.given])?;
        Ok((known, self.text.decode(&self.ids[self.from..])?))
    }
}

/// What `whole` has after `known`.
fn tail(known: &str, whole: &str) -> String {
    whole.get(known.len()..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{byte_level, tokenizer};

    #[test]
    fn tokens_without_text_are_not_decoded_again() {
        // `<end>` is special, and the tokenizer does not know what comes after it.
        let text = Arc::new(tokenizer(&byte_level(), 300).unwrap());
        let mut stream = TextStream::new(text);
        let mut decoded = 0;
        let mut push = |token: u32| {
            let piece = stream.push(token).unwrap();
            decoded += stream.ids.len() - stream.from;
            piece
        };
        assert_eq!(push(u32::from(b'a')), "a");
        let silent = [256, 257, 299].repeat(1000);
        assert!(silent.iter().all(|token| push(*token).is_empty()));
        assert_eq!(push(0xC3), "");
        assert!(silent.iter().all(|token| push(*token).is_empty()));
        assert_eq!(push(0xA9), "é");
        assert!(decoded < 4 * silent.len(), "{decoded}");
        assert!(!stream.holds_back());
    }
}
