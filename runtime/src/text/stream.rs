//! Text as tokens come in, never half a character.

use std::sync::Arc;

use super::bytes::{bytes_of, take_text};
use super::{Text, TextError};

/// Turns tokens into text piece by piece; the pieces together are the text of all tokens.
#[derive(Debug)]
pub struct TextStream {
    text: Arc<Text>,
    way: Way,
}

/// How the text of more tokens is found.
#[derive(Debug)]
enum Way {
    /// Tokens are bytes, whatever stands around them; these are not a whole character yet.
    Bytes(Vec<u8>),
    /// The decoder is asked for the text of some tokens with and without those after them.
    Window(Window),
}

#[derive(Debug, Default)]
struct Window {
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
        let way = if text.is_byte_level() { Way::Bytes(Vec::new()) } else { Way::Window(Window::default()) };
        Self { text, way }
    }

    /// The text that `token` completes; empty while a character is not whole.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        // What is left out wherever it stands would only make a window grow.
        let Some(spelled) = self.text.spelled(token) else { return Ok(String::new()) };
        match &mut self.way {
            Way::Bytes(held) => {
                held.extend(bytes_of(&spelled));
                Ok(take_text(held))
            }
            Way::Window(window) => window.push(&self.text, token),
        }
    }

    /// Whether tokens have come whose text has not been given out, such as a part of a character.
    pub fn holds_back(&self) -> bool {
        match &self.way {
            Way::Bytes(held) => !held.is_empty(),
            Way::Window(window) => window.given < window.ids.len(),
        }
    }

    /// What is left at the end, torn or not.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        match &mut self.way {
            Way::Bytes(held) => Ok(String::from_utf8_lossy(&std::mem::take(held)).into_owned()),
            Way::Window(window) => window.finish(&self.text),
        }
    }
}

impl Window {
    fn push(&mut self, text: &Text, token: u32) -> Result<String, TextError> {
        self.ids.push(token);
        let (known, whole) = self.decode(text)?;
        // A torn character decodes to U+FFFD. So does a real one, which then waits for the next token.
        if whole.len() <= known.len() || whole.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.from = self.given;
        self.given = self.ids.len();
        Ok(tail(&known, &whole))
    }

    fn finish(&mut self, text: &Text) -> Result<String, TextError> {
        let (known, whole) = self.decode(text)?;
        self.from = self.ids.len();
        self.given = self.ids.len();
        Ok(tail(&known, &whole))
    }

    /// The text given out of the window, and the window's whole text.
    fn decode(&self, text: &Text) -> Result<(String, String), TextError> {
        let known = text.decode(&self.ids[self.from..self.given])?;
        Ok((known, text.decode(&self.ids[self.from..])?))
    }
}

/// What `whole` has after `known`.
fn tail(known: &str, whole: &str) -> String {
    whole.get(known.len()..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{byte_fallback, byte_level, tokenizer};

    #[test]
    fn tokens_without_text_do_not_make_a_window_grow() {
        // The tokenizer does not know ids from 261 on.
        let text = Arc::new(tokenizer(&byte_fallback(), 300).unwrap());
        let mut stream = TextStream::new(text);
        let mut decoded = 0;
        let mut push = |token: u32| {
            let piece = stream.push(token).unwrap();
            let Way::Window(window) = &stream.way else { panic!("bytes have no window") };
            decoded += window.ids.len() - window.from;
            piece
        };
        assert_eq!(push(257), "a");
        let silent = [261, 280, 299].repeat(1000);
        assert!(silent.iter().all(|token| push(*token).is_empty()));
        assert_eq!(push(0xC3), "");
        assert!(silent.iter().all(|token| push(*token).is_empty()));
        assert_eq!(push(0xA9), "é");
        assert!(decoded < 4 * silent.len(), "{decoded}");
        assert!(!stream.holds_back());
    }

    #[test]
    fn bytes_that_become_no_character_are_given_out() {
        // `<end>` is special.
        let text = Arc::new(tokenizer(&byte_level(), 257).unwrap());
        let mut stream = TextStream::new(text);
        let mut push = |token: u32| (stream.push(token).unwrap(), stream.holds_back());
        assert_eq!(push(0xC3), (String::new(), true));
        assert_eq!(push(256), (String::new(), true));
        assert_eq!(push(0xA9), ("é".to_owned(), false));
        assert_eq!(push(0xFF), ("\u{FFFD}".to_owned(), false));
        assert_eq!(push(0xE6), (String::new(), true));
        assert_eq!(push(u32::from(b'a')), ("\u{FFFD}a".to_owned(), false));
        assert_eq!(push(0xE6), (String::new(), true));
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
        assert!(!stream.holds_back());
    }
}
