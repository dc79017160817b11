use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The 256 letters that stand for bytes in byte-level tokenizers.
fn byte_letters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    (0..256)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

pub(super) fn tokenizer(json: &Value, vocab: u64) -> Result<Text, TextError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Text::open(dir.path(), vocab)
}

/// One token a byte, and `<end>`, a special one, with id 256.
pub(super) fn byte_level() -> Value {
    let vocab: serde_json::Map<_, _> =
        byte_letters().into_iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 256, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    })
}

/// A few letters, and bytes for the rest, as SentencePiece tokenizers have them.
pub(super) fn byte_fallback() -> Value {
    let mut vocab: serde_json::Map<String, Value> =
        (0..256).map(|byte| (format!("<0x{byte:02X}>"), byte.into())).collect();
    for (n, letter) in ["▁", "a", "b", "c", "<unk>"].iter().enumerate() {
        vocab.insert((*letter).to_owned(), (256 + n).into());
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "pre_tokenizer": null,
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "vocab": vocab, "merges": []},
    })
}

fn pieces(text: &Arc<Text>, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(Arc::clone(text));
    let mut pieces: Vec<_> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn a_prompt_is_neither_cut_nor_filled_up() {
    let mut json = byte_level();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": null,
                             "pad_id": 256, "pad_type_id": 0, "pad_token": "<end>"});
    let fixture: Tokenizer = json.to_string().parse().unwrap();
    assert_eq!(fixture.encode("abcdefgh", false).unwrap().len(), 16);
    let text = tokenizer(&json, 257).unwrap();
    for frame in [Frame::Added, Frame::Written] {
        assert_eq!(text.encode("abcdefgh", frame).unwrap().len(), 8);
    }
}

