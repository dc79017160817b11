//! The whole pipeline: artifacts open, repeat byte for byte, and stay small.

mod common;

use std::path::Path;

use nemo_ir::artifact::Artifact;
use nemo_ir::types::Dtype;
use nemo_kernels::target::HostTarget;
use nemo_models::{Model, builtin_names};
use nemoc::{CompileOptions, Compiled, Stage, compile};
use proptest::prelude::*;

fn options(targets: &[&str]) -> CompileOptions {
    CompileOptions::new(targets.iter().map(|name| HostTarget::parse(name).unwrap()).collect())
}

fn compiled(model: &Model, options: &CompileOptions) -> Compiled {
    compile(model, options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let options = options(&["x86-64-v3", "x86-64-v4+avx512bf16"]);
    let model = common::tiny();
    assert_eq!(
        compiled(&model, &options).to_bytes().unwrap(),
        compiled(&model, &options).to_bytes().unwrap()
    );
}

#[test]
fn an_artifact_holds_all_its_targets() {
    let options = options(&["x86-64-v3", "x86-64-v4+avx512bf16", "x86-64-v3"]);
    let mut stages = Vec::new();
    let compiled = compile(&common::tiny(), &options, &mut |stage| stages.push(stage.clone())).unwrap();
    assert_eq!(stages.len(), 5, "{stages:?}");
    assert_eq!(stages[0], Stage::Lower);
    let artifact = Artifact::from_bytes(Path::new("tiny.nemo"), compiled.to_bytes().unwrap()).unwrap();
    assert_eq!(artifact.manifest().activations, Dtype::Bf16);
    assert_eq!(artifact.manifest().targets.len(), 2);
    for name in ["x86-64-v3", "x86-64-v4+avx512bf16"] {
        let target = artifact.target(name).unwrap();
        assert!(!target.object.is_empty());
        let symbols = target.plan.kernels.iter().map(|kernel| kernel.symbol.as_bytes());
        let present = |symbol: &[u8]| target.object.windows(symbol.len()).any(|window| window == symbol);
        assert!(symbols.into_iter().all(present), "{name}");
    }
    let model = Model::parse_toml(artifact.model_toml().unwrap(), "model.toml").unwrap();
    assert_eq!(model.layers, common::tiny().layers);
}

#[test]
fn every_builtin_system_compiles_small() {
    for name in builtin_names() {
        let model = Model::builtin(name).unwrap();
        let bytes = compiled(&model, &options(&["x86-64-v3"])).to_bytes().unwrap();
        assert!(bytes.len() < 5 << 20, "{name}: {} bytes", bytes.len());
    }
}

#[test]
fn activations_in_f32() {
    let options = CompileOptions { activations: Some(Dtype::F32), ..options(&["x86-64-v3"]) };
    let compiled = compiled(&common::tiny(), &options);
    let states = &compiled.targets[0].planned.plan.states;
    assert!(!states.is_empty() && states.iter().all(|state| state.dtype == Dtype::F32));
}

#[test]
fn options_out_of_range_say_what_would_be_right() {
    let base = || options(&["x86-64-v3"]);
    let cases = [
        (CompileOptions { max_seqs: 0, ..base() }, "--max-seqs is 0; it must be 1 to 256"),
        (CompileOptions { max_seqs: 257, ..base() }, "--max-seqs is 257; it must be 1 to 256"),
        (CompileOptions { chunk: 8193, ..base() }, "--chunk is 8193; it must be 1 to 8192"),
        (
            CompileOptions { max_seqs: 9, chunk: 8, ..base() },
            "--chunk is 8; it must be at least --max-seqs, which is 9",
        ),
        (
            CompileOptions { max_context: Some(257), ..base() },
            "--max-context is 257; it must be 1 to 256, the context of `tiny`",
        ),
        (options(&[]), "no target was named; `host` is this machine"),
    ];
    for (options, wanted) in cases {
        assert_eq!(compile(&common::tiny(), &options, &mut |_| {}).unwrap_err().to_string(), wanted);
    }
}

proptest! {
    // Each case runs LLVM on some twenty kernels.
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn drawn_models_compile(model in common::any_model(), wide in any::<bool>(), f32 in any::<bool>()) {
        let options = CompileOptions {
            activations: f32.then_some(Dtype::F32),
            ..options(&[if wide { "x86-64-v4+avx512bf16" } else { "x86-64-v3" }])
        };
        let bytes = compile(&model, &options, &mut |_| {}).map(|compiled| compiled.to_bytes());
        prop_assert!(matches!(bytes, Ok(Ok(_))), "{bytes:?}");
    }
}
