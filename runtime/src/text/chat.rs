//! Chat templates, rendered as transformers renders them.

use std::path::{Path, PathBuf};

use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{TextError, clock, parse_json, read_json};

const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// What a template renders.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// Messages with `role` and `content`.
    pub messages: Vec<Value>,
    /// Tools, where there are any.
    pub tools: Option<Value>,
}

impl Conversation {
    /// One user message.
    pub fn prompt(text: &str) -> Self {
        Self { messages: vec![json!({"role": "user", "content": text})], tools: None }
    }

    /// Reads a list of messages, or an object with `messages` and perhaps `tools`.
    ///
    /// # Errors
    /// [`TextError`] when the file is neither.
    pub fn open(file: &Path) -> Result<Self, TextError> {
        let read = |source| TextError::Read { file: file.to_owned(), source };
        let json = parse_json(file, &std::fs::read_to_string(file).map_err(read)?)?;
        let (messages, tools) = match json {
            Value::Array(messages) => (Some(messages), None),
            Value::Object(mut object) => match object.remove("messages") {
                Some(Value::Array(messages)) => (Some(messages), object.remove("tools")),
                _ => (None, None),
            },
            _ => (None, None),
        };
        let is_message = |message: &Value| message.get("role").is_some_and(Value::is_string);
        match messages {
            Some(messages) if messages.iter().all(is_message) => Ok(Self { messages, tools }),
            _ => Err(TextError::Malformed {
                file: file.to_owned(),
                what: "it is not a list of messages, each with a `role` and `content`".to_owned(),
            }),
        }
    }
}

/// A checkpoint's chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    directory: PathBuf,
    source: String,
    /// `bos_token` and the like, which templates may write.
    special: Map<String, Value>,
}

impl ChatTemplate {
    /// Finds the template in `tokenizer_config.json` or `chat_template.jinja`.
    ///
    /// # Errors
    /// [`TextError`] when there is none or a file cannot be used.
    pub fn open(directory: &Path) -> Result<Self, TextError> {
        let config_file = directory.join(CONFIG);
        let config = read_json(&config_file)?.unwrap_or(Value::Null);
        let file = directory.join(TEMPLATE);
        let beside = match std::fs::read_to_string(&file) {
            Ok(source) => Some(source),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(TextError::Read { file, source }),
        };
        let source = beside
            .or_else(|| inline(&config))
            .ok_or_else(|| TextError::NoTemplate { directory: directory.to_owned() })?;
        let mut special = Map::new();
        for name in ["bos_token", "eos_token", "pad_token", "unk_token"] {
            let token = config.get(name);
            let text = token.and_then(|token| token.get("content").unwrap_or(token).as_str());
            if let Some(text) = text {
                special.insert(name.to_owned(), text.into());
            }
        }
        Ok(Self { directory: directory.to_owned(), source, special })
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, with the opening of the assistant's answer.
    ///
    /// # Errors
    /// [`TextError::Template`] with what the template said.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TextError> {
        let mut context = self.special.clone();
        context.insert("messages".to_owned(), conversation.messages.clone().into());
        context.insert("tools".to_owned(), conversation.tools.clone().unwrap_or(Value::Null));
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), true.into());
        let environment = environment();
        let rendered = environment
            .template_from_str(&self.source)
            .and_then(|template| template.render(Jinja::from_serialize(&context)));
        rendered.map_err(|error| {
            let directory = self.directory.clone();
            let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            let refused = std::error::Error::source(&error).is_some_and(|source| source.is::<Refusal>());
            match error.line() {
                Some(line) if is_templates_own(error.kind()) => {
                    TextError::WrongTemplate { directory, line, what }
                }
                Some(line) if !refused => {
                    TextError::Template { directory, what: format!("{what} (line {line})") }
                }
                _ => TextError::Template { directory, what },
            }
        })
    }
}

