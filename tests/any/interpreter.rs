//! The oracle itself against independent implementations: every fixture through the interpreter.

use std::collections::BTreeMap;

use half::bf16;
use nemo_ir::interp::{Logits, Numerics, Sequence, StateStore, Step, Tensor, run_program};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Type};
use nemo_tests::golden::{FIXTURES, folder, model, references};
use nemoc::lower::{LowerOptions, lower};
use safetensors::{Dtype as Stored, SafeTensors};

/// Every tensor of a fixture, by name.
fn weights(name: &str) -> BTreeMap<String, Vec<f64>> {
    let files = std::fs::read_dir(folder(name)).expect("the fixture is there").filter_map(Result::ok);
    let shards = files.map(|file| file.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("model") && name.ends_with(".safetensors")
    });
    let mut tensors = BTreeMap::new();
    for shard in shards {
        let bytes = std::fs::read(shard).expect("the shard can be read");
        let file = SafeTensors::deserialize(&bytes).expect("shards are safetensors");
        for (name, view) in file.tensors() {
            let data = view.data();
            let values = match view.dtype() {
                Stored::BF16 => data.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
                Stored::F32 => {
                    data.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
                }
                other => panic!("no fixture stores {other:?}"),
            };
            tensors.insert(name, values);
        }
    }
    tensors
}

/// Logits of a prompt through one program, `piece` tokens a step.
fn logits(name: &str, prompt: &[i32], phase: Phase, piece: usize) -> Vec<f32> {
    let options = LowerOptions { activations: Dtype::F32, max_context: 512 };
    let program = lower(&model(name), phase, options).unwrap_or_else(|error| panic!("{error}"));
    let weights = weights(name);
    let weight = |name: &str, ty: &Type| {
        let shape: Vec<usize> =
            ty.shape.iter().map(|dim| dim.constant().expect("constant") as usize).collect();
        Tensor::real(shape, weights[name].clone())
    };
    let mut state = StateStore::zeros(&program, 1, 8);
    let mut all = Vec::new();
    for (index, tokens) in prompt.chunks(piece).enumerate() {
        let step = Step::of(&[Sequence {
            tokens: tokens.to_vec(),
            context: (index * piece) as i32,
            slot_in: if index == 0 { -1 } else { 0 },
            slot_out: 0,
            pages: (0..8).collect(),
            logits: Logits::All,
            ..Sequence::default()
        }]);
        let outputs = run_program(&program, weight, &mut state, &step, Numerics::F64)
            .unwrap_or_else(|error| panic!("{error}"));
        all.extend(outputs.logits.to_f32());
    }
    all
}

#[test]
fn agrees_with_the_references() {
    for name in FIXTURES {
        let [_, b] = references(name);
        let cases = [
            (Phase::Prefill, b.prompt.len(), b.prompt.len()),
            (Phase::Prefill, 30, 7),
            (Phase::Decode, 9, 1),
        ];
        for (phase, tokens, piece) in cases {
            let found = logits(name, &b.prompt[..tokens], phase, piece);
            let wanted = &b.f32[..found.len()];
            assert!(found.iter().all(|x| x.is_finite()), "{name}: logits are not finite");
            let largest = wanted.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let difference = found.iter().zip(wanted).fold(0.0f32, |d, (a, b)| d.max((a - b).abs()));
            assert!(difference <= 2e-5 * largest, "{name} {} by {piece}: {difference}", phase.name());
        }
    }
}
