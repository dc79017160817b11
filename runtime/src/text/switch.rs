//! How a checkpoint is told whether to think, which every family does in its own way.

use serde_json::{Value, json};

use super::{ChatTemplate, Conversation};

/// A family's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkSwitch {
    /// The template's variable `enable_thinking`.
    Keyword,
    /// `/think` or `/no_think` at the end of the system text: Llama-Nemotron Super v1.5.
    Words,
    /// The same, but a later one inside a question decides: Nemotron Nano 2.
    LastWord,
    /// `{'reasoning': True}` at the end of the system text: Nemotron-H.
    Reasoning,
    /// `detailed thinking on` as the whole system text, with instructions in the first question:
    /// Llama-Nemotron v1.
    Detailed,
}

impl ThinkSwitch {
    /// What [`ThinkSwitch::find`] looks for.
    pub const SOUGHT: &'static str = "its chat template takes no notice of `enable_thinking`, of `/no_think`, \
        `{'reasoning': False}` or `detailed thinking off` in the system text, and does not cut past thoughts";

    /// Finds out what a template takes notice of, by rendering a question with each.
    ///
    /// A template that takes notice of nothing leaves the system text to the model. Where it knows thoughts,
    /// which shows in that it cuts past ones, the model is told as the first models of its kind are:
    /// those of the type `nemotron_h` as Nemotron-H, others as Llama-Nemotron v1.
    pub fn find(template: &ChatTemplate, model_type: Option<&str>) -> Option<Self> {
        let keyword = |on: bool| {
            let mut conversation = Conversation::prompt(QUESTION);
            conversation.variables.insert("enable_thinking".to_owned(), on.into());
            template.render(&conversation).ok()
        };
        if let (Some(on), Some(off)) = (keyword(true), keyword(false))
            && on != off
        {
            return Some(Self::Keyword);
        }
        let with_system = |text: &str| {
            let system = json!({"role": "system", "content": text});
            let messages = vec![system, json!({"role": "user", "content": QUESTION})];
            template.render(&Conversation { messages, ..Conversation::default() }).ok()
        };
        // A text without meaning shows where the system text goes and what surrounds it.
        let plain = with_system(MEANINGLESS)?;
        let notices = |switch: &Self| {
            let text = switch.text(false);
            with_system(text).is_some_and(|rendered| rendered != plain.replace(MEANINGLESS, text))
        };
        let texts = [Self::Words, Self::Reasoning, Self::Detailed];
        let found = texts.into_iter().find(notices).or_else(|| {
            let first = if model_type == Some("nemotron_h") { Self::Reasoning } else { Self::Detailed };
            cuts_thoughts(template).then_some(first)
        });
        found.map(
            |found| if found == Self::Words && reads_questions(template) { Self::LastWord } else { found },
        )
    }

    /// What is said in the system text.
    fn text(self, on: bool) -> &'static str {
        match (self, on) {
            (Self::Keyword, _) => "",
            (Self::Words | Self::LastWord, true) => "/think",
            (Self::Words | Self::LastWord, false) => "/no_think",
            (Self::Reasoning, true) => "{'reasoning': True}",
            (Self::Reasoning, false) => "{'reasoning': False}",
            (Self::Detailed, true) => "detailed thinking on",
            (Self::Detailed, false) => "detailed thinking off",
        }
    }

    /// Tells a conversation, whose system message keeps its place.
    ///
    /// # Errors
    /// A clause that says why not, for a system message that is no plain text.
    pub(crate) fn set(self, on: bool, conversation: &mut Conversation) -> Result<(), String> {
        let first = conversation.messages.first().filter(|first| first["role"] == "system");
        let system = match first.map(|first| &first["content"]) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => {
                let why = "the system message has parts, so nobody can add to its text whether to think";
                return Err(why.to_owned());
            }
        };
        if first.is_some() {
            conversation.messages.remove(0);
        }
        self.tell(on, &system, conversation);
        Ok(())
    }

    /// Tells a conversation that has no system message yet, and gives it one of this text, if it is to have one.
    pub(crate) fn tell(self, on: bool, system: &str, conversation: &mut Conversation) {
        let system = self.system(on, system, conversation);
        conversation.put_system(&system);
    }

    /// The system text that a conversation is to have; what is said elsewhere is said.
    fn system(self, on: bool, system: &str, conversation: &mut Conversation) -> String {
        let text = self.text(on);
        match self {
            Self::Keyword => {
                conversation.variables.insert("enable_thinking".to_owned(), on.into());
                system.to_owned()
            }
            Self::Words => ending(system, self.text(!on), text),
            Self::LastWord => {
                let contrary = self.text(!on);
                let mut contradicted = false;
                let mut last = None;
                for message in conversation.messages.iter_mut().filter(|message| message["role"] == "user") {
                    if let Value::String(question) = &mut message["content"] {
                        contradicted |= question.contains(contrary);
                        last = Some(question);
                    }
                }
                if let Some(last) = last.filter(|_| contradicted) {
                    *last = ending(last, contrary, text);
                }
                ending(system, contrary, text)
            }
            Self::Reasoning => format!("{system} {text}").trim_start().to_owned(),
            Self::Detailed => {
                let question = conversation.messages.first_mut().and_then(|first| first.get_mut("content"));
                if let Some(Value::String(question)) = question.filter(|_| !system.is_empty()) {
                    question.insert_str(0, &format!("{system}\n\n"));
                }
                text.to_owned()
            }
        }
    }
}

