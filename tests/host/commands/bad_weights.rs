//! Checkpoints that are damaged or of another model.

use nemo_tests::commands::{Review, Room, edit_safetensors};
use serde_json::{Map, Value, json};

use super::BASELINE;

const MODEL: &str = "hybrid/model.safetensors";
const RUN: &str = "nemort generate hybrid.nemo --weights hybrid --tokens 1,2";

fn room() -> Room {
    let room = Room::new();
    room.artifact("hybrid", BASELINE);
    room
}

/// Changes the header of the fixture's file.
fn header(room: &Room, change: impl FnOnce(&mut Map<String, Value>)) {
    room.edit(MODEL, |bytes| edit_safetensors(bytes, |header, _| change(header)));
}

type Damage = (&'static str, fn(&Room));

/// A fault each, made on a fresh copy.
const FILE: [Damage; 17] = [
    ("no file", |room| room.remove(MODEL)),
    ("an empty file", |room| room.write(MODEL, "")),
    ("cut in the length of the header", |room| room.edit(MODEL, |bytes| bytes.truncate(5))),
    ("cut in the header", |room| room.edit(MODEL, |bytes| bytes.truncate(1000))),
    ("cut in the data", |room| room.edit(MODEL, |bytes| bytes.truncate(bytes.len() - 1))),
    ("bytes after the data", |room| room.edit(MODEL, |bytes| bytes.extend(*b"and more"))),
    ("an absurd header length", |room| room.edit(MODEL, |bytes| bytes[..8].fill(0xFF))),
    ("a header length past the end", |room| {
        room.edit(MODEL, |bytes| bytes[..8].copy_from_slice(&50_000_000_u64.to_le_bytes()));
    }),
    ("a header that is not JSON", |room| room.edit(MODEL, |bytes| bytes[8] = b'?')),
    ("a pickle in place of it", |room| room.edit(MODEL, |bytes| bytes[..4].copy_from_slice(b"PK\x03\x04"))),
    ("an LFS pointer in place of it", |room| {
        room.write(
            MODEL,
            "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789\nsize 1413144\n",
        );
    }),
    ("a directory in place of it", |room| {
        room.remove(MODEL);
        std::fs::create_dir(room.path(MODEL)).expect("a directory");
    }),
    ("a missing tensor", |room| {
        header(room, |header| {
            let tensor = header.remove("lm_head.weight").expect("the tensor");
            header.insert("lm_head.bias".to_owned(), tensor);
        });
    }),
    ("a transposed tensor", |room| {
        header(room, |header| {
            header["lm_head.weight"]["shape"].as_array_mut().expect("a shape").reverse();
        });
    }),
    ("another dtype of the same size", |room| {
        header(room, |header| header["lm_head.weight"]["dtype"] = "F16".into());
    }),
    ("a vector of integers", |room| {
        header(room, |header| header["backbone.norm_f.weight"]["dtype"] = "I16".into());
    }),
    ("offsets that overlap", |room| {
        header(room, |header| {
            let offsets = header["backbone.norm_f.weight"]["data_offsets"].clone();
            let begin = offsets[0].as_u64().expect("an offset");
            let end = offsets[1].as_u64().expect("an offset");
            // One back: as long as before, and over its neighbour.
            header["backbone.norm_f.weight"]["data_offsets"] = json!([begin - 1, end - 1]);
        });
    }),
];

#[test]
fn damaged_files() {
    let mut review = Review::default();
    for (what, damage) in FILE {
        let room = room();
        room.fixture("hybrid");
        damage(&room);
        let ran = room.fails(RUN);
        review.add(what, &ran);
        // Verifying finds the same, with the same words.
        let verified = room.refuses("nemort verify hybrid.nemo --weights hybrid", 1);
        assert_eq!(ran.stderr, verified.stderr, "{what}");
    }
    insta::assert_snapshot!(review.text());
}

const INDEX: &str = "nas/model.safetensors.index.json";

fn index(room: &Room, change: impl FnOnce(&mut Value)) {
    room.edit(INDEX, |bytes| {
        let mut index = serde_json::from_slice(bytes).expect("an index");
        change(&mut index);
        *bytes = serde_json::to_vec(&index).expect("JSON");
    });
}

const SHARDS: [Damage; 8] = [
    ("a missing shard", |room| room.remove("nas/model-00002-of-00003.safetensors")),
    ("a shard cut short", |room| {
        room.edit("nas/model-00003-of-00003.safetensors", |bytes| bytes.truncate(100_000));
    }),
    ("an index that names a file that is not there", |room| {
        index(room, |index| {
            index["weight_map"]["lm_head.weight"] = "model-00004-of-00003.safetensors".into();
        });
    }),
    ("an index that names the wrong shard", |room| {
        index(room, |index| {
            let embedding = index["weight_map"]["model.embed_tokens.weight"].clone();
            assert_ne!(index["weight_map"]["lm_head.weight"], embedding);
            index["weight_map"]["lm_head.weight"] = embedding;
        });
    }),
    ("an index that reaches out of the checkpoint", |room| {
        index(room, |index| index["weight_map"]["lm_head.weight"] = "../nas/model.safetensors".into());
    }),
    ("an index without a map", |room| room.write(INDEX, r#"{"metadata": {"total_size": 3}}"#)),
    ("an index that is not JSON", |room| room.edit(INDEX, |bytes| bytes.truncate(500))),
    ("a tensor in two shards", |room| {
        room.edit("nas/model-00001-of-00003.safetensors", |bytes| {
            edit_safetensors(bytes, |header, data| {
                let end = data.len();
                data.extend([0; 2]);
                header.insert(
                    "model.norm.weight".to_owned(),
                    json!({"dtype": "BF16", "shape": [1], "data_offsets": [end, end + 2]}),
                );
            });
        });
        room.edit("nas/model-00002-of-00003.safetensors", |bytes| {
            edit_safetensors(bytes, |header, data| {
                let end = data.len();
                data.extend([0; 2]);
                header.insert(
                    "model.norm.weight".to_owned(),
                    json!({"dtype": "BF16", "shape": [1], "data_offsets": [end, end + 2]}),
                );
            });
        });
    }),
];

#[test]
fn damaged_shards() {
    let mut review = Review::default();
    for (what, damage) in SHARDS {
        let room = Room::new();
        room.artifact("nas", BASELINE);
        room.fixture("nas");
        damage(&room);
        review.add(what, &room.fails("nemort logits nas.nemo --weights nas --tokens 1 -o out.safetensors"));
    }
    insta::assert_snapshot!(review.text());
}

#[test]
fn another_models_weights() {
    let mut review = Review::default();
    let room = room();
    room.fixture("llama");
    room.fixture("hybrid");
    let run = "nemort bench hybrid.nemo --weights";
    review.add("another family", &room.fails(&format!("{run} llama")));
    review.add("no such directory", &room.fails(&format!("{run} nowhere")));
    review.add("a file", &room.fails(&format!("{run} hybrid/config.json")));
    review.add("its safetensors file", &room.fails(&format!("{run} {MODEL}")));
    review.add("the artifact", &room.fails(&format!("{run} hybrid.nemo")));
    insta::assert_snapshot!(review.text());
}

/// Whatever byte of a header is changed, the command ends in one sentence or runs.
#[test]
fn no_header_byte_panics() {
    let room = room();
    room.fixture("hybrid");
    let sound = room.read(MODEL);
    let length = u64::from_le_bytes(*sound.first_chunk().expect("a header")) as usize;
    for at in (0..8 + length).step_by(length / 40) {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 7);
        room.write(MODEL, damaged);
        let ran = room.run("nemort verify hybrid.nemo --weights hybrid");
        assert!(ran.code == 0 || (ran.code == 1 && ran.stderr.lines().count() == 1), "byte {at}: {ran}");
    }
}
