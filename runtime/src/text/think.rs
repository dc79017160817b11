//! Thoughts and answer: the text before and after `</think>`.

use super::{Text, TextError, TextStream};
use std::sync::Arc;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A generated text, parted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parted {
    /// The thoughts, without their tags.
    pub thinking: String,
    /// What follows them.
    pub answer: String,
    /// Tokens up to the end of the closing tag.
    pub thinking_tokens: usize,
}

/// Whether a prompt ends inside of thoughts that it has opened.
pub fn opens_thinking(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

/// Parts the text of `tokens`; `opened` says that the prompt has opened the thoughts.
///
/// # Errors
/// [`TextError::Decode`].
pub fn part(text: &Arc<Text>, tokens: &[u32], opened: bool) -> Result<Parted, TextError> {
    let whole = text.decode(tokens)?;
    let inside = whole.trim_start().strip_prefix(OPEN).or(opened.then_some(whole.as_str()));
    let Some(inside) = inside else {
        return Ok(Parted { answer: whole, ..Parted::default() });
    };
    let Some((thinking, answer)) = inside.split_once(CLOSE) else {
        let thinking = inside.trim().to_owned();
        return Ok(Parted { thinking, answer: String::new(), thinking_tokens: tokens.len() });
    };
    let mut stream = TextStream::new(Arc::clone(text));
    let mut seen = String::new();
    let mut thinking_tokens = 0;
    for token in tokens {
        seen.push_str(&stream.push(*token)?);
        thinking_tokens += 1;
        if seen.contains(CLOSE) {
            break;
        }
    }
    Ok(Parted {
        thinking: thinking.trim().to_owned(),
        answer: answer.trim_start().to_owned(),
        thinking_tokens,
    })
}
