//! Every law by execution: both sides on drawn shapes, tensors, states and ragged steps.
//!
//! A file per family has a case for each law of that family's table. A law without a case fails
//! `every_law_has_a_case`, and so the build: nobody adds an equation that has not been tried.

mod attention;
mod execute;
mod ffn;
mod head;
mod kit;
mod linear;
mod norm;
mod planted;
mod scan;
mod sides;

use std::collections::BTreeSet;

use kit::Case;
use nemoc::saturate::laws;

/// Drawn cases of each law.
const DRAWS: u64 = 240;

/// The cases of a family, by the law's name.
type Cases = &'static [(&'static str, Case)];

fn cases() -> impl Iterator<Item = &'static (&'static str, Case)> {
    [norm::CASES, linear::CASES, ffn::CASES, scan::CASES, attention::CASES, head::CASES].into_iter().flatten()
}

#[test]
fn every_law_has_a_case() {
    let laws: BTreeSet<&str> = laws::table().map(|law| law.name).collect();
    let tried: BTreeSet<&str> = cases().map(|(name, _)| *name).collect();
    assert_eq!(tried.len(), cases().count(), "a law has two cases");
    let without: Vec<_> = laws.difference(&tried).collect();
    assert!(without.is_empty(), "no case in tests/laws tries {without:?}");
    let unknown: Vec<_> = tried.difference(&laws).collect();
    assert!(unknown.is_empty(), "tests/laws tries {unknown:?}, which no table has");
}

fn family(cases: Cases) {
    for (name, case) in cases {
        let Some(parsed) = laws::parsed().iter().find(|parsed| parsed.law.name == *name) else { continue };
        for seed in 0..DRAWS {
            if let Err(fault) = execute::run(parsed, *case, seed) {
                panic!("law `{name}` does not hold, draw {seed}: {fault:?}");
            }
        }
    }
}

#[test]
fn laws_of_norm_hold() {
    family(norm::CASES);
}

#[test]
fn laws_of_linear_hold() {
    family(linear::CASES);
}

#[test]
fn laws_of_ffn_hold() {
    family(ffn::CASES);
}

#[test]
fn laws_of_scan_hold() {
    family(scan::CASES);
}

#[test]
fn laws_of_attention_hold() {
    family(attention::CASES);
}

#[test]
fn laws_of_head_hold() {
    family(head::CASES);
}
