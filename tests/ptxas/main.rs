//! Tests that assemble generated GPU code with NVIDIA's assembler, on any machine.

use nemo_kernels::target::Sm;
use nemo_models::Model;
use nemo_tests::golden;
use nemo_tests::ptxas::{assembled, faults, kernels};

fn check(sm: Sm) {
    let systems = ["nemotron-nano-9b-v2", "llama-3.3-nemotron-super-49b-v1.5"];
    let systems = systems.map(|name| Model::builtin(name).expect("a built-in system"));
    let fixtures = ["hybrid", "llama", "nas", "qwen"].map(golden::model);
    let specs = systems.iter().chain(&fixtures).flat_map(|model| kernels(model, sm));
    let faults = faults(sm, &assembled(sm, specs));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn sm_86_assembles_without_spills() {
    check(Sm::Sm86);
}

#[test]
fn sm_90_assembles_without_spills() {
    check(Sm::Sm90);
}
