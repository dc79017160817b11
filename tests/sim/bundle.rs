//! Bundles of kernel cases: what is written is read, runs on a simulated card, and fails when it should.

use gpu_check::bundle::Cases;
use gpu_check::card::card;
use gpu_check::run::run;
use nemo_kernels::nvptx;
use nemo_kernels::target::Sm;
use nemo_tests::bundle;
use nemort::device::gpu::driver::Facts;

#[test]
fn a_bundle_of_some_ops_runs_from_its_files() {
    for sm in Sm::ALL {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ops = ["linear", "rms_norm", "paged_attention"].map(str::to_owned);
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
        let last = cases.cases.len() - 1;
        let at = cases.cases[last].expected[0].at as usize;
        cases.blob[at..][..8].copy_from_slice(&1e3_f64.to_le_bytes());
        let found = run(card(facts).0.as_mut(), &cases, 1);
        assert_eq!(found.failed.len(), 1);
        assert!(found.failed[0].starts_with(&cases.cases[last].name), "{:?}", found.failed);
    }
}
