//! Chat templates, rendered as transformers renders them.

use std::path::{Path, PathBuf};

use minijinja::ErrorKind;
use serde_json::{Map, Value};

use super::jinja::{Refusal, environment, explained, value, without_generation};
use super::{CLOSE, Conversation, OPEN, TextError, read_json};

const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
/// A template for conversations with tools, beside [`TEMPLATE`].
const WITH_TOOLS: &str = "additional_chat_templates/tool_use.jinja";

/// Special tokens that templates may write.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A checkpoint's chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    plain: Source,
    /// For conversations with tools, where the checkpoint has one for them.
    with_tools: Option<Source>,
    /// [`SPECIAL`] ones by name.
    special: Map<String, Value>,
}

/// A template's text, and where it stands.
#[derive(Debug, Clone)]
struct Source {
    file: PathBuf,
    text: String,
}

impl ChatTemplate {
    /// Finds the template in `chat_template.jinja` or `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TextError`] when there is none or a file cannot be used.
    pub fn open(directory: &Path) -> Result<Self, TextError> {
        let config_file = directory.join(CONFIG);
        let config = read_json(&config_file)?.unwrap_or(Value::Null);
        let inline = |text: String| Source { file: config_file.clone(), text };
        let (plain, with_tools) = match Source::read(directory.join(TEMPLATE))? {
            Some(plain) => (Some(plain), Source::read(directory.join(WITH_TOOLS))?),
            None => {
                let [plain, with_tools] = in_config(&config);
                (plain.map(inline), with_tools.map(inline))
            }
        };
        let plain = plain.ok_or_else(|| TextError::NoTemplate { directory: directory.to_owned() })?;
        let mut special = Map::new();
        for name in SPECIAL {
            let token = config.get(name);
            let text = token.and_then(|token| token.get("content").unwrap_or(token).as_str());
            if let Some(text) = text {
                special.insert(name.to_owned(), text.into());
            }
        }
        Ok(Self { plain, with_tools, special })
    }

    /// Whether it has a tag of thoughts, with tools or without.
    pub fn has_tags(&self) -> bool {
        let mut sources = self.with_tools.iter().chain([&self.plain]);
        sources.any(|source| source.text.contains(OPEN) || source.text.contains(CLOSE))
    }

    /// The text of a conversation, with the opening of the assistant's answer.
    ///
    /// # Errors
    /// [`TextError::WrongTemplate`] where no conversation could be rendered, [`TextError::Template`] where
    /// this one cannot.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TextError> {
        let with_tools = self.with_tools.as_ref().filter(|_| conversation.tools.is_some());
        let Source { file, text } = with_tools.unwrap_or(&self.plain);
        let mut context = self.special.clone();
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), true.into());
        context.extend(conversation.variables.clone());
        context.insert("messages".to_owned(), conversation.messages.clone().into());
        context.insert("tools".to_owned(), conversation.tools.clone().unwrap_or(Value::Null));
        let environment = environment();
        let rendered = environment
            .template_from_str(&without_generation(text))
            .and_then(|template| template.render(value(context.into())));
        rendered.map_err(|error| {
            let file = file.clone();
            let what = explained(error.detail().map_or_else(|| error.kind().to_string(), str::to_owned));
            let refused = std::error::Error::source(&error).is_some_and(|source| source.is::<Refusal>());
            match error.line() {
                Some(line) if is_templates_own(error.kind()) => TextError::WrongTemplate { file, line, what },
                Some(line) if !refused => TextError::Template { file, what: format!("{what} (line {line})") },
                _ => TextError::Template { file, what },
            }
        })
    }
}

impl Source {
    /// Reads a file; `None` where there is none.
    fn read(file: PathBuf) -> Result<Option<Self>, TextError> {
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(Self { file, text })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TextError::Read { file, source }),
        }
    }
}

/// The templates of a tokenizer configuration, without tools and with them: one text, or several by name.
fn in_config(config: &Value) -> [Option<String>; 2] {
    match config.get("chat_template") {
        Some(Value::String(source)) => [Some(source.clone()), None],
        Some(Value::Array(named)) => {
            let called = |name: &str| named.iter().find(|entry| entry.get("name").is_some_and(|n| n == name));
            let text = |entry: &Value| Some(entry.get("template")?.as_str()?.to_owned());
            [called("default").or(named.first()).and_then(text), called("tool_use").and_then(text)]
        }
        _ => [None, None],
    }
}

/// Whether no conversation could make the template right.
fn is_templates_own(kind: ErrorKind) -> bool {
    use ErrorKind::{SyntaxError, UnknownFilter, UnknownFunction, UnknownTest};
    matches!(kind, SyntaxError | UnknownFilter | UnknownFunction | UnknownTest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let conversation = Conversation { tools: Some(tools), ..Conversation::default() };
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
        for (template, what) in [
            ("one\n{% if %}", "config.json` is wrong at line 2: "),
            ("one\n{{ 'x' | frobnicate }}", "config.json` is wrong at line 2: filter frobnicate is unknown"),
            ("{{ frobnicate() }}", "config.json` is wrong at line 1: frobnicate is unknown"),
            ("\n\n{{ messages[0].content.frobnicate() }}", "config.json` cannot render this conversation: "),
            (
                "\n{{ '%s' % 'x' }}",
                "`%` does not fill in a text here as in `'%s' % x`; `~` and the filter `format` do (line 2)",
            ),
            ("{{ strftime_now('%d %!') }}", "unrecognized specifier directive `!` (line 1)"),
            ("{% generation %}", "config.json` is wrong at line 1: "),
            ("{{ nothing | tojson }}", "what is undefined cannot be written as JSON (line 1)"),
        ] {
            let wrong = render(template, &prompt).unwrap_err().to_string();
            assert!(wrong.contains(what), "{wrong}");
        }
        assert_eq!(render("{{ strftime_now('%Y') }}", &prompt).unwrap().len(), 4);
        let none = ChatTemplate::open(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(none.contains("has no chat template") && none.ends_with("does without"), "{none}");
    }

    #[test]
    fn named_templates_and_a_file_of_its_own() {
        let named = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        let dir = checkpoint(&named);
        let prompt = Conversation::prompt("x");
        let tools = Conversation { tools: Some(json!([])), ..prompt.clone() };
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&prompt).unwrap(), "d");
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&tools).unwrap(), "t");
        std::fs::write(dir.path().join(TEMPLATE), "file").unwrap();
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&prompt).unwrap(), "file");
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&tools).unwrap(), "file");
        std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
        std::fs::write(dir.path().join(WITH_TOOLS), "file for tools").unwrap();
        assert_eq!(ChatTemplate::open(dir.path()).unwrap().render(&tools).unwrap(), "file for tools");
    }

    #[test]
    fn either_template_may_have_the_tags() {
        let has_tags = |plain: &str, with_tools: &str| {
            let named =
                json!([{"name": "tool_use", "template": with_tools}, {"name": "default", "template": plain}]);
            ChatTemplate::open(checkpoint(&named).path()).unwrap().has_tags()
        };
        assert!(has_tags("<think>", "") && has_tags("", "{{ x.split('</think>') }}"));
        assert!(!has_tags("think", "thinking"));
    }

    #[test]
    fn variables_reach_the_template() {
        let template = "{{ enable_thinking }} {{ add_generation_prompt }} {{ bos_token }}";
        let mut conversation = Conversation::prompt("x");
        assert_eq!(render(template, &conversation).unwrap(), " True <s>");
        conversation.variables = serde_json::from_value(json!({"enable_thinking": false})).unwrap();
        assert_eq!(render(template, &conversation).unwrap(), "False True <s>");
    }
}
