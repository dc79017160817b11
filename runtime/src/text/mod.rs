//! The way from text to tokens and back.

mod budget;
mod bytes;
mod chat;
mod clock;
mod closing;
mod conversation;
mod jinja;
mod python_json;
mod sentence;
mod settings;
mod stop;
mod stream;
mod switch;
mod think;
mod thoughts;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use thiserror::Error;
use tokenizers::{DecoderWrapper, Tokenizer};

pub use budget::{Budget, Grace, ThinkingBudget, UsageReader};
pub use chat::ChatTemplate;
pub use conversation::Conversation;
pub(crate) use conversation::{kind, read_input};
pub use settings::{GenerationSettings, model_type};
pub use stop::{StopFilter, StopText};
pub use stream::TextStream;
pub use switch::ThinkSwitch;
pub use think::{Parted, part, part_text};
pub use thoughts::{CLOSE, OPEN, Usage};
pub(crate) use thoughts::{Part, Reader};

/// Why text cannot be used.
#[derive(Debug, Error)]
pub enum TextError {
    /// A file that could not be read.
    #[error("cannot read `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that does not say what it should.
    #[error("cannot use `{}`: {what}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A tokenizer of another model.
    #[error("tokenizer `{}` has token id {id}, but the model's vocabulary has {vocab} entries", file.display())]
    Vocabulary {
        /// The file.
        file: PathBuf,
        /// Its largest id.
        id: u32,
        /// Ids must be below it.
        vocab: u64,
    },
    /// Text that the tokenizer refuses.
    #[error("cannot tokenize the text: {0}")]
    Encode(String),
    /// Tokens that the tokenizer refuses.
    #[error("cannot turn tokens into text: {0}")]
    Decode(String),
    /// A tokenizer without a tag that must be written.
    #[error("the checkpoint's tokenizer cannot spell `{tag}`, which ends thoughts")]
    NoTag {
        /// The tag.
        tag: &'static str,
    },
    /// No template where one is needed.
    #[error(
        "checkpoint `{}` has no chat template (in tokenizer_config.json or chat_template.jinja); `generate --raw` does without",
        directory.display()
    )]
    NoTemplate {
        /// The checkpoint.
        directory: PathBuf,
    },
    /// A template that does not work.
    #[error("the chat template of `{}` is wrong at line {line}: {what}", file.display())]
    WrongTemplate {
        /// The file that holds it.
        file: PathBuf,
        /// Line of the template.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// A template that refuses the conversation.
    #[error("the chat template of `{}` cannot render this conversation: {what}", file.display())]
    Template {
        /// The file that holds it.
        file: PathBuf,
        /// What it said.
        what: String,
    },
}

/// A checkpoint's tokenizer.
#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    /// Special tokens, which mark turns and ends. Tags of thoughts are text, whatever the tokenizer says.
    special: HashSet<u32>,
    /// Whether the tokenizer says that a tag of thoughts is special.
    special_tags: bool,
    /// The checkpoint.
    directory: PathBuf,
    /// Whether its chat templates have tags of thoughts, once somebody has asked.
    template_has_tags: OnceLock<bool>,
}

/// Whether the tokenizer adds what it puts around every text, such as a begin-of-text token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// It does: plain text.
    Added,
    /// It does not: a chat template has written its own.
    Written,
}

