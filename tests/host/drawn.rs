//! Graphs that nobody tuned for, through generated code: drawn models against the interpreter.

use std::collections::BTreeMap;

use half::bf16;
use nemo_ir::interp::{Logits, Numerics, Sequence, StateStore, Step, Tensor, run_program};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Type};
use nemo_kernels::target::HostTarget;
use nemo_models::Model;
use nemo_tests::golden::Runner;
use nemo_tests::random::Random;
use nemoc::lower::{LowerOptions, lower, stored};
use nemoc::saturate::Options;
use proptest::prelude::*;
use safetensors::Dtype as Stored;
use safetensors::tensor::{TensorView, serialize_to_file};

#[path = "../../compiler/tests/common/mod.rs"]
mod common;

/// Weights by name, as a checkpoint stores them.
type Weights = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn drawn_weights(model: &Model, seed: u64) -> Weights {
    let mut weights = Weights::new();
    for (index, tensor) in model.tensors().into_iter().enumerate() {
        let shape: Vec<usize> = tensor.shape.iter().map(|extent| *extent as usize).collect();
        // Small beside the residual stream, so that sums of many stay tame.
        let drawn = Random::new(seed + index as u64).tensor(&shape, -0.5, 0.5).rounded(stored(model.dtype));
        weights.insert(tensor.name, (shape, drawn.as_real().expect("weights are real").to_vec()));
    }
    weights
}

fn save(weights: &Weights, dtype: Dtype, file: &std::path::Path) {
    let bytes = |values: &[f64]| -> Vec<u8> {
        match dtype {
            Dtype::Bf16 => values.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        }
    };
    let kind = if dtype == Dtype::Bf16 { Stored::BF16 } else { Stored::F32 };
    let data: Vec<_> =
        weights.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(kind, shape.clone(), bytes).expect("the bytes are the tensor's"))
    });
    serialize_to_file(views, None, file).expect("a temporary file can be written");
}

/// Logits of a prompt and of a token after it, through the unfused graph.
fn reference(model: &Model, weights: &Weights, prompt: &[i32], next: i32) -> Vec<f64> {
    let options = LowerOptions { activations: Dtype::F32, max_context: model.max_context };
    let program = |phase| lower(model, phase, options).unwrap_or_else(|error| panic!("{error}"));
    let (prefill, decode) = (program(Phase::Prefill), program(Phase::Decode));
    let weight = |name: &str, ty: &Type| {
        let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.resolve(|_| 0) as usize).collect();
        Tensor::real(shape, weights[name].1.clone())
    };
    let pages = model.max_context.div_ceil(64) as i32;
    let mut state = StateStore::zeros(&prefill, 1, pages as usize);
    let mut logits = Vec::new();
    for (program, tokens, context) in [(&prefill, prompt, 0), (&decode, &[next][..], prompt.len())] {
        let step = Step::of(&[Sequence {
            tokens: tokens.to_vec(),
            context: context as i32,
            slot_in: if context == 0 { -1 } else { 0 },
            slot_out: 0,
            pages: (0..pages).collect(),
            logits: Logits::All,
            ..Sequence::default()
        }]);
        let outputs = run_program(program, weight, &mut state, &step, Numerics::F64);
        let outputs = outputs.unwrap_or_else(|error| panic!("{error}"));
        logits.extend(outputs.logits.as_real().expect("logits are real"));
    }
    logits
}

proptest! {
    // Each case runs LLVM on some twenty kernels.
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 16, ..ProptestConfig::default() })]

    #[test]
    fn drawn_models_agree_with_the_interpreter(
        model in common::any_model(),
        tokens in 1usize..12,
        seed in any::<u32>(),
    ) {
        let target = HostTarget::detect().expect("tests of the host run on one");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let weights = drawn_weights(&model, u64::from(seed));
        save(&weights, stored(model.dtype), &folder.path().join("model.safetensors"));
        let prompt: Vec<i32> = (0..tokens).map(|n| (n as u64 * 7 % model.vocab) as i32).collect();
        let next = (model.vocab / 2) as i32;
        let wanted = reference(&model, &weights, &prompt, next);

        let mut runner = Runner::of(&model, folder.path(), &target, (Dtype::F32, Options::default()));
        let mut found = runner.feed(&[(0, &prompt)], Phase::Prefill).0.remove(0);
        found.extend(runner.feed(&[(0, &[next])], Phase::Decode).0.remove(0));
        let largest = wanted.iter().fold(1e-6_f64, |most, x| most.max(x.abs()));
        prop_assert_eq!(found.len(), wanted.len());
        for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let error = (f64::from(*found) - wanted).abs();
            prop_assert!(error <= 1e-3 * largest, "logit {}: {} for {}", index, found, wanted);
        }
    }
}