#[test]
fn special_tokens_are_read_and_not_written() {
    let text = tokenizer(&byte_level(), 257).unwrap();
    let ids = text.encode("é<end>a", Frame::Written).unwrap();
    assert_eq!(ids, [0xC3, 0xA9, 256, u32::from(b'a')]);
    assert_eq!(text.decode(&ids).unwrap(), "éa");
    assert_eq!(pieces(&Arc::new(text), &ids), ["", "é", "", "a", ""]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let message = tokenizer(&byte_level(), 256).unwrap_err().to_string();
    assert!(message.contains("has token id 256, but the model's vocabulary has 256 entries"), "{message}");
    assert!(tokenizer(&json!({}), 1).unwrap_err().to_string().contains("tokenizer.json`:"));
    let absent = Text::open(tempfile::tempdir().unwrap().path(), 1).unwrap_err().to_string();
    assert!(absent.contains("cannot read") && absent.contains("tokenizer.json"), "{absent}");
}

proptest! {
    #[test]
    fn a_byte_level_stream_is_the_whole_text(ids in proptest::collection::vec(0u32..257, 0..40)) {
        let text = Arc::new(tokenizer(&byte_level(), 257).unwrap());
        prop_assert_eq!(pieces(&text, &ids).concat(), text.decode(&ids).unwrap());
    }

    #[test]
    fn no_character_is_torn(written in "[a-cé漢😀 ]{0,12}") {
        for json in [byte_level(), byte_fallback()] {
            let text = Arc::new(tokenizer(&json, 300).unwrap());
            let ids = text.encode(&written, Frame::Written).unwrap();
            let pieces = pieces(&text, &ids);
            prop_assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{:?}", pieces);
            prop_assert_eq!(pieces.concat(), text.decode(&ids).unwrap());
        }
    }
}

/// The committed checkpoints.
fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

#[test]
fn templates_and_tokens_agree_with_transformers() {
    let cases = std::fs::read(golden("chat.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    for case in &cases {
        let directory = golden(case["fixture"].as_str().unwrap());
        let conversation = Conversation {
            messages: case["messages"].as_array().unwrap().clone(),
            tools: case.get("tools").cloned(),
            ..Conversation::default()
        };
        let rendered = ChatTemplate::open(&directory).unwrap().render(&conversation).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{}", case["name"]);
        let text = Text::open(&directory, 512).unwrap();
        let wanted: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(text.encode(&rendered, Frame::Written).unwrap(), wanted, "{}", case["name"]);
    }
}

#[test]
fn the_families_templates_render_as_in_transformers() {
    let cases = std::fs::read(golden("chat/cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 30);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.json");
    for case in &cases {
        let (template, name) = (case["template"].as_str().unwrap(), &case["name"]);
        let source = golden("chat").join(format!("{template}.jinja"));
        std::fs::copy(source, dir.path().join("chat_template.jinja")).unwrap();
        std::fs::copy(golden("llama/tokenizer_config.json"), dir.path().join("tokenizer_config.json"))
            .unwrap();
        std::fs::write(&file, case["conversation"].to_string()).unwrap();
        let rendered = ChatTemplate::open(dir.path()).unwrap().render(&Conversation::open(&file).unwrap());
        let rendered = rendered.unwrap_or_else(|error| panic!("{template}, {name}: {error}"));
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{template}, {name}");
    }
}

#[test]
fn thoughts_are_parted_from_the_answer() {
    let text = Arc::new(tokenizer(&byte_level(), 257).unwrap());
    let parted = |written: &str, opened| {
        let parted = part(&text, &text.encode(written, Frame::Written).unwrap(), opened).unwrap();
        let Usage { thinking_tokens, answer_tokens, tag_tokens, budget_hit } = parted.usage;
        assert_eq!(thinking_tokens + answer_tokens + tag_tokens, written.len());
        assert!(!budget_hit);
        (parted.thinking, parted.answer, thinking_tokens)
    };
    let is = |thinking: &str, answer: &str, tokens| (thinking.to_owned(), answer.to_owned(), tokens);
    assert_eq!(parted("a </think> b", false), is("", "a </think> b", 0));
    assert_eq!(parted("a\n</think>\n\nb\n", true), is("a", "b\n", 2));
    assert_eq!(parted(" <think>a</think>b\n", false), is("a", "b\n", 1));
    assert_eq!(parted("abc", true), is("abc", "", 3));
    assert_eq!(parted("<think>a</think>b <think>cd", false), is("a\n\ncd", "b ", 3));
    assert_eq!(parted("<think></think>b", false), is("", "b", 0));
    // A cut within the closing tag leaves no part of it.
    assert_eq!(parted("a\n</thi", true), is("a", "", 2));
    assert_eq!(parted("a\n<", true), is("a", "", 2));
    assert_eq!(parted("a <b> </threat", true), is("a <b> </threat", "", 14));
    assert_eq!(parted("a <thi", false), is("", "a <thi", 0));
    // As what a stop text leaves of it.
    assert_eq!(part_text("a</think>\n\nb", true), ("a".to_owned(), "b".to_owned()));
    assert_eq!(part_text("a\n</thi", true), ("a".to_owned(), String::new()));
}

#[test]
fn special_tags_are_text_and_other_turns_open_nothing() {
    let mut json = byte_level();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.extend([special(257, "<think>"), special(258, "</think>")]);
    for text in [tokenizer(&json, 259).unwrap(), tokenizer(&byte_level(), 257).unwrap()] {
        let encode = |written: &str| text.encode(written, Frame::Written).unwrap();
        assert_eq!(text.decode(&encode("<think>a</think><end>b")).unwrap(), "<think>a</think>b");
        let opens = |written: &str| text.opens_thinking(&encode(written)).unwrap();
        for open in [
            "<think>",
            "<think>\n",
            "q<end>\n<think>I see",
            "q<end>a<think>\nI see",
            "q<end>a\n<think>\n<think>\nI see",
            "<think>a</think><think>",
        ] {
            assert!(opens(open), "{open}");
        }
        for closed in ["", "<think></think>", "use <think>!<end>answer", "<think>a</think>b", "</think>"] {
            assert!(!opens(closed), "{closed}");
        }
        // Somebody's own text, also where the tokenizer begins it with a token.
        for text in ["What is <think> for?", "<think> is a tag", "a <think>\nb"] {
            for before in ["", "<end>"] {
                assert!(!opens(&format!("{before}{text}")), "{before}{text}");
            }
        }
        assert!(!opens("q<end>What is <think> for?"));
    }
}

#[test]
fn whether_templates_have_tags_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat_template.jinja");
    std::fs::write(dir.path().join("tokenizer.json"), byte_level().to_string()).unwrap();
    let open = || Text::open(dir.path(), 257).unwrap();
    assert!(!open().template_has_tags().unwrap());
    std::fs::write(&file, "<think>").unwrap();
    let text = open();
    assert!(text.template_has_tags().unwrap());
    std::fs::remove_file(&file).unwrap();
    assert!(text.template_has_tags().unwrap());
}
