//! The search for the cheapest form against an oracle that tries all of them.

use nemo_ir::graph::Block;
use nemoc::cost::Situation;
use nemoc::saturate::egraph::saturate;
use nemoc::saturate::extract::Forms;
use nemoc::saturate::law::Class;
use nemoc::saturate::term::Terms;
use nemoc::saturate::{Options, fuse};
use proptest::prelude::*;

use crate::{common, devices, lowered, shipped, situations};

/// Tries of the oracle: enough for every shipped block.
const TRIES: usize = 3_000_000;

/// Seconds of the form that is found, and of the best there is; `None` where that is not known.
fn found_and_best(block: &Block, at: &Situation<'_>) -> (f64, Option<f64>) {
    let terms = Terms::of(block);
    let saturated = saturate(&terms, at.phase, Class::Reassociating);
    let forms = Forms::of(&saturated, &terms, at);
    let (choice, seconds) = forms.best();
    assert!((forms.seconds(&choice) - seconds).abs() <= seconds * 1e-12);
    assert!(seconds <= forms.seconds(forms.original()));
    (seconds, forms.exhaustive(TRIES).map(|(_, seconds)| seconds))
}

#[test]
fn the_best_form_of_every_shipped_block_is_found() {
    let (mut known, mut blocks) = (0, 0);
    for device in &devices() {
        for at in &situations(device) {
            for block in shipped(at.phase) {
                let (found, best) = found_and_best(&block, at);
                blocks += 1;
                let Some(best) = best else { continue };
                known += 1;
                let what = format!("`{}` on {} at T = {}", block.name, device.name, at.tokens);
                assert!(found <= best * (1.0 + 1e-9), "{what}: {found} found, {best} possible\n{block}");
            }
        }
    }
    assert_eq!(known, blocks, "the oracle knows {known} of {blocks}");
}

#[test]
fn the_best_form_of_a_tiny_block_is_found() {
    let mut known = 0;
    for device in &devices() {
        for at in &situations(device) {
            for block in lowered(&common::tiny(), at.phase).blocks {
                let (found, best) = found_and_best(&block, at);
                let Some(best) = best else { continue };
                known += 1;
                assert!(found <= best * (1.0 + 1e-9), "`{}`: {found} found, {best} possible", block.name);
            }
        }
    }
    assert!(known > 0, "the oracle knows no block");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_good_form_of_a_drawn_block_is_found(
        model in common::any_model(),
        device in prop::sample::select(devices()),
        situation in 0..4usize,
    ) {
        let at = &situations(&device)[situation];
        for block in lowered(&model, at.phase).blocks {
            let report = fuse(&block, at, Options::default()).unwrap().report;
            prop_assert!(report.chosen.seconds <= report.greedy.seconds * (1.0 + 1e-9), "{}", block);
            prop_assert!(report.chosen.seconds <= report.off.seconds * (1.0 + 1e-9), "{}", block);
            prop_assert!(!report.saturation.unwrap().limited);
            let (found, Some(best)) = found_and_best(&block, at) else { continue };
            prop_assert!(found <= best * 1.01, "{} found, {} possible\n{}", found, best, block);
        }
    }
}