impl Text {
    /// Reads `tokenizer.json` of a checkpoint and checks that it fits a vocabulary.
    ///
    /// # Errors
    /// [`TextError`] when there is no usable tokenizer.
    pub fn open(directory: &Path, vocab: u64) -> Result<Self, TextError> {
        let file = directory.join("tokenizer.json");
        let bytes = std::fs::read(&file).map_err(|source| TextError::Read { file: file.clone(), source })?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| TextError::Malformed {
            file: file.clone(),
            what: tokenizer_fault(&error.to_string()),
        })?;
        // Files of the encoder kind ask for both; a prompt is neither cut nor filled up.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| TextError::Malformed { file: file.clone(), what: error.to_string() })?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if u64::from(largest) >= vocab {
            return Err(TextError::Vocabulary { file, id: largest, vocab });
        }
        let is_tag = |content: &str| content == OPEN || content == CLOSE;
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        let (tags, special): (Vec<_>, Vec<_>) = special.partition(|(_, token)| is_tag(&token.content));
        let special = special.into_iter().map(|(id, _)| *id).collect();
        Ok(Self {
            special_tags: !tags.is_empty(),
            tokenizer,
            special,
            directory: directory.to_owned(),
            template_has_tags: OnceLock::new(),
        })
    }

    /// Token ids of a text; special tokens that it spells become themselves.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, frame: Frame) -> Result<Vec<u32>, TextError> {
        let encoding = self.tokenizer.encode(text, frame == Frame::Added);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| TextError::Encode(error.to_string()))
    }

    /// Text of token ids, without special tokens other than the tags of thoughts.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        let decoded = if self.special_tags {
            let shown: Vec<u32> = ids.iter().copied().filter(|id| !self.special.contains(id)).collect();
            self.tokenizer.decode(&shown, false)
        } else {
            self.tokenizer.decode(ids, true)
        };
        decoded.map_err(|error| TextError::Decode(error.to_string()))
    }

    /// A token as the vocabulary spells it; none where it has no text, whatever stands around it.
    fn spelled(&self, id: u32) -> Option<String> {
        if self.special.contains(&id) { None } else { self.tokenizer.id_to_token(id) }
    }

    /// Whether the text of tokens is that of their bytes, one after the other.
    fn is_byte_level(&self) -> bool {
        matches!(self.tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }

    /// Whether a prompt ends inside of thoughts that it has opened as templates do: at its very end, or, where it holds the
    /// beginning of an answer, at the beginning of its last turn. A tag in the middle of somebody's text opens nothing.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn opens_thinking(&self, prompt: &[u32]) -> Result<bool, TextError> {
        // Turns begin with special tokens, and their first word may be a role.
        let turn = prompt.iter().rposition(|id| self.special.contains(id)).map_or(0, |at| at + 1);
        let written = self.decode(&prompt[turn..])?;
        let (Some((before, first)), Some((_, last))) = (written.split_once(OPEN), written.rsplit_once(OPEN))
        else {
            return Ok(false);
        };
        // One special token before everything is the tokenizer's own, and no turn of a template.
        let begins_turn = turn > 1 && before.split_whitespace().count() <= 1;
        Ok(last.trim().is_empty() || begins_turn && !first.contains(CLOSE))
    }

    /// Whether the checkpoint has a chat template with the tags of thoughts; it is read once.
    ///
    /// # Errors
    /// [`TextError`] when a file of the template cannot be used.
    pub fn template_has_tags(&self) -> Result<bool, TextError> {
        if let Some(known) = self.template_has_tags.get() {
            return Ok(*known);
        }
        let found = match ChatTemplate::open(&self.directory) {
            Ok(template) => template.has_tags(),
            Err(TextError::NoTemplate { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok(*self.template_has_tags.get_or_init(|| found))
    }
}

/// What the tokenizer's parser says, unless that is about its own types.
fn tokenizer_fault(said: &str) -> String {
    let no_variant = said.starts_with("data did not match any variant");
    if no_variant { "its kind of tokenizer is not supported".to_owned() } else { said.to_owned() }
}

/// Reads a JSON file of a checkpoint; `None` where there is none.
fn read_json(file: &Path) -> Result<Option<serde_json::Value>, TextError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TextError::Read { file: file.to_owned(), source }),
    };
    parse_json(file, &text).map(Some)
}

/// Parses the text of a JSON file.
fn parse_json(file: &Path, text: &str) -> Result<serde_json::Value, TextError> {
    serde_json::from_str(&without_bare_numbers(text))
        .map_err(|error| TextError::Malformed { file: file.to_owned(), what: error.to_string() })
}

/// Python writes `Infinity` and `NaN` into JSON, which has no such words; `null` takes their place.
fn without_bare_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Odd pieces between unescaped quotes are strings.
    let mut in_string = false;
    let mut escaped = false;
    let mut plain = String::new();
    let flush = |plain: &mut String, out: &mut String| {
        out.push_str(&plain.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null"));
        plain.clear();
    };
    for c in text.chars() {
        let quote = c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        if quote {
            flush(&mut plain, &mut out);
            in_string = !in_string;
            out.push(c);
        } else if in_string {
            out.push(c);
        } else {
            plain.push(c);
        }
    }
    flush(&mut plain, &mut out);
    out
}

#[cfg(test)]
mod tests;
