//! The rooms and the arrows between them.

use std::collections::BTreeMap;

use cargo_metadata::{MetadataCommand, Package};

/// Each room with the rooms it may depend on; an arrow that is not here is a design error.
const ROOMS: [(&str, &[&str]); 8] = [
    ("nemo-models", &[]),
    ("nemo-ir", &[]),
    ("nemo-kernels", &["nemo-ir"]),
    ("nemoc", &["nemo-models", "nemo-ir", "nemo-kernels"]),
    ("nemort", &["nemo-ir"]),
    // Stands alone: it knows PTX and nothing of this project.
    ("ptx-sim", &[]),
    // Runs where there is no LLVM.
    ("nemo-gpu-check", &["nemo-ir", "nemort", "ptx-sim"]),
    (
        "nemo-tests",
        &["nemo-models", "nemo-ir", "nemo-kernels", "nemoc", "nemort", "ptx-sim", "nemo-gpu-check"],
    ),
];

/// Packages that only the named rooms may use.
const KEPT_APART: [(&str, &[&str]); 5] = [
    ("cudarc", &["nemort"]),
    ("egg", &["nemoc"]),
    ("inkwell", &["nemo-kernels"]),
    ("toml", &["nemo-models", "nemoc"]),
    ("tokenizers", &["nemort"]),
];

/// Every kind of dependency counts: a test or build script that crosses a wall crosses it too.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata =
        MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata runs");
    let names = |package: &Package| package.dependencies.iter().map(|d| d.name.clone()).collect();
    metadata.packages.iter().map(|package| (package.name.to_string(), names(package))).collect()
}

#[test]
fn every_room_is_known() {
    let names: Vec<String> = arrows().into_keys().collect();
    let mut known = ROOMS.map(|(name, _)| name.to_owned());
    known.sort();
    assert_eq!(names, known);
}

#[test]
fn no_arrow_between_rooms_but_those_of_the_table() {
    let arrows = arrows();
    for (room, allowed) in ROOMS {
        for target in &arrows[room] {
            let is_room = ROOMS.iter().any(|(name, _)| name == target);
            assert!(!is_room || allowed.contains(&target.as_str()), "{room} must not depend on {target}");
        }
    }
}

#[test]
fn packages_stay_in_their_rooms() {
    for (room, targets) in arrows() {
        for (package, owners) in KEPT_APART {
            assert!(
                !targets.contains(&package.to_owned()) || owners.contains(&room.as_str()),
                "{room} must not use {package}, which belongs to {owners:?}"
            );
        }
    }
}
