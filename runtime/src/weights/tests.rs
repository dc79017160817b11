use std::path::Path;

use super::stream::{Stream, Supply};
use super::*;

/// A safetensors file of these tensors: name, dtype, shape, bytes.
fn safetensors(tensors: &[(&str, &str, &[u64], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
        data.extend(bytes);
    }
    let json = serde_json::to_vec(&header).unwrap();
    [(json.len() as u64).to_le_bytes().to_vec(), json, data].concat()
}

fn weight(names: &[&str], shape: &[u64], placement: Placement) -> Weight {
    Weight { names: names.iter().map(|name| (*name).to_owned()).collect(), shape: shape.to_vec(), placement }
}

fn load(directory: &Path, weights: &[Weight]) -> Result<Weights, WeightsError> {
    Weights::load(&WeightsSource::Directory(directory.to_owned()), weights, 1, Progress::Silent)
}

fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn one_file(dir: &Path) {
    let file = safetensors(&[
        // Three bytes first, so that what follows is aligned to nothing.
        ("odd", "U8", &[3], vec![1, 2, 3]),
        ("m", "BF16", &[2, 2], bf16_bytes(&[1.0, 2.0, 3.0, 4.0])),
        ("half", "F16", &[2], [1.5_f32, -2.0].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        ("full", "F32", &[1], 0.25_f32.to_le_bytes().to_vec()),
    ]);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

#[test]
fn in_place_and_widened() {
    let dir = tempfile::tempdir().unwrap();
    one_file(dir.path());
    let weights = [
        weight(&["other", "m"], &[2, 2], Placement::InPlace(Dtype::Bf16)),
        weight(&["m"], &[2, 2], Placement::WidenedToF32),
        weight(&["half"], &[2], Placement::WidenedToF32),
        weight(&["full"], &[1], Placement::WidenedToF32),
    ];
    let loaded = load(dir.path(), &weights).unwrap();
    assert_eq!(loaded.bytes(0), bf16_bytes(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(bytemuck::cast_slice::<u8, f32>(loaded.bytes(1)), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(bytemuck::cast_slice::<u8, f32>(loaded.bytes(2)), [1.5, -2.0]);
    assert_eq!(bytemuck::cast_slice::<u8, f32>(loaded.bytes(3)), [0.25]);
    assert_eq!(loaded.total_bytes(), 8 + 16 + 8 + 4);
}

#[test]
fn missing_shape_and_dtype() {
    let dir = tempfile::tempdir().unwrap();
    let message = |weight: Weight| load(dir.path(), &[weight]).unwrap_err().to_string();
    let m = |shape: &[u64], dtype| weight(&["m"], shape, Placement::InPlace(dtype));
    assert!(
        message(m(&[2, 2], Dtype::Bf16))
            .ends_with("has neither model.safetensors nor model.safetensors.index.json")
    );
    one_file(dir.path());
    let missing = message(weight(&["x", "y"], &[1], Placement::WidenedToF32));
    assert!(missing.contains("has no tensor `x` or `y`") && missing.contains("checkpoint `/"), "{missing}");
    let shape = message(m(&[4, 1], Dtype::Bf16));
    assert!(shape.contains("model.safetensors` has shape [2, 2], the artifact wants [4, 1]"), "{shape}");
    assert!(message(m(&[2, 2], Dtype::F32)).contains("has dtype BF16, the artifact wants F32"));
    let wide = message(weight(&["odd"], &[3], Placement::WidenedToF32));
    assert!(wide.contains("has dtype U8, the artifact wants F32, BF16 or F16"), "{wide}");
}

#[test]
fn a_truncated_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    one_file(dir.path());
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = load(dir.path(), &[]).unwrap_err().to_string();
    assert!(message.contains("model.safetensors`: it is truncated: tensor `full` has bytes"), "{message}");
    std::fs::write(&path, []).unwrap();
    let message = load(dir.path(), &[]).unwrap_err().to_string();
    assert!(message.ends_with("model.safetensors`: it is empty"), "{message}");
}

#[test]
fn a_directory_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    one_file(dir.path());
    let message = |path: &Path| load(path, &[]).unwrap_err().to_string();
    assert!(message(&dir.path().join("nowhere")).starts_with("there is no directory `/"));
    let file = message(&dir.path().join("model.safetensors"));
    assert!(file.ends_with("is a file; --weights takes the directory of the checkpoint"), "{file}");
}

#[test]
fn shards_follow_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str, tensor: &str| {
        std::fs::write(dir.path().join(name), safetensors(&[(tensor, "U8", &[1], vec![7])])).unwrap();
    };
    let index = |json: &str| std::fs::write(dir.path().join("model.safetensors.index.json"), json).unwrap();
    let weights = [
        weight(&["a"], &[1], Placement::InPlace(Dtype::U8)),
        weight(&["b"], &[1], Placement::InPlace(Dtype::U8)),
    ];
    shard("1.safetensors", "a");
    index(r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#);
    let message = |weights: &[Weight]| load(dir.path(), weights).unwrap_err().to_string();
    assert!(message(&weights).contains("2.safetensors`, which the index names: No such file"));
    shard("2.safetensors", "a");
    assert!(message(&weights).starts_with("tensor `a` is in both"));
    shard("2.safetensors", "c");
    assert!(message(&weights).contains("puts tensor `b` in `2.safetensors`, which does not have it"));
    shard("2.safetensors", "b");
    assert_eq!(load(dir.path(), &weights).unwrap().bytes(1), [7]);
    index(r#"{"weight_map": {"a": "../1.safetensors"}}"#);
    assert!(message(&weights).contains("`../1.safetensors` is not a file name"));
    index("{}");
    assert!(message(&weights).contains("missing field `weight_map`"));
}

#[test]
fn published_layouts_parse() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    for name in ["hybrid", "llama", "nas", "qwen"] {
        let checkpoint = Checkpoint::open(&golden.join(name)).unwrap();
        let shards = if name == "nas" { 3 } else { 1 };
        assert_eq!(checkpoint.files().len(), shards);
        assert!(checkpoint.files().iter().all(|shard| !shard.tensors.is_empty()));
    }
}

fn stream<'a>(directory: &Path, weights: &'a [Weight]) -> Result<Stream<'a>, WeightsError> {
    match Supply::open(&WeightsSource::Directory(directory.to_owned()), weights, Progress::Silent)? {
        Supply::Stored(stream) => Ok(stream),
        Supply::Random { .. } => panic!("a directory was given"),
    }
}

#[test]
fn pieces_are_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    one_file(dir.path());
    let weights = [
        weight(&["other", "m"], &[2, 2], Placement::InPlace(Dtype::Bf16)),
        weight(&["m"], &[2, 2], Placement::WidenedToF32),
        weight(&["half"], &[2], Placement::WidenedToF32),
        weight(&["odd"], &[3], Placement::InPlace(Dtype::U8)),
    ];
    let whole = load(dir.path(), &weights).unwrap();
    let whole: Vec<_> = (0..whole.len()).map(|at| whole.bytes(at).to_vec()).collect();
    let stream = stream(dir.path(), &weights).unwrap();
    let mut made = vec![Vec::new(); weights.len()];
    let taken: Result<(), ()> = stream.each_piece(|weight, at, bytes| {
        assert_eq!(made[weight].len() as u64, at);
        made[weight].extend_from_slice(bytes);
        Ok(())
    });
    taken.unwrap();
    assert_eq!(made, whole);
    // What `take` says ends it.
    let mut taken = 0;
    let stopped = stream.each_piece(|_, _, _| {
        taken += 1;
        Err("enough")
    });
    assert_eq!((stopped, taken), (Err("enough"), 1));
}

#[test]
fn a_large_tensor_comes_in_several_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let count = (populate::CHUNK + 6) as u64;
    let json = format!(r#"{{"large":{{"dtype":"U8","shape":[{count}],"data_offsets":[0,{count}]}}}}"#);
    let file = dir.path().join("model.safetensors");
    std::fs::write(&file, [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[9, 8]].concat())
        .unwrap();
    // The rest is a hole of zeros.
    let whole = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    whole.set_len(8 + json.len() as u64 + count).unwrap();
    let weights = [weight(&["large"], &[count], Placement::InPlace(Dtype::U8))];
    let mut pieces = Vec::new();
    let taken: Result<(), ()> = stream(dir.path(), &weights).unwrap().each_piece(|weight, at, bytes| {
        pieces.push((weight, at, bytes.len(), bytes[0]));
        Ok(())
    });
    taken.unwrap();
    assert_eq!(pieces, [(0, 0, populate::CHUNK, 9), (0, populate::CHUNK as u64, 6, 0)]);
}

#[test]
fn a_stream_is_checked_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    one_file(dir.path());
    let open = |weights: &[Weight]| stream(dir.path(), weights).map(|_| ()).unwrap_err().to_string();
    let missing = weight(&["absent"], &[1], Placement::WidenedToF32);
    assert!(open(&[missing]).contains("has no tensor `absent`"));
    let shape = weight(&["m"], &[4], Placement::WidenedToF32);
    assert!(open(&[shape]).contains("has shape [2, 2], the artifact wants [4]"));
}
