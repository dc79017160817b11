//! The cases of the instruction set.

mod direct;

use std::collections::HashSet;
use std::fs;

use ptx_sim::isa::{self, Case, Mismatch, Param};
use ptx_sim::tensor::tma_map::{TensorMap, TensorSpec};

fn names(cases: &[Case]) -> HashSet<&str> {
    cases.iter().map(|case| case.name.as_str()).collect()
}

#[test]
fn cases_are_well_formed() {
    let cases = isa::cases();
    assert_eq!(names(&cases).len(), cases.len(), "names are unique");
    for case in &cases {
        let name = &case.name;
        assert!(case.ptx.contains(&format!(".visible .entry {}(", case.kernel)), "{name}: no such kernel");
        let parameters = case.ptx.matches(&format!(" {}_", case.kernel)).count();
        assert!(parameters >= case.params.len(), "{name}: more parameters than the kernel has");
        assert!(
            !case.ptx.contains(&format!("{}_{}", case.kernel, case.params.len())),
            "{name}: too few parameters"
        );
        assert!(case.outputs().next().is_some(), "{name}: checks nothing");
        for param in &case.params {
            match param {
                Param::Output { initial, expected, .. } => {
                    assert_eq!(initial.len(), expected.len(), "{name}");
                    assert!(expected.len().is_multiple_of(4), "{name}: outputs are words");
                    assert_ne!(initial, expected, "{name}: a kernel that does nothing would pass");
                }
                Param::Tensor { buffer, spec } => {
                    let memory = match &case.params[*buffer] {
                        Param::Input(bytes) | Param::Output { expected: bytes, .. } => bytes.len() as u64,
                        other => panic!("{name}: {other:?} is no memory"),
                    };
                    TensorMap::new(*spec).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(spec.address + last_byte(spec) < memory, "{name}: the tensor leaves its memory");
                }
                Param::Value(bytes) => assert!([4, 8].contains(&bytes.len()), "{name}"),
                Param::Input(bytes) => assert!(!bytes.is_empty(), "{name}"),
            }
        }
    }
}

fn last_byte(spec: &TensorSpec) -> u64 {
    let outer: u64 = (1..spec.rank).map(|i| (spec.dims[i] - 1) * spec.strides[i - 1]).sum();
    outer + spec.dims[0] * u64::from(spec.dtype.bytes()) - 1
}

#[test]
fn comparison_finds_what_differs() {
    let cases = isa::cases();
    let exact = cases.iter().find(|case| case.name == "mma_bf16_k16_exact").expect("a case");
    let outputs: Vec<Vec<u8>> = exact.outputs().map(|(bytes, _)| bytes.to_vec()).collect();
    assert_eq!(exact.compare(&outputs), Ok(()));
    let mut wrong = outputs;
    wrong[0][9] ^= 1;
    assert!(matches!(exact.compare(&wrong), Err(Mismatch::Word { at: 8, count: 1, .. })));
    wrong[0].pop();
    assert!(matches!(exact.compare(&wrong), Err(Mismatch::Length { .. })));
    assert!(matches!(exact.compare(&[]), Err(Mismatch::Outputs { found: 0, .. })));

    let rounded = cases.iter().find(|case| case.name == "mma_bf16_k16_rounded").expect("a case");
    let mut near: Vec<Vec<u8>> = rounded.outputs().map(|(bytes, _)| bytes.to_vec()).collect();
    near[0][0] ^= 1;
    assert_eq!(rounded.compare(&near), Ok(()), "one last place off");
    near[0][3] ^= 0x80;
    assert!(matches!(rounded.compare(&near), Err(Mismatch::Word { at: 0, .. })));
    near[0][2..4].copy_from_slice(&[0xc0, 0x7f]);
    assert!(matches!(rounded.compare(&near), Err(Mismatch::Word { at: 0, .. })), "NaN is near nothing");
}

#[test]
fn dumped_files_hold_the_cases() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("isa-cases");
    let cases = isa::cases();
    assert_eq!(isa::dump::dump(&cases, &folder).expect("a folder to write to"), cases.len());
    let table = fs::read(folder.join("cases.json")).expect("the table");
    let table: serde_json::Value = serde_json::from_slice(&table).expect("JSON");
    for (entry, case) in table.as_array().expect("a list").iter().zip(&cases) {
        assert_eq!(entry["name"], case.name.as_str());
        let text =
            fs::read_to_string(folder.join(entry["ptx"].as_str().expect("a name"))).expect("the module");
        assert_eq!(text, case.ptx);
        for (param, expected) in entry["params"].as_array().expect("a list").iter().zip(&case.params) {
            let read =
                |key: &str| fs::read(folder.join(param[key].as_str().expect("a name"))).expect("a file");
            match expected {
                Param::Input(bytes) => assert_eq!(&read("bytes"), bytes),
                Param::Output { initial, expected, .. } => {
                    assert_eq!((&read("initial"), &read("expected")), (initial, expected));
                }
                Param::Tensor { buffer, spec } => {
                    assert_eq!(param["buffer"], *buffer);
                    assert_eq!(param["spec"]["offset"], spec.address);
                }
                Param::Value(bytes) => assert_eq!(param["hex"].as_str().map(str::len), Some(2 * bytes.len())),
            }
        }
    }
}
