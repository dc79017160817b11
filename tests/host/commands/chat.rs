//! `nemort chat`, with lines from a file.

use nemo_tests::commands::{Ran, Review, Room};
use nemo_tests::golden::folder;
use serde_json::{Value, json};

use super::BASELINE;

const CHAT: &str = "nemort chat hybrid.nemo --weights hybrid";

fn room() -> Room {
    let room = Room::new();
    room.artifact("hybrid", BASELINE);
    room.fixture("hybrid");
    room
}

/// A session as it would stand in a terminal: what was written, what was answered, what else was said.
fn session(ran: &Ran, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("> {line}\n")).collect();
    format!("$ {}\n{lines}##### answers\n{}##### notes\n{}", ran.line, ran.stdout, ran.stderr)
}

#[test]
fn a_scripted_session() {
    let lines = [
        "Tell me about the river.",
        "/no_think",
        "/system Answer well.",
        "Tell me about the lighthouse.",
        "/clear",
        "/think",
        "Tell me about the lighthouse.",
        "/quit",
        "Never read.",
    ];
    let room = room();
    let ran = room.run_on(CHAT, &lines.join("\n"));
    assert_eq!(ran.code, 0, "{ran}");
    // The same answers as to the same conversations, one by one.
    let recitals = std::fs::read_to_string(folder("hybrid").join("recite.json")).expect("recitals");
    let recitals: Vec<Value> = serde_json::from_str(&recitals).expect("a list");
    let river = recitals.iter().find(|recital| recital["name"] == "river, thinking off").expect("a recital");
    assert!(ran.stdout.contains(river["text"].as_str().expect("a text").trim()), "{ran}");
    insta::assert_snapshot!(session(&ran, &lines));
}

#[test]
fn turns_are_rendered_with_all_before_them() {
    let room = room();
    let first = "Tell me about the river.";
    let answers = room.run_on(CHAT, &format!("/no_think\n{first}\nAnd now?"));
    assert_eq!(answers.code, 0, "{answers}");
    let system = json!({"role": "system", "content": "/no_think"});
    let user = |text: &str| json!({"role": "user", "content": text});
    let generated = |messages: Value| {
        room.write("chat.json", messages.to_string());
        let line = "nemort generate hybrid.nemo --weights hybrid --chat chat.json --max-new-tokens 300";
        // A line's end follows, also where the text has one.
        room.succeeds(line).strip_suffix('\n').expect("a line").to_owned()
    };
    let one = generated(json!([system, user(first)]));
    let answer = json!({"role": "assistant", "content": one});
    let two = generated(json!([system, user(first), answer, user("And now?")]));
    assert_eq!(answers.stdout, one + &two);
}

#[test]
fn messages_come_from_standard_input() {
    let room = room();
    let messages = json!({
        "messages": [{"role": "system", "content": "/no_think"}, {"role": "user", "content": "Hello"}],
        "tools": [{"name": "clock"}],
    });
    room.write("chat.json", messages.to_string());
    let options = "hybrid.nemo --weights hybrid --max-new-tokens 12 --json";
    let from_file = room.json(&format!("nemort generate {options} --chat chat.json"));
    let ran = room.run_on(&format!("nemort generate {options} --chat -"), &messages.to_string());
    let from_input: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!(from_input["tokens"], from_file["tokens"]);
    assert_eq!(from_input["prompt_tokens"], from_file["prompt_tokens"]);
    let without = json!({"messages": messages["messages"]});
    let ran = room.run_on(&format!("nemort generate {options} --chat -"), &without.to_string());
    let without: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert!(without["prompt_tokens"].as_u64() < from_file["prompt_tokens"].as_u64(), "{ran}");
}

#[test]
fn chats_that_cannot_go_on() {
    let mut review = Review::default();
    let room = room();
    for (what, options, lines) in [
        ("an unknown command", "", "/frobnicate"),
        ("a command with too much", "", "/clear all"),
        ("a question over the context", "--max-context 16", "Tell me about the river."),
        ("no tokens", "--max-new-tokens 0", ""),
        ("a context over the artifact's", "--max-context 513", ""),
        ("no temperature", "--temperature -1", ""),
    ] {
        let ran = room.run_on(format!("{CHAT} {options}").trim_end(), lines);
        assert_eq!(ran.code, 1, "{ran}");
        review.add(what, &ran);
    }
    let template = |source: &str| {
        let config = json!({"chat_template": source});
        room.write("hybrid/tokenizer_config.json", config.to_string());
    };
    template("{% for m in messages %}{{ m.content }}{% endfor %}");
    let ran = room.run_on(CHAT, "/think");
    review.add("a template without thoughts", &ran);
    // Wrong templates are found before anything is read.
    template("one\n{{ messages | frobnicate }}");
    review.add("a wrong template", &room.run_on(CHAT, ""));
    room.remove("hybrid/tokenizer_config.json");
    review.add("no template", &room.run_on(CHAT, ""));
    room.remove("hybrid/tokenizer.json");
    review.add("no tokenizer", &room.run_on(CHAT, ""));
    review.line(&room.refuses("nemort chat hybrid.nemo", 2));
    insta::assert_snapshot!(review.text());
}
