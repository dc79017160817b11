//! Every built-in system lowers to a legal graph, which stands in the snapshots.

mod common;

use nemo_ir::graph::Program;
use nemo_ir::plan::Phase;
use nemo_ir::text::parse_program;
use nemo_ir::types::Dtype;
use nemo_ir::verify::verify_program;
use nemo_models::{Model, builtin_names};
use nemoc::lower::{LowerOptions, lower};
use proptest::prelude::*;

fn lowered(model: &Model, phase: Phase) -> Program {
    lower(model, phase, LowerOptions::of(model)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_builtin_system() {
    for name in builtin_names() {
        let model = Model::builtin(name).unwrap_or_else(|| panic!("{name} does not parse"));
        for phase in Phase::ALL {
            let program = lowered(&model, phase);
            if let Err(errors) = verify_program(&program) {
                panic!("{name}: {errors:?}");
            }
            let text = program.to_string();
            let again = parse_program(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(again.to_string(), text, "{name} does not read back");
            insta::assert_snapshot!(format!("{name}-{}", phase.name()), text);
        }
    }
}

#[test]
fn every_mixer_in_one_model() {
    let model = common::tiny();
    insta::assert_snapshot!(lowered(&model, Phase::Prefill));
}

#[test]
fn activations_in_f32_reach_the_caches() {
    let model = common::tiny();
    let options = LowerOptions { activations: Dtype::F32, ..LowerOptions::of(&model) };
    let text = lower(&model, Phase::Decode, options).unwrap().to_string();
    assert!(text.contains("state &kv: f32[N,2,2,64,16]"), "{text}");
    assert!(text.contains("state &conv: f32[S,3,160]"), "{text}");
    assert!(text.contains("weight @mixer.in_proj.weight: bf16[260,64]"), "{text}");
}

#[test]
fn an_empty_slot_leaves_only_its_number() {
    let program = lowered(&common::tiny(), Phase::Decode);
    let layers: Vec<_> = program.calls.iter().filter_map(|call| call.layer).collect();
    assert_eq!(layers, [0, 1, 3, 4, 5]);
    assert!(program.blocks.iter().all(|block| block.name != "nothing"));
}

#[test]
fn a_shape_that_no_op_takes_is_named() {
    let mut model = common::tiny();
    for block in &mut model.blocks {
        for part in &mut block.parts {
            if let nemo_models::Mixer::Mamba2(mamba) = &mut part.mixer {
                mamba.conv = 1;
            }
        }
    }
    let error = lower(&model, Phase::Decode, LowerOptions::of(&model)).unwrap_err().to_string();
    assert!(
        error.starts_with("block `scan` of model `tiny` cannot be compiled: `causal_conv1d` takes"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn drawn_models_verify(model in common::any_model()) {
        for phase in Phase::ALL {
            let program = lowered(&model, phase);
            prop_assert!(verify_program(&program).is_ok(), "{:?}", verify_program(&program));
        }
    }
}
