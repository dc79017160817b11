//! The two tiny models that the project has trained.

use std::path::{Path, PathBuf};

use nemo_ir::artifact::Artifact;
use nemo_ir::types::Dtype;
use nemo_kernels::target::HostTarget;
use nemoc::{CompileOptions, compile};
use nemort::device::host::pool::Pinning;
use nemort::engine::{Engine, EngineOptions};
use nemort::weights::WeightsSource;

/// The models, by folder.
pub const TRAINED: [&str; 2] = ["nano2-tiny", "nas-tiny"];

/// Where the models are.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny")
}

/// A model's checkpoint.
pub fn folder(name: &str) -> PathBuf {
    home().join(name)
}

/// The greedy continuations that independent implementations give for the first of the problems, one JSON object a line.
pub fn references(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tiny").join(format!("{name}.jsonl"))
}

/// A model compiled for this CPU and loaded, with eight sequences of 512 positions.
pub fn engine(name: &str, activations: Dtype) -> Engine {
    let file = folder(name).join("config.json");
    let config = std::fs::read_to_string(&file).expect("the model has a configuration");
    engine_of(&config, name, activations, WeightsSource::Directory(folder(name)))
}

/// As [`engine`], of any configuration.
pub fn engine_of(config: &str, name: &str, activations: Dtype, weights: WeightsSource) -> Engine {
    let model = nemo_models::import_hf(config, name, name).unwrap_or_else(|error| panic!("{error}"));
    let target = HostTarget::detect().expect("tests of the host run on one");
    let options = CompileOptions {
        activations: Some(activations),
        max_context: Some(512),
        ..CompileOptions::new(vec![target])
    };
    let compiled = compile(&model, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let bytes = compiled.to_bytes().unwrap_or_else(|error| panic!("{error}"));
    let artifact =
        Artifact::from_bytes(Path::new("trained.nemo"), bytes).unwrap_or_else(|error| panic!("{error}"));
    let options = EngineOptions {
        threads: Some(2),
        // Tests run side by side: bound to cores, their pools would fight over the same ones.
        pinning: Pinning::None,
        ..EngineOptions::new(weights)
    };
    Engine::load(&artifact, &options).unwrap_or_else(|error| panic!("{error}"))
}
