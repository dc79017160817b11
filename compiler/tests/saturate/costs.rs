//! More freedom never costs: off, greedy, saturated, on every device.

use nemo_ir::verify::verify_block;
use nemoc::saturate::{Options, Rules, fuse};

use crate::{devices, shipped, situations};

/// Sums of the same kernels in another order differ by as much.
const ROUNDING: f64 = 1e-9;

#[test]
fn saturation_beats_greedy_beats_nothing() {
    for device in &devices() {
        for at in &situations(device) {
            for block in shipped(at.phase) {
                let what = || format!("`{}` on {} at T = {}", block.name, device.name, at.tokens);
                let fused = fuse(&block, at, Options::default())
                    .unwrap_or_else(|error| panic!("{}: {error}", what()));
                let (off, greedy, chosen) = (fused.report.off, fused.report.greedy, fused.report.chosen);
                assert!(off.seconds.is_finite(), "{}", what());
                assert!(greedy.seconds <= off.seconds * (1.0 + ROUNDING), "{}: {greedy:?}, {off:?}", what());
                assert!(
                    chosen.seconds <= greedy.seconds * (1.0 + ROUNDING),
                    "{}: {chosen:?}, {greedy:?}",
                    what()
                );
                assert!(chosen.kernels <= off.kernels, "{}", what());
                verify_block(&fused.block)
                    .unwrap_or_else(|errors| panic!("{}: {errors:?}\n{}", what(), fused.block));
                // The kernels that are told of are those that are built.
                let seconds: f64 = fused.report.kernels.iter().map(|kernel| kernel.seconds).sum();
                assert!((seconds - chosen.seconds).abs() <= chosen.seconds * ROUNDING, "{}", what());
                let saturation = fused.report.saturation.unwrap_or_else(|| panic!("{}", what()));
                assert!(!saturation.limited, "{}: {saturation:?}", what());
            }
        }
    }
}

#[test]
fn each_way_reports_its_own_cost() {
    let device = &devices()[0];
    for at in &situations(device) {
        for block in shipped(at.phase) {
            for rules in Rules::ALL {
                let fused = fuse(&block, at, Options { rules, ..Options::default() });
                let fused = fused.unwrap_or_else(|error| panic!("{error}"));
                verify_block(&fused.block).unwrap_or_else(|errors| panic!("{errors:?}\n{}", fused.block));
                let report = fused.report;
                match rules {
                    Rules::Off => {
                        assert_eq!(report.chosen, report.off);
                        assert!(fused.block == block);
                    }
                    Rules::Greedy => assert_eq!(report.chosen, report.greedy),
                    Rules::Saturate => {}
                }
                assert_eq!(report.saturation.is_some(), rules == Rules::Saturate);
            }
        }
    }
}
