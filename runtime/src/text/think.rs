//! Thoughts and answer: the text inside and outside of `<think>` and `</think>`.

use std::sync::Arc;

use super::thoughts::{Origin, Part, Reader, Thoughts, Usage};
use super::{Text, TextError, TextStream};

/// A generated text, parted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parted {
    /// The thoughts, without their tags; several blocks have an empty line between them.
    pub thinking: String,
    /// What stands outside of them, without the white space after a closing tag.
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
    let mut reader = Reader::new(opened);
    let mut thoughts = Thoughts::new(opened);
    let mut pieces = Vec::new();
    for token in tokens {
        let piece = stream.push(*token)?;
        thoughts.push(&piece, Origin::Model);
        pieces.extend(reader.push(&piece));
    }
    pieces.extend(reader.push(&stream.finish()?));
    pieces.extend(reader.finish());
    let (thinking, answer) = join(&pieces);
    Ok(Parted { thinking, answer, usage: thoughts.usage() })
}

/// Thinking and answer of a text; `opened` says that the prompt has opened the thoughts.
pub fn part_text(written: &str, opened: bool) -> (String, String) {
    let mut reader = Reader::new(opened);
    let mut pieces = reader.push(written);
    pieces.extend(reader.finish());
    join(&pieces)
}

/// The text inside of thoughts and the text outside.
fn join(pieces: &[(Part, String)]) -> (String, String) {
    let all =
        |wanted: Part| pieces.iter().filter(move |(part, _)| *part == wanted).map(|(_, text)| text.as_str());
    let blocks = pieces.split(|(part, _)| *part == Part::Tag);
    let blocks = blocks.map(|block| {
        let thoughts = block.iter().filter(|(part, _)| *part == Part::Thought);
        thoughts.map(|(_, text)| text.as_str()).collect::<String>().trim().to_owned()
    });
    let blocks: Vec<_> = blocks.filter(|block| !block.is_empty()).collect();
    let answer: String = all(Part::Answer).collect();
    let answer = if all(Part::Tag).next().is_some() { answer.trim_start() } else { &answer };
    (blocks.join("\n\n"), answer.to_owned())
}
