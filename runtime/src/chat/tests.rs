use std::collections::VecDeque;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::text::ThinkSwitch;

/// Lines that were written beforehand; `^C` gives one up.
struct Script(VecDeque<&'static str>);

impl Script {
    fn new(lines: &[&'static str]) -> Self {
        Self(lines.iter().copied().collect())
    }
}

impl Lines for Script {
    fn next(&mut self) -> io::Result<Typed> {
        Ok(match self.0.pop_front() {
            None => Typed::End,
            Some("^C") => Typed::Abandoned,
            Some(line) => Typed::Line(line.to_owned()),
        })
    }
}

/// Answers the n-th prompt with the n-th answer, in pieces of two characters.
struct Parrot {
    answers: VecDeque<Result<(&'static str, Ended), ChatError>>,
    prompts: Vec<String>,
    budgets: Vec<Option<u64>>,
    /// Letters of prompt and thoughts together, at most.
    context: u64,
}

impl Parrot {
    fn new(answers: impl IntoIterator<Item = Result<(&'static str, Ended), ChatError>>) -> Self {
        Self {
            answers: answers.into_iter().collect(),
            prompts: Vec::new(),
            budgets: Vec::new(),
            context: 4096,
        }
    }
}

impl Model for Parrot {
    fn opens_thinking(&self, prompt: &str) -> Result<bool, ChatError> {
        Ok(prompt.trim_end().ends_with("<think>"))
    }

    fn check_budget(&self, budget: u64) -> Result<Option<String>, ChatError> {
        match budget {
            666 => Err(ChatError::Turn("there is no such budget".to_owned())),
            _ => Ok((budget == 13).then(|| "this brings bad luck".to_owned())),
        }
    }

    fn fit(&self, prompt: &str, budget: Option<u64>) -> Result<Option<u64>, ChatError> {
        let (tokens, context) = (prompt.len() as u64, self.context);
        let room = context.checked_sub(tokens);
        let room = room.ok_or(ChatError::Full { tokens, context, larger: "buy a larger one" })?;
        Ok(budget.map(|budget| budget.min(room)))
    }

    fn answer(
        &mut self,
        prompt: &str,
        budget: Option<u64>,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Ended, ChatError> {
        self.prompts.push(prompt.to_owned());
        self.budgets.push(budget);
        let (answer, ended) = self.answers.pop_front().expect("a further answer")?;
        let letters: Vec<char> = answer.chars().collect();
        for pair in letters.chunks(2) {
            if each(&pair.iter().collect::<String>()).is_break() {
                break;
            }
        }
        Ok(ended)
    }
}

fn template(source: &str) -> ChatTemplate {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
    ChatTemplate::open(dir.path()).unwrap()
}

fn nano() -> ChatTemplate {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat/nano-v2.jinja");
    template(&std::fs::read_to_string(file).unwrap())
}

/// What a chat showed, what else it said, and how it ended.
fn chat(
    template: &ChatTemplate,
    lines: &[&'static str],
    model: &mut Parrot,
    writer: Writer,
) -> (String, String, Result<(), ChatError>) {
    let (mut answers, mut notes) = (Vec::new(), Vec::new());
    let mut screen = Screen { answers: &mut answers, notes: &mut notes, dim: false };
    let dialogue = Dialogue::new(ThinkSwitch::find(template, None));
    let ended = run(template, dialogue, model, &mut Script::new(lines), writer, &mut screen);
    (String::from_utf8(answers).unwrap(), String::from_utf8(notes).unwrap(), ended)
}

#[test]
fn a_scripted_session() {
    let lines = [
        "/help",
        "",
        "^C",
        "Rain?",
        "/no_think",
        "/system Be brief.",
        "And now?",
        "Go on",
        "Say it",
        "/clear",
        "//who",
        "/system",
        "/think",
        "Last",
        "/quit",
        "never read",
    ];
    let mut model = Parrot::new([
        Ok(("I look.\n</think>\n\nIt rains.", Ended::Whole)),
        Ok(("It", Ended::Stopped)),
        Ok((" rains ébène", Ended::Cut)),
        Ok(("", Ended::Whole)),
        Ok(("I am.", Ended::Whole)),
        Ok(("Still", Ended::Stopped)),
    ]);
    let (answers, notes, ended) = chat(&nano(), &lines, &mut model, Writer::Script);
    ended.unwrap();
    assert!(model.answers.is_empty());
    let prompts = model.prompts.join("\n=====\n");
    insta::assert_snapshot!(format!("{answers}\n##### notes\n{notes}\n##### prompts\n{prompts}"));
}

#[test]
fn a_command_overrules_a_word_inside_a_question() {
    let lines = [
        "Say it briefly. /no_think",
        "/think",
        "And now?",
        "/no_think",
        "What is /think?",
        "Go on",
        "/clear",
        "Hm",
    ];
    let mut model = Parrot::new(std::iter::repeat_with(|| Ok(("so", Ended::Whole))).take(5));
    let (_, _, ended) = chat(&nano(), &lines, &mut model, Writer::Script);
    ended.unwrap();
    let thinks = model.prompts.iter().map(|prompt| prompt.ends_with("<think>\n")).collect::<Vec<_>>();
    assert_eq!(thinks, [false, true, false, false, false], "{:#?}", model.prompts);
    // The template takes every word out again.
    for prompt in &model.prompts {
        assert!(!prompt.contains("/think\n") && !prompt.contains("/no_think"), "{prompt}");
    }
    assert!(
        model.prompts[1].contains("User\nSay it briefly.\n") && model.prompts[1].contains("User\nAnd now?\n")
    );
}

proptest! {
    #[test]
    fn a_command_overrules_whatever_was_written(
        texts in proptest::collection::vec(
            proptest::collection::vec(prop::sample::select(vec!["/think", "/no_think", "/", "think", "a", " "]), 0..6),
            2..5,
        ),
        on: bool,
    ) {
        let template = nano();
        let mut dialogue = Dialogue::new(ThinkSwitch::find(&template, None));
        dialogue.think(on).unwrap();
        dialogue.system = texts[0].concat();
        for (at, text) in texts[1..].iter().enumerate() {
            if at > 0 {
                dialogue.answered("so");
            }
            dialogue.ask(&text.concat());
        }
        let prompt = template.render(&dialogue.conversation()).unwrap();
        prop_assert!(prompt.ends_with(if on { "<think>\n" } else { "<think></think>" }), "{}", prompt);
    }
}

#[test]
fn a_budget_holds_until_there_is_another() {
    let lines = ["one", "/budget 32", "two", "/clear", "three", "/budget none", "four"];
    let mut model = Parrot::new(std::iter::repeat_with(|| Ok(("so", Ended::Whole))).take(4));
    let (_, notes, ended) = chat(&nano(), &lines, &mut model, Writer::Script);
    ended.unwrap();
    assert_eq!(model.budgets, [None, Some(32), Some(32), None]);
    assert!(
        notes.contains("[thoughts have a budget of 32 tokens]")
            && notes.contains("[thoughts have no budget]")
    );
}

#[test]
fn a_budget_is_looked_at_before_it_holds() {
    let lines = ["/budget 13", "one", "/budget 666", "two"];
    let mut model = Parrot::new(std::iter::repeat_with(|| Ok(("so", Ended::Whole))).take(2));
    let (_, notes, ended) = chat(&nano(), &lines, &mut model, Writer::Person);
    ended.unwrap();
    assert_eq!(model.budgets, [Some(13), Some(13)]);
    let told: Vec<_> = notes.lines().collect();
    assert_eq!(
        told,
        [
            "[thoughts have a budget of 13 tokens]",
            "warning: this brings bad luck",
            "error: there is no such budget"
        ]
    );
}

#[test]
fn a_budget_shrinks_with_the_room_that_is_left() {
    let plain = template("{% for m in messages %}{{ m.content }}{% endfor %}");
    let lines = [
        "/budget 30",
        "four",
        "four",
        "four",
        "/clear",
        "four and twenty",
        "four",
        "/budget none",
        "four",
        "/budget 2",
        "four",
    ];
    let mut model = Parrot::new(std::iter::repeat_with(|| Ok(("seven..", Ended::Whole))).take(6));
    model.context = 40;
    let (_, notes, ended) = chat(&plain, &lines, &mut model, Writer::Person);
    ended.unwrap();
    assert_eq!(model.budgets, [Some(30), Some(25), Some(14), Some(25), Some(14), None]);
    let told: Vec<_> = notes.lines().filter(|line| line.contains("room") || line.contains("error")).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn advice_for_a_full_context_helps() {
    let plain = template("{% for m in messages %}{{ m.content }}{% endfor %}");
    let lines = [
        "0123456789 far too long",
        "short",
        "0123456789",
        "again",
        "0123456789 far too long",
        "/system Be brief!!",
        "0123456789",
    ];
    let mut model = Parrot::new([Ok(("0123456789", Ended::Full))]);
    model.context = 16;
    let (_, notes, ended) = chat(&plain, &lines, &mut model, Writer::Person);
    ended.unwrap();
    insta::assert_snapshot!(notes);
}

#[test]
fn a_person_is_told_and_goes_on() {
    let lines = ["/frobnicate", "/think hard", "one", "two"];
    let refused = || ChatError::Turn("there is no room".to_owned());
    let mut model = Parrot::new([Err(refused()), Ok(("2", Ended::Whole))]);
    let (answers, notes, ended) = chat(&nano(), &lines, &mut model, Writer::Person);
    ended.unwrap();
    assert_eq!(answers, "<think>\n2\n");
    let told: Vec<_> = notes.lines().collect();
    assert!(told[0].starts_with("error: there is no command `/frobnicate`"), "{notes}");
    assert!(told[1].starts_with("error: `/think` stands alone"), "{notes}");
    assert_eq!(told[2..], ["error: there is no room"]);
    // A turn that failed is not part of what follows.
    assert!(!model.prompts[1].contains("one"), "{}", model.prompts[1]);
}

#[test]
fn a_script_ends_at_the_first_fault() {
    let refused = template(
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
    );
    let mut model = Parrot::new([Ok(("fine", Ended::Whole))]);
    let (answers, _, ended) = chat(&refused, &["good", "bad", "good"], &mut model, Writer::Script);
    assert_eq!(answers, "fine\n");
    let error = ended.unwrap_err();
    assert!(
        matches!(error, ChatError::Turn(_)) && error.to_string().ends_with("conversation: no"),
        "{error}"
    );
    let (_, _, ended) = chat(&refused, &["/think"], &mut model, Writer::Script);
    assert!(ended.unwrap_err().to_string().contains("no switch for thinking that is known"));
}

#[test]
fn what_is_broken_ends_the_chat() {
    let broken = template("{{ frobnicate() }}");
    let mut model = Parrot::new([]);
    let (_, _, ended) = chat(&broken, &["hello"], &mut model, Writer::Person);
    assert!(matches!(ended, Err(ChatError::Text(TextError::WrongTemplate { line: 1, .. }))));

    /// A reader that has gone away.
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (template, mut notes) = (nano(), Vec::new());
    let mut model = Parrot::new([Ok(("x", Ended::Whole))]);
    let mut screen = Screen { answers: &mut Gone, notes: &mut notes, dim: true };
    let mut lines = Script::new(&["hello"]);
    let ended = run(&template, Dialogue::new(None), &mut model, &mut lines, Writer::Person, &mut screen);
    assert!(matches!(ended, Err(ChatError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe));
}
