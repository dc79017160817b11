//! Model files and configurations that are wrong, as the commands report them.

use nemo_tests::commands::{Review, Room};
use serde_json::Value;

fn room() -> Room {
    let room = Room::new();
    room.fixture("hybrid");
    room.succeeds("nemoc import hybrid -o model.toml");
    room
}

/// Replaces what must be there once or more.
fn replace(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "`{from}` is not in\n{text}");
    *text = text.replace(from, to);
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let mut review = Review::default();
    let room = room();
    let mut model = String::from_utf8(room.read("model.toml")).expect("text");
    replace(&mut model, "hidden = 100", "hidden = -100");
    replace(&mut model, "mixer = \"attention\"", "mixer = \"atention\"");
    replace(&mut model, "vocab = 512", "vocabulary = 512");
    room.write("model.toml", model);
    for line in ["nemoc check model.toml", "nemoc compile model.toml --target host"] {
        let ran = room.refuses(line, 1);
        assert!(ran.stdout.is_empty(), "{ran}");
        assert!(ran.stderr.matches("error: ").count() >= 3, "{ran}");
        assert!(ran.stderr.matches("model.toml:").count() >= 3, "{ran}");
        review.add("three mistakes", &ran);
    }
    for (what, text) in [("an empty file", ""), ("no TOML", "{\"name\": 3}"), ("half a line", "name = \"x")] {
        room.write("model.toml", text);
        let ran = room.refuses("nemoc check model.toml", 1);
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{ran}");
        review.add(what, &ran);
    }
    room.write("model.toml", [0xFF, 0xFE, 0x00]);
    review.add("no text", &room.fails("nemoc check model.toml"));
    insta::assert_snapshot!(review.text());
}

#[test]
fn configurations_that_are_not_understood() {
    let mut review = Review::default();
    let changes: [(&str, &str, Value); 6] = [
        ("an unknown model type", "model_type", "gpt_oss".into()),
        ("an unknown activation", "mlp_hidden_act", "swoosh".into()),
        ("a pattern with an unknown letter", "hybrid_override_pattern", "M-Q*-M-".into()),
        ("a negative width", "hidden_size", (-100).into()),
        ("a width that is absurd", "hidden_size", u64::MAX.into()),
        ("a width that is a text", "hidden_size", "wide".into()),
    ];
    for (what, key, value) in changes {
        let room = room();
        room.edit("hybrid/config.json", |bytes| {
            let text = String::from_utf8(bytes.clone()).expect("text").replace("Infinity", "1e30");
            let mut config: Value = serde_json::from_str(&text).expect("JSON");
            assert!(config.get(key).is_some(), "{key} is not in\n{text}");
            config[key] = value;
            *bytes = config.to_string().into_bytes();
        });
        review.add(what, &room.fails("nemoc compile hybrid --target host"));
    }
    let room = room();
    for (what, text) in
        [("an empty configuration", ""), ("no object", "[]"), ("half a configuration", "{\"a\": ")]
    {
        room.write("hybrid/config.json", text);
        review.add(what, &room.fails("nemoc import hybrid"));
    }
    insta::assert_snapshot!(review.text());
}