/// A text with `word` at its end and without the contrary one, which some templates look for first.
fn ending(text: &str, contrary: &str, word: &str) -> String {
    let mut text = text.to_owned();
    // What is taken out may leave another one behind.
    while text.contains(contrary) {
        text = text.replace(contrary, "");
    }
    format!("{} {word}", text.trim_end()).trim_start().to_owned()
}

const QUESTION: &str = "What is a river?";
const MEANINGLESS: &str = "Qxz";

/// Whether a template takes notice of [`ThinkSwitch::Words`] inside a question.
fn reads_questions(template: &ChatTemplate) -> bool {
    let question = format!("{QUESTION} {}", ThinkSwitch::Words.text(false));
    let render = |question: &str| template.render(&Conversation::prompt(question));
    match (render(QUESTION), render(&question)) {
        (Ok(plain), Ok(rendered)) => rendered != plain.replace(QUESTION, &question),
        _ => false,
    }
}

/// Whether a template drops the thoughts of past answers.
fn cuts_thoughts(template: &ChatTemplate) -> bool {
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let past = message("assistant", "<think>\nQxz\n</think>\n\nWater.");
    let messages = vec![message("user", QUESTION), past, message("user", QUESTION)];
    let rendered = template.render(&Conversation { messages, ..Conversation::default() });
    rendered.is_ok_and(|rendered| rendered.contains("Water.") && !rendered.contains(MEANINGLESS))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(template: &str, model_type: &str) -> Option<ThinkSwitch> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>"}"#).unwrap();
        ThinkSwitch::find(&ChatTemplate::open(dir.path()).unwrap(), Some(model_type))
    }

    #[test]
    fn every_family_is_recognised() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat");
        for (name, wanted) in [
            ("nano-v2", ThinkSwitch::LastWord),
            ("nano-v2-keyword", ThinkSwitch::Keyword),
            ("nemotron-h", ThinkSwitch::Reasoning),
            ("llama-v1", ThinkSwitch::Detailed),
            ("super-v1.5", ThinkSwitch::Words),
        ] {
            let template = std::fs::read_to_string(golden.join(format!("{name}.jinja"))).unwrap();
            assert_eq!(found(&template, "llama"), Some(wanted), "{name}");
        }
    }

    #[test]
    fn a_system_message_keeps_its_place() {
        let told = |switch: ThinkSwitch, system: Option<Value>| {
            let system = system.map(|content| json!({"role": "system", "content": content}));
            let question = json!({"role": "user", "content": "Q"});
            let messages = system.into_iter().chain([question]).collect();
            let mut conversation = Conversation { messages, ..Conversation::default() };
            switch.set(false, &mut conversation)?;
            Ok::<_, String>(conversation)
        };
        let contents = |conversation: Conversation| -> Vec<Value> {
            conversation.messages.iter().map(|message| message["content"].clone()).collect()
        };
        let words = |system| contents(told(ThinkSwitch::Words, system).unwrap());
        assert_eq!(words(None), ["/no_think", "Q"]);
        assert_eq!(words(Some("S".into())), ["S /no_think", "Q"]);
        let detailed = |system| contents(told(ThinkSwitch::Detailed, system).unwrap());
        assert_eq!(detailed(None), ["detailed thinking off", "Q"]);
        assert_eq!(detailed(Some("S".into())), ["detailed thinking off", "S\n\nQ"]);
        let keyword = told(ThinkSwitch::Keyword, Some("S".into())).unwrap();
        assert_eq!(keyword.variables["enable_thinking"], json!(false));
        assert_eq!(contents(keyword), ["S", "Q"]);
        let parts = json!([{"type": "text", "text": "S"}]);
        assert!(told(ThinkSwitch::Words, Some(parts)).unwrap_err().contains("has parts"));
    }

    #[test]
    fn a_template_that_knows_no_thoughts_has_no_switch() {
        let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        assert_eq!(found(plain, "nemotron_h"), None);
        let cuts = "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}";
        assert_eq!(found(cuts, "nemotron_h"), Some(ThinkSwitch::Reasoning));
        assert_eq!(found(cuts, "llama"), Some(ThinkSwitch::Detailed));
        assert_eq!(found("{{ raise_exception('no') }}", "llama"), None);
    }
}
