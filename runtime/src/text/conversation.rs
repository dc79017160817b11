//! Conversations, as files of JSON hold them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{TextError, parse_json};

/// What a template renders.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// Messages with `role` and `content`.
    pub messages: Vec<Value>,
    /// Tools, where there are any.
    pub tools: Option<Value>,
    /// What else the template may read, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// One user message.
    pub fn prompt(text: &str) -> Self {
        Self { messages: vec![json!({"role": "user", "content": text})], ..Self::default() }
    }

    /// Puts a system message before the others, unless its text is empty.
    pub(crate) fn put_system(&mut self, text: &str) {
        if !text.is_empty() {
            self.messages.insert(0, json!({"role": "system", "content": text}));
        }
    }

    /// Reads a list of messages, or an object with `messages` and perhaps `tools` and variables of the
    /// template. The file `-` is standard input.
    ///
    /// # Errors
    /// [`TextError`] when the file is neither.
    pub fn open(file: &Path) -> Result<Self, TextError> {
        let (file, text) = read_input(file);
        let text = text.map_err(|source| TextError::Read { file: file.clone(), source })?;
        let json = parse_json(&file, &text)?;
        Self::from_json(json).map_err(|what| TextError::Malformed { file, what })
    }

    /// The conversation that a JSON document holds, or what is wrong with it.
    pub(crate) fn from_json(json: Value) -> Result<Self, String> {
        let (messages, tools, variables) = match json {
            Value::Object(mut object) => {
                let Some(messages) = object.shift_remove("messages") else {
                    return Err(
                        "the object has no `messages`, which would be the list of messages".to_owned()
                    );
                };
                let tools = object.shift_remove("tools").filter(|tools| !tools.is_null());
                (messages, tools, object)
            }
            other => (other, None, Map::new()),
        };
        let Value::Array(messages) = messages else {
            let wanted = "a list of messages, or an object with `messages`";
            return Err(format!("expected {wanted}, found {}", kind(&messages)));
        };
        if messages.is_empty() {
            return Err("the list of messages is empty".to_owned());
        }
        for (n, message) in messages.iter().enumerate() {
            check_message(message).map_err(|what| format!("message {} {what}", n + 1))?;
        }
        match tools {
            Some(tools) if !tools.is_array() => {
                Err(format!("`tools` must be a list, but is {}", kind(&tools)))
            }
            tools => Ok(Self { messages, tools, variables }),
        }
    }
}

/// A file's text, and its name in messages. The file `-` is standard input.
pub(crate) fn read_input(file: &Path) -> (PathBuf, io::Result<String>) {
    let (name, bytes) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        (PathBuf::from("standard input"), read.map(|_| bytes))
    } else {
        (file.to_owned(), std::fs::read(file))
    };
    (name, bytes.and_then(utf8))
}

/// Bytes as text, without the mark that some editors put before it.
fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

/// What a message needs, whatever the template: a role, and content unless it is the assistant's, which may
/// be a call of tools alone.
fn check_message(message: &Value) -> Result<(), String> {
    let Value::Object(fields) = message else {
        return Err(format!("must be an object with `role` and `content`, but is {}", kind(message)));
    };
    let role = match fields.get("role") {
        Some(Value::String(role)) => role,
        Some(other) => return Err(format!("has a `role` that must be a text, but is {}", kind(other))),
        None => return Err("has no `role`, such as `user`".to_owned()),
    };
    match fields.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => match parts.iter().find(|part| !part.is_object()) {
            Some(part) => {
                Err(format!("has a part of `content` that must be an object, but is {}", kind(part)))
            }
            None => Ok(()),
        },
        None | Some(Value::Null) if role == "assistant" => Ok(()),
        None => Err(format!("has the role `{role}`, but no `content`")),
        Some(other) => {
            Err(format!("has `content` that must be a text or a list of parts, but is {}", kind(other)))
        }
    }
}

/// A JSON value in a sentence.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<Conversation, String> {
        Conversation::from_json(json)
    }

    #[test]
    fn lists_and_objects() {
        let messages = json!([{"role": "user", "content": "x"}]);
        assert_eq!(read(messages.clone()), Ok(Conversation::prompt("x")));
        let whole = read(json!({"tools": [], "messages": messages, "enable_thinking": false})).unwrap();
        assert_eq!(whole.tools, Some(json!([])));
        assert_eq!(Value::from(whole.variables), json!({"enable_thinking": false}));
        assert_eq!(read(json!({"messages": messages, "tools": null})).unwrap().tools, None);
        let call = json!([{"role": "assistant", "content": null, "tool_calls": []}, {"role": "assistant"}]);
        assert!(read(call).is_ok());
        assert!(read(json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}])).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let user = json!({"role": "user", "content": "x"});
        let wrong = [
            json!(3),
            json!({"role": "user", "content": "x"}),
            json!({"messages": "x"}),
            json!([]),
            json!([user, "x"]),
            json!([{"content": "x"}]),
            json!([{"role": 1, "content": "x"}]),
            json!([user, {"role": "tool"}]),
            json!([{"role": "user", "content": null}]),
            json!([{"role": "user", "content": 3}]),
            json!([{"role": "user", "content": ["x"]}]),
            json!({"messages": [user], "tools": {}}),
        ];
        let said: Vec<_> =
            wrong.into_iter().map(|json| format!("{json}\n  {}", read(json.clone()).unwrap_err())).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chat.json");
        let open = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Conversation::open(&file).map_err(|error| error.to_string())
        };
        assert_eq!(open(r#"[{"role": "user", "content": "x"}]"#), Ok(Conversation::prompt("x")));
        assert_eq!(open("\u{FEFF}[{\"role\": \"user\", \"content\": \"x\"}]"), Ok(Conversation::prompt("x")));
        std::fs::write(&file, b"[\n\xE9]").unwrap();
        let latin = Conversation::open(&file).unwrap_err().to_string();
        assert!(latin.ends_with("line 2 is not UTF-8 text"), "{latin}");
        let cut = open("[").unwrap_err();
        assert!(cut.contains("chat.json`") && cut.contains("EOF"), "{cut}");
        let none = Conversation::open(&dir.path().join("none")).unwrap_err().to_string();
        assert!(none.contains("No such file"), "{none}");
    }
}
