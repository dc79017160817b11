//! Tokenizers, chat templates, settings and conversations that cannot be used.

use nemo_tests::commands::{Review, Room};
use serde_json::{Value, json};

use super::BASELINE;

const PROMPT: &str = "nemort generate hybrid.nemo --weights hybrid --prompt Hello --max-new-tokens 4";
const CHAT: &str = "nemort generate hybrid.nemo --weights hybrid --chat chat.json --max-new-tokens 4";

fn room() -> Room {
    let room = Room::new();
    room.artifact("hybrid", BASELINE);
    room.fixture("hybrid");
    room
}

fn json(room: &Room, file: &str, change: impl FnOnce(&mut Value)) {
    room.edit(file, |bytes| {
        let mut value = serde_json::from_slice(bytes).expect("JSON");
        change(&mut value);
        *bytes = serde_json::to_vec(&value).expect("JSON");
    });
}

fn template(room: &Room, source: &str) {
    json(room, "hybrid/tokenizer_config.json", |config| config["chat_template"] = source.into());
}

type Damage = (&'static str, fn(&Room));

const CHECKPOINT: [Damage; 18] = [
    ("no tokenizer", |room| room.remove("hybrid/tokenizer.json")),
    ("an empty tokenizer", |room| room.write("hybrid/tokenizer.json", "")),
    ("half a tokenizer", |room| {
        room.edit("hybrid/tokenizer.json", |bytes| bytes.truncate(bytes.len() / 2));
    }),
    ("a tokenizer of an unknown kind", |room| {
        json(room, "hybrid/tokenizer.json", |tokenizer| tokenizer["model"]["type"] = "Telepathy".into());
    }),
    ("a tokenizer that is larger than the vocabulary", |room| {
        json(room, "hybrid/tokenizer.json", |tokenizer| tokenizer["model"]["vocab"]["zebra"] = 512.into());
    }),
    ("no template", |room| {
        json(room, "hybrid/tokenizer_config.json", |config| config["chat_template"] = Value::Null);
    }),
    ("no tokenizer configuration", |room| room.remove("hybrid/tokenizer_config.json")),
    ("half a tokenizer configuration", |room| {
        room.edit("hybrid/tokenizer_config.json", |bytes| bytes.truncate(100));
    }),
    ("a template with an open tag", |room| template(room, "{% for m in messages %}\n{{ m.content }}\n")),
    ("a template with an unknown filter", |room| template(room, "one\n{{ messages | frobnicate }}")),
    ("a template that calls for what there is not", |room| {
        template(room, "one\ntwo {{ frobnicate(messages) }}");
    }),
    ("a method that there is not", |room| template(room, "{{ messages[0].content.frobnicate() }}")),
    ("a template that refuses", |room| template(room, "{{ raise_exception('only tools may speak') }}")),
    ("a template that divides by zero", |room| template(room, "{{ 1 // 0 }}")),
    ("a template that does not end", |room| {
        template(room, "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    }),
    ("end-of-text ids that are none", |room| {
        room.write("hybrid/generation_config.json", r#"{"eos_token_id": "</s>"}"#);
    }),
    ("sampling without meaning", |room| {
        room.write("hybrid/generation_config.json", r#"{"do_sample": true, "temperature": -3}"#);
    }),
    ("settings that are not JSON", |room| room.write("hybrid/generation_config.json", "{eos: 2}")),
];

#[test]
fn damaged_checkpoints() {
    let mut review = Review::default();
    for (what, damage) in CHECKPOINT {
        let room = room();
        damage(&room);
        review.add(what, &room.fails(PROMPT));
    }
    insta::assert_snapshot!(review.text());
}

#[test]
fn conversations_that_are_none() {
    let mut review = Review::default();
    let room = room();
    review.add("no file", &room.fails(CHAT));
    for (what, text) in [
        ("not JSON", "Tell me about the river."),
        ("not messages", r#"{"role": "user", "content": "x"}"#),
        ("no role", r#"[{"content": "x"}]"#),
        ("a number", "12"),
        ("a list of texts", r#"["x", "y"]"#),
        ("no messages", "[]"),
        ("no content", r#"[{"role": "user", "content": "x"}, {"role": "user"}]"#),
        ("a number as content", r#"[{"role": "user", "content": 1}]"#),
        ("tools that are no list", r#"{"messages": [{"role": "user", "content": "x"}], "tools": {}}"#),
    ] {
        room.write("chat.json", text);
        review.add(what, &room.fails(CHAT));
    }
    // Content in parts or nested deeply: an answer or one sentence, never a crash.
    let deep = format!("[{}{}]", "[".repeat(5000), "]".repeat(5000));
    for messages in [
        json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}]).to_string(),
        json!([{"role": "assistant"}]).to_string(),
        deep,
    ] {
        room.write("chat.json", &messages);
        let ran = room.run(CHAT);
        assert!(ran.code == 0 || (ran.code == 1 && ran.stderr.lines().count() == 1), "{ran}");
    }
    room.write("chat.json", [0xFF, 0xFE, b'[', b']']);
    review.add("not UTF-8", &room.fails(CHAT));
    insta::assert_snapshot!(review.text());
}
