//! Bundles of kernel cases: every op has some, what is written is read, runs on a simulated card, and fails when it
//! should.

use gpu_check::bundle::Cases;
use gpu_check::card::card;
use gpu_check::run::run;
use nemo_ir::interp::Step;
use nemo_ir::ops::table;
use nemo_kernels::nvptx;
use nemo_kernels::target::Sm;
use nemo_tests::bundle;
use nemo_tests::drawn::{DTYPES, EXTENTS, WITHOUT_KERNEL, case, steps};
use nemo_tests::kernel::{Given, Machine};
use nemort::device::gpu::driver::Facts;

use super::steady_backends;

/// Ops of each kind: products and norms; integers that come in and go out; states that are read and written.
const OPS: [&str; 8] = [
    "linear",
    "rms_norm",
    "embed",
    "sample",
    "sample_tiled",
    "kv_append",
    "paged_attention",
    "causal_conv1d",
];

#[test]
fn every_op_of_the_table_has_cases() {
    for sm in Sm::ALL {
        let bundle = bundle::draw(sm, &[]);
        let drawn = |name: &str| bundle.cases.cases.iter().any(|case| case.op == name);
        let excused = |name: &str| WITHOUT_KERNEL.iter().any(|(op, _)| *op == name);
        let missing: Vec<_> = table().map(|op| op.name).filter(|op| !drawn(op) && !excused(op)).collect();
        assert_eq!(missing, [""; 0], "ops without a case for {}", sm.name());
        for (op, why) in WITHOUT_KERNEL {
            assert!(!drawn(op) && nemo_ir::ops::op(op).is_some(), "{op} needs no excuse: {why}");
        }
    }
}

#[test]
fn no_case_is_of_zeros() {
    let bundle = bundle::draw(Sm::Sm86, &[]);
    for case in &bundle.cases.cases {
        let written = (0..case.initial.len()).filter_map(|room| bundle.cases.initial(case, room));
        assert!(written.flatten().any(|byte| *byte != 0), "{}: nothing but zeros goes in", case.name);
        let mut results =
            case.expected.iter().filter_map(|expected| bundle.cases.reference(expected)).flatten();
        assert!(results.any(|x| x != 0.0), "{}: nothing but zeros comes out", case.name);
    }
}

/// What makes a target its own has cases, too: matrices that a tensor memory accelerator reads.
#[test]
fn tensor_maps_have_cases() {
    for (sm, wanted) in [(Sm::Sm86, false), (Sm::Sm90, true)] {
        let ops = ["linear", "linear_swiglu", "linear_qkv"].map(str::to_owned);
        let bundle = bundle::draw(sm, &ops);
        for op in ops {
            let mut cases = bundle.cases.cases.iter().filter(|case| case.op == op);
            assert_eq!(cases.any(|case| !case.launch.maps.is_empty()), wanted, "{op} on {}", sm.name());
        }
    }
}

/// Another rounding on the way to a choice, which other hardware may well have, gives the same tokens.
#[test]
fn drawn_choices_are_not_on_an_edge() {
    let backend = &steady_backends()[0];
    for name in ["sample", "sample_tiled"] {
        let op = nemo_ir::ops::op(name).expect("the table has it");
        for (extents, dtypes) in EXTENTS.iter().zip(DTYPES) {
            let mut machine = Machine::new(backend, case(op, extents, dtypes, 1));
            for step in steps() {
                let mut tokens = |factor: f64, step: &Step| {
                    for (operand, given) in case(op, extents, dtypes, step).operands.into_iter().enumerate() {
                        let Given::Tensor { mut tensor, .. } = given else { unreachable!("no state") };
                        tensor.as_real_mut().expect("they are real").iter_mut().for_each(|x| *x *= factor);
                        machine.set(operand, tensor);
                    }
                    machine.run(step, 1).reference
                };
                let exact = tokens(1.0, &step);
                for factor in [1.0 - 1e-4, 1.0 + 1e-4] {
                    assert_eq!(tokens(factor, &step), exact, "{name} of {}", extents.k);
                }
            }
        }
    }
}

#[test]
fn a_bundle_runs_from_its_files() {
    for sm in Sm::ALL {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ops = OPS.map(str::to_owned);
        let written = bundle::write(folder.path(), sm, &ops).expect("a bundle");
        let mut cases = Cases::read(folder.path(), sm.name()).expect("what was written");
        assert_eq!(cases.cases.len(), written);
        for op in &ops {
            assert!(cases.cases.iter().any(|case| case.op == *op), "{op}");
        }
        // Boxes of a cache are among what runs.
        assert_eq!(cases.cases.iter().any(|case| !case.launch.maps.is_empty()), sm == Sm::Sm90);
        let needs = nvptx::needs(sm);
        let facts =
            Facts { name: "simulated".to_owned(), capability: needs.capability, driver: needs.driver };
        let found = run(card(facts.clone()).0.as_mut(), &cases, 1);
        assert_eq!((found.run, found.skipped, &found.failed[..]), (written, 0, &[][..]));

        // Another expectation is a failure of its case alone.
        for op in ["rms_norm", "sample"] {
            let wrong = cases.cases.iter().position(|case| case.op == op).expect("it has cases");
            let expected = cases.cases[wrong].expected[0].clone();
            let size = expected.dtype.bytes() as usize;
            let mut bytes = cases.blob[expected.at as usize..][..size * expected.count].to_vec();
            // The upper bit of an exponent, or a token far outside.
            bytes[size - 1] ^= 0x40;
            cases.cases[wrong].expected[0].at = cases.add(&bytes);
            let found = run(card(facts.clone()).0.as_mut(), &cases, 1);
            assert_eq!(found.failed.len(), 1);
            assert!(found.failed[0].starts_with(&cases.cases[wrong].name), "{:?}", found.failed);
            cases.cases[wrong].expected[0] = expected;
        }
    }
}
