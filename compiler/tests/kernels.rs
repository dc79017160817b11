//! How many kernels a decoded token takes, as `nemoc explain` counts them, and that no byte is moved for nothing.

use nemo_kernels::target::Target;
use nemo_models::Model;
use nemoc::device::Device;
use nemoc::fuse::{Explanation, ProgramReport};
use nemoc::saturate::BlockReport;
use nemoc::{CompileOptions, plan_for};

const TARGETS: [&str; 3] = ["sm_86", "sm_90", "x86-64-v4"];

fn explained(name: &str, target: &str) -> Explanation {
    let model = Model::builtin(name).unwrap_or_else(|| panic!("`{name}` is not built in"));
    let target = Target::parse(target).unwrap_or_else(|error| panic!("{error}"));
    let planned = plan_for(&model, &CompileOptions::new(vec![target]), &mut |_| {});
    planned.unwrap_or_else(|error| panic!("{error}")).targets.remove(0).explanation
}

/// The program of one decoded sequence.
fn one_sequence(explanation: &Explanation) -> &ProgramReport {
    &explanation.programs[0]
}

fn blocks<'a>(report: &'a ProgramReport, prefix: &str) -> Vec<&'a BlockReport> {
    let all = report.blocks.iter().map(|(_, block)| block);
    let found: Vec<_> = all.filter(|block| block.name.starts_with(prefix)).collect();
    assert!(!found.is_empty(), "no block of the program is called {prefix}…");
    found
}

#[test]
fn a_token_of_nano_9b_takes_half_of_the_kernels() {
    for target in TARGETS {
        let totals = one_sequence(&explained("nemotron-nano-9b-v2", target)).totals();
        assert!(totals.off.kernels > 350, "{target}: {totals:?}");
        assert!(totals.chosen.kernels <= 180, "{target}: {totals:?}");
    }
}

#[test]
fn a_layer_of_super_takes_five_kernels_and_a_bare_ffn_two() {
    for target in TARGETS {
        let explanation = explained("llama-3.3-nemotron-super-49b-v1", target);
        let report = one_sequence(&explanation);
        for block in blocks(report, "layer_") {
            assert!(block.chosen.kernels <= 5, "{target}, {}: {:?}", block.name, block.kernels);
        }
        for block in blocks(report, "ffn_") {
            assert!(block.chosen.kernels <= 2, "{target}, {}: {:?}", block.name, block.kernels);
        }
    }
}

#[test]
fn empty_slots_of_ultra_cost_nothing() {
    for target in TARGETS {
        let explanation = explained("llama-3.1-nemotron-ultra-253b-v1", target);
        let report = one_sequence(&explanation);
        // 162 slots: 64 with attention and a feed-forward network, 17 with the latter alone, 81 empty.
        let calls = |prefix: &str| {
            let of = report.blocks.iter().filter(|(_, block)| block.name.starts_with(prefix));
            of.map(|(calls, _)| calls).sum::<u64>()
        };
        assert_eq!((calls("layer_"), calls("ffn_")), (64, 17), "{target}");
        assert_eq!(report.blocks.iter().map(|(calls, _)| calls).sum::<u64>(), 64 + 17 + 2, "{target}");
        if target.starts_with("sm") {
            assert_eq!(report.totals().chosen.kernels, 64 * 5 + 17 * 2 + 1 + 2, "{target}");
        }
    }
}

#[test]
fn bytes_are_added_only_where_launches_pay_for_them() {
    for name in nemo_models::builtin_names() {
        for target in TARGETS {
            let explanation = explained(name, target);
            let device = Device::builtin(&explanation.device).expect("it decided");
            for (_, block) in explanation.programs.iter().flat_map(|program| &program.blocks) {
                let added = block.chosen.bytes.saturating_sub(block.off.bytes) as f64;
                let saved = (block.off.kernels - block.chosen.kernels) as f64 * device.launch_us * 1e-6;
                let price = added / (device.bandwidth_gb_s * 1e9);
                assert!(price <= saved, "{name}, {} on {target}: {price} s for {saved} s", block.name);
            }
        }
    }
}
