//! Thoughts and answer: the text inside and outside of `<think>` and `</think>`.

use std::sync::Arc;

use super::thoughts::{CLOSE, OPEN, Origin, Thoughts, Usage};
use super::{Text, TextError, TextStream};

/// A generated text, parted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parted {
    /// The thoughts, without their tags; several blocks have an empty line between them.
    pub thinking: String,
    /// What stands outside of them.
    pub answer: String,
    /// How many tokens they took.
    pub usage: Usage,
}

/// Parts the text of `tokens`; `opened` says that the prompt has opened the thoughts.
///
/// Every token counts as the model's. Where a budget was set, its [`super::UsageReader`] knows better.
///
/// # Errors
/// [`TextError::Decode`].
pub fn part(text: &Arc<Text>, tokens: &[u32], opened: bool) -> Result<Parted, TextError> {
    let mut stream = TextStream::new(Arc::clone(text));
    let mut thoughts = Thoughts::new(opened);
    for token in tokens {
        thoughts.push(&stream.push(*token)?, Origin::Model);
    }
    let (thinking, answer) = split(&text.decode(tokens)?, opened);
    Ok(Parted { thinking, answer, usage: thoughts.usage() })
}

/// The text inside of thoughts and the text outside.
fn split(whole: &str, opened: bool) -> (String, String) {
    let mut blocks = Vec::new();
    let mut answer = String::new();
    let mut inside = opened;
    let mut rest = Some(whole);
    let mut thought = false;
    while let Some(text) = rest {
        let tag = if inside { CLOSE } else { OPEN };
        let (before, after) =
            text.split_once(tag).map_or((text, None), |(before, after)| (before, Some(after)));
        thought |= inside;
        if inside {
            blocks.extend(Some(before.trim()).filter(|block| !block.is_empty()));
        } else if thought || after.is_some() {
            answer.push_str(before.trim_start());
        } else {
            answer.push_str(before);
        }
        rest = after;
        inside = !inside;
    }
    (blocks.join("\n\n"), answer)
}
