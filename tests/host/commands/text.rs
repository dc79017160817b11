//! Chat templates, tokenizers and streams against transformers.

use std::sync::Arc;

use nemo_tests::golden::{folder, model};
use nemort::text::{ChatTemplate, Conversation, Frame, Text, TextStream};
use serde_json::Value;

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name)).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn text(fixture: &str) -> Text {
    Text::open(&folder(fixture), model(fixture).vocab).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

#[test]
fn templates_render_as_in_transformers() {
    for case in read("chat.json").as_array().expect("a list") {
        let (fixture, name) = (case["fixture"].as_str().expect("a fixture"), &case["name"]);
        let template = ChatTemplate::open(&folder(fixture)).unwrap_or_else(|error| panic!("{error}"));
        let conversation = Conversation {
            messages: case["messages"].as_array().expect("messages").clone(),
            tools: case.get("tools").filter(|tools| !tools.is_null()).cloned(),
            ..Conversation::default()
        };
        let rendered = template.render(&conversation).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rendered, case["rendered"], "{fixture}, {name}");
        let found = text(fixture).encode(&rendered, Frame::Written).expect("token ids");
        assert_eq!(found, ids(&case["ids"]), "{fixture}, {name}");
    }
}

#[test]
fn texts_go_to_tokens_and_back() {
    for (fixture, cases) in read("tokenizers/roundtrip.json").as_object().expect("tokenizers") {
        let text = text(fixture);
        for case in cases.as_array().expect("a list") {
            let what = format!("{fixture}, {}", case["text"]);
            let wanted = ids(&case["ids"]);
            let found =
                text.encode(case["text"].as_str().expect("a text"), Frame::Written).expect("token ids");
            assert_eq!(found, wanted, "{what}");
            assert_eq!(text.decode(&wanted).expect("a text"), case["decoded"], "{what}");
            let cut = &wanted[..wanted.len().saturating_sub(1)];
            assert_eq!(text.decode(cut).expect("a text"), case["decoded_without_last"], "{what}");
        }
    }
}

#[test]
fn streams_give_whole_characters_and_the_whole_text() {
    for (fixture, cases) in read("tokenizers/roundtrip.json").as_object().expect("tokenizers") {
        let text = Arc::new(text(fixture));
        for case in cases.as_array().expect("a list") {
            let what = format!("{fixture}, {}", case["text"]);
            let all = ids(&case["ids"]);
            let wanted = case["decoded"].as_str().expect("a text");
            let mut stream = TextStream::new(Arc::clone(&text));
            let mut given = String::new();
            for (n, id) in all.iter().enumerate() {
                given.push_str(&stream.push(*id).expect("a text"));
                assert!(wanted.starts_with(&given), "{what}: {given:?} after {} tokens", n + 1);
            }
            given.push_str(&stream.finish().expect("a text"));
            assert_eq!(given, wanted, "{what}");
            // Ended inside of a character, a stream gives what decoding gives.
            let mut stream = TextStream::new(Arc::clone(&text));
            let cut = &all[..all.len().saturating_sub(1)];
            let mut given: String = cut.iter().map(|id| stream.push(*id).expect("a text")).collect();
            given.push_str(&stream.finish().expect("a text"));
            assert_eq!(given, case["decoded_without_last"], "{what} without the last token");
        }
    }
}
