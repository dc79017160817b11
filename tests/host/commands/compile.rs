//! `nemoc compile` and its neighbours.

use nemo_ir::artifact::Artifact;
use nemo_tests::commands::Room;
use nemo_tests::golden::FIXTURES;
use serde_json::Value;

use super::{BASELINE, TARGETS};

#[test]
fn the_same_model_gives_the_same_bytes() {
    let room = Room::new();
    for name in ["hybrid", "nas"] {
        room.fixture(name);
        room.succeeds(&format!("nemoc compile {name} --target {TARGETS} -o one.nemo"));
        room.succeeds(&format!("nemoc compile ./{name}/ --target {TARGETS} -o two.nemo --quiet"));
        // The configuration as a model file of its own is the same model.
        room.succeeds(&format!("nemoc import {name} -o {name}.toml"));
        room.succeeds(&format!("nemoc compile {name}.toml --target {TARGETS} --quiet"));
        assert!(room.read("one.nemo") == room.read("two.nemo"), "{name}: compiled twice");
        assert!(room.read("one.nemo") == room.read(&format!("{name}.nemo")), "{name}: imported");
    }
}

#[test]
fn imported_models_are_fine() {
    let room = Room::new();
    for name in FIXTURES {
        room.fixture(name);
        let printed = room.succeeds(&format!("nemoc import {name}"));
        room.succeeds(&format!("nemoc import {name} -o model.toml"));
        assert_eq!(printed.as_bytes(), room.read("model.toml"), "{name}");
        let said = room.succeeds("nemoc check model.toml");
        assert!(said.contains(&format!("`{name}` is fine")), "{said}");
    }
}

#[test]
fn inspect_prints_entries() {
    let room = Room::new();
    room.artifact("qwen", TARGETS);
    let summary = room.succeeds("nemoc inspect qwen.nemo");
    let bytes = room.read("qwen.nemo");
    let artifact = Artifact::from_bytes(&room.path("qwen.nemo"), bytes).expect("an artifact");
    for (name, _) in artifact.entries() {
        assert!(summary.contains(name), "{name}:\n{summary}");
    }
    let model = room.succeeds("nemoc inspect qwen.nemo model.toml");
    assert_eq!(model, artifact.model_toml().expect("a model"));
    let plan = format!("plan/{BASELINE}.json");
    assert!(room.json(&format!("nemoc inspect qwen.nemo {plan}")).is_object());
}

#[test]
fn stages_are_printed() {
    let room = Room::new();
    room.fixture("llama");
    room.succeeds("nemoc compile llama --target x86-64-v3 --emit graph,plan,llvm,asm=out -o a.nemo");
    for (file, word) in [
        ("graph/decode.txt", "attention"),
        ("graph/prefill.txt", "attention"),
        ("plan/x86-64-v3.txt", "arena"),
        ("llvm/x86-64-v3.ll", "define"),
        ("asm/x86-64-v3.s", "vfmadd"),
    ] {
        let text = String::from_utf8(room.read(&format!("out/{file}"))).expect("text");
        assert!(text.contains(word), "{file} has no `{word}`");
    }
}

#[test]
fn printing_stages_changes_nothing_in_the_artifact() {
    let room = Room::new();
    room.fixture("llama");
    room.succeeds("nemoc compile llama --target x86-64-v3 --emit graph,plan,llvm,asm=out -o with.nemo");
    room.succeeds("nemoc compile llama --target x86-64-v3 -o without.nemo");
    assert!(room.read("with.nemo") == room.read("without.nemo"));
}

#[test]
fn tables_are_there_for_people_and_for_scripts() {
    let room = Room::new();
    for (command, names) in [
        ("models", &["nemotron-nano-9b-v2", "qwen3-8b"][..]),
        ("targets", &["x86-64-v3", "x86-64-v4", "host", "sm_86", "sm_90"][..]),
    ] {
        let table = room.succeeds(&format!("nemoc {command}"));
        let list = room.json(&format!("nemoc {command} --json"));
        let listed: Vec<_> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| entry.get("name").and_then(Value::as_str).expect("a name"))
            .collect();
        for name in names {
            assert!(table.contains(name) && listed.contains(name), "{command}: {name}");
        }
    }
}
