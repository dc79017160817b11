//! Artifacts that are damaged, too new, or for another machine.

use std::path::Path;

use nemo_ir::artifact::{Artifact, Contents, Needs, TargetContents, to_bytes};
use nemo_tests::commands::{Review, Room, artifact};

use super::BASELINE;

const VERIFY: &str = "nemort verify qwen.nemo";

/// What is done to something, and how it is called.
type Damage<T> = (&'static str, fn(&mut T));

fn room() -> Room {
    let room = Room::new();
    room.artifact("qwen", BASELINE);
    room
}

fn open(bytes: &[u8]) -> Artifact {
    Artifact::from_bytes(Path::new("qwen.nemo"), bytes.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

/// Where the bytes `wanted` stand.
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("the bytes are there")
}

/// What an artifact holds, to be changed and written anew with the right digests.
fn contents(bytes: &[u8]) -> Contents {
    let artifact = open(bytes);
    let manifest = artifact.manifest();
    let target = |name: &str| {
        let target = artifact.target(name).unwrap_or_else(|error| panic!("{error}"));
        let text = |entry: &String| {
            let tail = entry.rsplit('/').next().expect("a name").trim_end_matches(".txt");
            let bytes = artifact.entry(entry).unwrap_or_else(|error| panic!("{error}"));
            (tail.to_owned(), String::from_utf8(bytes.to_vec()).expect("text"))
        };
        TargetContents {
            name: name.to_owned(),
            needs: target.manifest.needs.clone(),
            cubin: target.cubin.map(<[u8]>::to_vec),
            fused: target.manifest.fused.iter().map(text).collect(),
            explain: target.manifest.explain.as_ref().map(|entry| text(entry).1),
            object: target.object.to_vec(),
            plan: target.plan,
        }
    };
    Contents {
        model: manifest.model.clone(),
        compiler: manifest.compiler.clone(),
        weights: manifest.weights,
        activations: manifest.activations,
        model_toml: artifact.model_toml().expect("a model").to_owned(),
        targets: manifest.targets.iter().map(|named| target(&named.name)).collect(),
    }
}

/// CRC-32 as zip files have it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Changes a byte of the manifest, and its checksum with it: the first record of the zip's directory.
fn edit_manifest(bytes: &mut [u8], at: usize, byte: u8) {
    let entry = open(bytes).entry("manifest.json").expect("the manifest").to_vec();
    let start = find(bytes, &entry);
    bytes[at] = byte;
    let sum = crc32(&bytes[start..start + entry.len()]);
    let record = find(bytes, b"PK\x01\x02");
    bytes[record + 16..record + 20].copy_from_slice(&sum.to_le_bytes());
}

/// Changes the format, which is one digit.
fn set_format(bytes: &mut [u8], digit: u8) {
    let name = b"\"format\":";
    let at = find(bytes, name) + name.len();
    let at = bytes[at..].iter().position(u8::is_ascii_digit).expect("the format") + at;
    edit_manifest(bytes, at, digit);
}

/// Digests depend on the compiler's version; they are not what is reviewed.
fn without_digests(text: &str) -> String {
    let mut kept = String::new();
    for word in text.split_inclusive(' ') {
        let digest = word.contains('…');
        kept.push_str(if digest { "[digest]" } else { word });
        if digest {
            kept.push_str(word.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '…'));
        }
    }
    kept
}

#[test]
fn damaged_files() {
    let mut review = Review::default();
    let sound = artifact("qwen", BASELINE);
    let room = room();
    // One bit in the middle of every entry.
    for (name, size) in open(&sound).entries() {
        let entry = open(&sound).entry(name).expect("the entry").to_vec();
        assert_eq!(entry.len(), size);
        let at = find(&sound, &entry) + size / 2;
        room.write("qwen.nemo", &sound);
        room.edit("qwen.nemo", |bytes| bytes[at] ^= 1);
        review.add(&format!("a flipped bit in {name}"), &room.fails(VERIFY));
    }
    let damages: [Damage<Vec<u8>>; 11] = [
        ("an empty file", Vec::clear),
        ("another file", |bytes| *bytes = b"# Not an artifact\n".to_vec()),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut by one byte", |bytes| bytes.truncate(bytes.len() - 1)),
        ("a damaged directory", |bytes| {
            let at = find(bytes, b"PK\x01\x02");
            bytes[at] ^= 1;
        }),
        ("a renamed entry", |bytes| {
            let directory = find(bytes, b"PK\x01\x02");
            let at = directory + find(&bytes[directory..], b"model.toml");
            bytes[at] = b'M';
        }),
        ("a later format", |bytes| set_format(bytes, b'7')),
        ("an earlier format", |bytes| set_format(bytes, b'1')),
        ("a manifest that is not JSON", |bytes| {
            let at = find(bytes, b"\"format\":");
            edit_manifest(bytes, at, b'?');
        }),
        ("a manifest with another digest", |bytes| {
            let at = find(bytes, b"kernels/x86-64-v3.o\": \"") + 26;
            let other = if bytes[at] == b'0' { b'1' } else { b'0' };
            edit_manifest(bytes, at, other);
        }),
        ("bytes after the end", |bytes| bytes.extend(*b"0123456789")),
    ];
    for (what, damage) in damages {
        room.write("qwen.nemo", &sound);
        room.edit("qwen.nemo", damage);
        review.add(what, &room.refuses(VERIFY, 1));
    }
    room.remove("qwen.nemo");
    review.add("no file", &room.fails(VERIFY));
    std::fs::create_dir(room.path("qwen.nemo")).expect("a directory");
    review.add("a directory", &room.fails(VERIFY));
    insta::assert_snapshot!(without_digests(review.text()));
}

/// Every bit of the zip's own records: either the change is harmless, or it is refused.
#[test]
fn no_bit_of_the_zip_records_panics() {
    let sound = artifact("qwen", BASELINE);
    let wanted = open(&sound);
    let directory = find(&sound, b"PK\x01\x02");
    let mut places: Vec<usize> = (directory..sound.len()).collect();
    for (name, _) in wanted.entries() {
        let start = find(&sound, wanted.entry(name).expect("the entry"));
        places.extend(start.saturating_sub(60)..start);
    }
    for place in places {
        for bit in 0..8 {
            let mut damaged = sound.clone();
            damaged[place] ^= 1 << bit;
            if let Ok(found) = Artifact::from_bytes(Path::new("qwen.nemo"), damaged) {
                assert_eq!(found.manifest(), wanted.manifest(), "byte {place}, bit {bit}");
            }
        }
    }
}

#[test]
fn another_cpu() {
    let mut review = Review::default();
    let room = room();
    room.fixture("qwen");
    let mut contents = contents(&room.read("qwen.nemo"));
    let Needs::Host { cpu_features } = &mut contents.targets[0].needs else { panic!("a CPU's target") };
    cpu_features.extend(["avx4096".to_owned(), "tachyons".to_owned()]);
    room.write("qwen.nemo", to_bytes(&contents).expect("an artifact"));
    for line in [
        "nemort generate qwen.nemo --weights qwen --tokens 1",
        "nemort generate qwen.nemo --weights qwen --tokens 1 --target x86-64-v3",
        "nemort logits qwen.nemo --weights qwen --tokens 1 -o out.safetensors",
        "nemort bench qwen.nemo --random-weights",
    ] {
        review.line(&room.fails(line));
    }
    review.line(&room.refuses(VERIFY, 1));
    insta::assert_snapshot!(review.text());
}

#[test]
fn wrong_contents_with_right_digests() {
    let mut review = Review::default();
    let room = room();
    room.fixture("qwen");
    let sound = room.read("qwen.nemo");
    let changes: [Damage<Contents>; 5] = [
        ("an object that is none", |contents| contents.targets[0].object = b"not ELF at all".to_vec()),
        ("an object cut in half", |contents| {
            let object = &mut contents.targets[0].object;
            object.truncate(object.len() / 2);
        }),
        ("a kernel that the object does not have", |contents| {
            contents.targets[0].plan.kernels[0].symbol = "nothing_like_it".to_owned();
        }),
        ("a launch of a kernel past the list", |contents| {
            contents.targets[0].plan.programs[0].blocks[0].launches[0].kernel = 1_000_000;
        }),
        ("an arena of 2^60 bytes", |contents| contents.targets[0].plan.programs[0].arena_bytes = 1 << 60),
    ];
    for (what, change) in changes {
        let mut contents = contents(&sound);
        change(&mut contents);
        match to_bytes(&contents) {
            Ok(bytes) => {
                room.write("qwen.nemo", bytes);
                review.add(what, &room.fails("nemort generate qwen.nemo --weights qwen --tokens 1"));
            }
            // What cannot be written cannot be met.
            Err(error) => assert!(error.to_string().starts_with("cannot write"), "{what}: {error}"),
        }
    }
    insta::assert_snapshot!(review.text());
}

#[test]
fn targets_that_an_artifact_does_not_have() {
    let mut review = Review::default();
    let room = room();
    review.line(&room.fails("nemort bench qwen.nemo --random-weights --target sm_90"));
    review.line(&room.fails("nemort bench qwen.nemo --random-weights --device cuda"));
    review.line(&room.fails("nemoc inspect qwen.nemo plan.json"));
    insta::assert_snapshot!(review.text());
}