/// The template of a tokenizer configuration: a string, or one of several by name.
fn inline(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let called = |name: &str| named.iter().find(|entry| entry.get("name").is_some_and(|n| n == name));
            let entry = called("default").or(named.first())?;
            Some(entry.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
}

/// Whether no conversation could make the template right.
fn is_templates_own(kind: ErrorKind) -> bool {
    use ErrorKind::{SyntaxError, UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
    matches!(kind, SyntaxError | UnknownFilter | UnknownFunction | UnknownMethod | UnknownTest)
}

/// Marks what a template itself raises: that sentence is for people, and its line is not.
#[derive(Debug, thiserror::Error)]
#[error("the template refuses")]
struct Refusal;

/// Jinja as transformers sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Jinja, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Refusal))
    });
    environment.add_function("strftime_now", |format: String| clock::now(&format));
    environment.add_filter("tojson", tojson);
    environment
}

/// Python's `json.dumps(value, ensure_ascii=False)`, with its spaces; the built-in filter escapes HTML.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja's filters have")]
fn tojson(value: Jinja, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Other options of json.dumps do not change what the models were trained on.
    let _: Option<Jinja> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonSpaces)),
    };
    let bad = |what: String| Error::new(ErrorKind::BadSerialization, what);
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(out).map_err(|error| bad(error.to_string()))
}

/// `, ` between items and `: ` after keys.
struct PythonSpaces;

impl serde_json::ser::Formatter for PythonSpaces {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(template: &Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        dir
    }

    fn render(template: &str, conversation: &Conversation) -> Result<String, TextError> {
        ChatTemplate::open(checkpoint(&template.into()).path())?.render(conversation)
    }

    #[test]
    fn blocks_are_trimmed_and_strings_have_python_methods() {
        let template = "{{ bos_token }}\n  {% for m in messages %}\n{{ m['content'].split('</x>')[-1].strip() }}|\
                        {{ m.role.upper() }}\n  {% endfor %}\nend{% if add_generation_prompt %}!{% endif %}\n";
        let conversation = Conversation::prompt("a</x> b ");
        assert_eq!(render(template, &conversation).unwrap(), "<s>\nb|USER\nend!");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let tools = json!([{"name": "f", "args": {"z": [1, 2], "a": "<é>"}}]);
        let conversation = Conversation { messages: vec![], tools: Some(tools) };
        let rendered = render("{{ tools | tojson }}", &conversation).unwrap();
        assert_eq!(rendered, r#"[{"name": "f", "args": {"z": [1, 2], "a": "<é>"}}]"#);
        let indented = render("{{ tools[0].args.z | tojson(indent=2) }}", &conversation).unwrap();
        assert_eq!(indented, "[\n  1,\n  2\n]");
    }

    #[test]
    fn refusals_and_faults_are_sentences() {
        let prompt = Conversation::prompt("x");
        let refused =
            render("{{ raise_exception('roles must alternate') }}", &prompt).unwrap_err().to_string();
        assert!(refused.ends_with("cannot render this conversation: roles must alternate"), "{refused}");
        let wrong = render("one\n{% if %}", &prompt).unwrap_err().to_string();
        assert!(wrong.contains("is wrong at line 2: "), "{wrong}");
        assert_eq!(render("{{ strftime_now('%Y') }}", &prompt).unwrap().len(), 4);
        let none = ChatTemplate::open(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(none.contains("has no chat template") && none.ends_with("use --raw"), "{none}");
    }

    #[test]
    fn named_templates_and_a_file_of_its_own() {
        let named = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        let dir = checkpoint(&named);
        let prompt = Conversation::prompt("x");
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&prompt).unwrap(), "d");
        std::fs::write(dir.path().join(TEMPLATE), "file").unwrap();
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&prompt).unwrap(), "file");
    }

    #[test]
    fn conversations_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chat.json");
        let open = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Conversation::open(&file)
        };
        let one = open(r#"[{"role": "user", "content": "x"}]"#).unwrap();
        assert_eq!(one, Conversation::prompt("x"));
        let tools = open(r#"{"messages": [{"role": "user", "content": "x"}], "tools": []}"#).unwrap();
        assert_eq!(tools.tools, Some(json!([])));
        for bad in ["{}", "3", r#"[{"content": "x"}]"#] {
            assert!(open(bad).unwrap_err().to_string().contains("not a list of messages"));
        }
        assert!(open("[").unwrap_err().to_string().contains("EOF"));
        assert!(
            Conversation::open(&dir.path().join("none")).unwrap_err().to_string().contains("No such file")
        );
    }
}
