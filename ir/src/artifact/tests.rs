use std::path::Path;

use proptest::prelude::*;

use super::write::pack;
use super::*;
use crate::plan::{Arg, Block, Call, Kernel, Launch, Phase, Placement, Program, State, StateUnit, Weight};
use crate::rope::RopeTable;
use crate::step::StepInput;

fn program(phase: Phase) -> Program {
    Program {
        phase,
        min_tokens: 1,
        max_tokens: 8,
        max_seqs: 2,
        arena_bytes: 256,
        blocks: vec![Block {
            name: "embed".to_owned(),
            launches: vec![Launch {
                kernel: 0,
                op: "embed".to_owned(),
                args: vec![
                    Arg::Weight(0),
                    Arg::Step(StepInput::Tokens),
                    Arg::Arena(64),
                    Arg::State(0),
                    Arg::Table(0),
                ],
            }],
        }],
        calls: vec![Call { block: 0, layer: None, weights: vec![0], states: vec![0] }],
    }
}

fn plan() -> Plan {
    Plan {
        target: "x86-64-v3".to_owned(),
        limits: Limits { vocab: 32, max_context: 64, max_seqs: 2, chunk: 8 },
        kernels: vec![Kernel { symbol: "k0".to_owned(), what: "embed".to_owned(), args: 5, geometry: None }],
        weights: vec![Weight {
            names: vec!["embed".to_owned()],
            shape: vec![32, 16],
            placement: Placement::InPlace(Dtype::Bf16),
        }],
        states: vec![State {
            name: "layers.0.ssm".to_owned(),
            per: StateUnit::Slot,
            dtype: Dtype::F32,
            shape: vec![4, 4],
        }],
        tables: vec![RopeTable { theta: 1e4, head_dim: 8, positions: 64, scaling: None }],
        workspace: None,
        programs: vec![program(Phase::Decode), program(Phase::Prefill)],
    }
}

fn contents() -> Contents {
    Contents {
        model: "tiny".to_owned(),
        compiler: "nemoc 0.1.0".to_owned(),
        weights: Dtype::Bf16,
        activations: Dtype::Bf16,
        model_toml: "name = \"tiny\"\n".to_owned(),
        targets: vec![TargetContents {
            name: "x86-64-v3".to_owned(),
            needs: Needs::Host { cpu_features: vec!["avx2".to_owned(), "fma".to_owned()] },
            cubin: None,
            plan: plan(),
            object: (0..=255).collect(),
            fused: vec![("decode-1-8".to_owned(), "block embed {}\n".to_owned())],
            explain: Some("{\"laws\": []}".to_owned()),
        }],
    }
}

fn open(bytes: Vec<u8>) -> Result<Artifact, ArtifactError> {
    Artifact::from_bytes(Path::new("out.nemo"), bytes)
}

/// The error of opening, or of reading the target.
fn message(bytes: Vec<u8>) -> String {
    match open(bytes).and_then(|artifact| artifact.target("x86-64-v3").map(|_| ())) {
        Ok(()) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let artifact = open(to_bytes(&contents()).unwrap()).unwrap();
    assert_eq!(artifact.manifest().model, "tiny");
    assert_eq!(artifact.model_toml().unwrap(), "name = \"tiny\"\n");
    let target = artifact.target("x86-64-v3").unwrap();
    assert_eq!(target.plan, plan());
    assert_eq!(target.object, (0..=255).collect::<Vec<u8>>());
    assert_eq!(target.manifest.fused, ["fused/x86-64-v3/decode-1-8.txt"]);
    assert_eq!(artifact.entry("fused/x86-64-v3/decode-1-8.txt").unwrap(), b"block embed {}\n");
    assert_eq!(target.manifest.explain.as_deref(), Some("explain/x86-64-v3.json"));
    assert_eq!(artifact.entry("explain/x86-64-v3.json").unwrap(), b"{\"laws\": []}");
    let names: Vec<_> = artifact.entries().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names.len(), 6);
}

#[test]
fn an_explanation_may_be_absent() {
    let mut contents = contents();
    contents.targets[0].explain = None;
    let artifact = open(to_bytes(&contents).unwrap()).unwrap();
    assert_eq!(artifact.manifest().targets[0].explain, None);
    assert_eq!(artifact.entries().count(), 5);
    let manifest = std::str::from_utf8(artifact.entry(MANIFEST).unwrap()).unwrap();
    assert!(!manifest.contains("explain"), "{manifest}");
}

#[test]
fn same_contents_same_bytes_and_aligned_data() {
    let bytes = to_bytes(&contents()).unwrap();
    assert_eq!(bytes, to_bytes(&contents()).unwrap());
    let artifact = open(bytes).unwrap();
    for (name, _) in artifact.entries() {
        let offset = artifact.entry(name).unwrap().as_ptr() as usize - artifact.bytes_start();
        assert_eq!(offset % 64, 0, "{name}");
    }
}

#[test]
fn a_file_on_disk() {
    let dir = std::env::temp_dir().join(format!("nemo-artifact-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("a.nemo");
    write(&path, &contents()).unwrap();
    assert!(Artifact::open(&path).is_ok());
    let absent = Artifact::open(&dir.join("b.nemo")).unwrap_err().to_string();
    assert!(absent.contains("b.nemo") && absent.contains("cannot read"), "{absent}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_flipped_byte_names_its_entry() {
    let bytes = to_bytes(&contents()).unwrap();
    let artifact = open(bytes.clone()).unwrap();
    let offset = artifact.entry("kernels/x86-64-v3.o").unwrap().as_ptr() as usize - artifact.bytes_start();
    let mut damaged = bytes;
    damaged[offset + 3] ^= 1;
    let message = message(damaged);
    assert!(message.contains("`kernels/x86-64-v3.o`: blake3 is"), "{message}");
    assert!(message.contains("wants"), "{message}");
}

#[test]
fn not_a_zip_and_truncated() {
    assert!(message(b"hello".to_vec()).contains("not a nemoc artifact"));
    let mut bytes = to_bytes(&contents()).unwrap();
    bytes.truncate(bytes.len() - 40);
    assert!(message(bytes).contains("damaged or truncated"));
}

#[test]
fn another_format_says_so_before_anything_else() {
    let of_format = |format: u32| {
        let manifest = format!("{{\"format\": {format}, \"shape\": \"unknown\"}}").into_bytes();
        message(pack(&[(MANIFEST.to_owned(), manifest)]).unwrap())
    };
    let newer = "artifact `out.nemo` has format 7, this runtime reads 3: use a newer nemort";
    assert_eq!(of_format(7), newer);
    let older = "artifact `out.nemo` has format 1, this runtime reads 3: compile it anew";
    assert_eq!(of_format(1), older);
}

#[test]
fn a_missing_target_lists_those_there_are() {
    let artifact = open(to_bytes(&contents()).unwrap()).unwrap();
    let message = artifact.target("sm_90").unwrap_err().to_string();
    assert_eq!(message, "artifact `out.nemo` has no target `sm_90`; it has `x86-64-v3`");
}

#[test]
fn entries_come_with_digests_and_digests_with_entries() {
    let good = open(to_bytes(&contents()).unwrap()).unwrap();
    let mut entries: Vec<(String, Vec<u8>)> =
        good.entries().map(|(name, _)| (name.to_owned(), good.entry(name).unwrap().to_vec())).collect();
    entries.push(("extra".to_owned(), vec![1]));
    assert!(message(pack(&entries).unwrap()).contains("no digest"));
    entries.retain(|(name, _)| name != "extra" && name != MODEL);
    assert!(message(pack(&entries).unwrap()).contains("no entry `model.toml`; it has"));
    entries.retain(|(name, _)| name != MANIFEST);
    assert!(message(pack(&entries).unwrap()).contains("no entry `manifest.json`"));
}

#[test]
fn names_that_are_no_names_are_refused() {
    let mut bad = contents();
    bad.targets[0].name = "../x".to_owned();
    assert!(to_bytes(&bad).unwrap_err().to_string().contains("`../x` cannot be part"));
    let mut twice = contents();
    twice.targets.push(twice.targets[0].clone());
    assert!(to_bytes(&twice).unwrap_err().to_string().contains("is there twice"));
    let mut other = contents();
    other.targets[0].plan.target = "sm_90".to_owned();
    assert!(to_bytes(&other).unwrap_err().to_string().contains("is for `sm_90`"));
}

#[test]
fn plan_faults_name_their_place() {
    type Damage = fn(&mut Plan);
    let cases: &[(Damage, &str)] = &[
        (|plan| plan.limits.vocab = 0, "limits.vocab: 0 is not in"),
        (|plan| plan.kernels[0].symbol.clear(), "kernels[0]: it has no symbol"),
        (|plan| plan.weights[0].names.clear(), "weights[0]: it has no name"),
        (|plan| plan.weights[0].shape = vec![u64::MAX, 2], "is too large"),
        (|plan| plan.states[0].shape[1] = 0, "state `layers.0.ssm`: shape [4, 0] has an extent of 0"),
        (|plan| plan.tables[0].positions = 8, "tables[0]: 8 positions are fewer than max_context 64"),
        (|plan| plan.tables[0].head_dim = 7, "tables[0]: head_dim 7"),
        (|plan| plan.tables[0].theta = f64::NAN, "tables[0]: theta"),
        (|plan| plan.programs.truncate(1), "programs: there is no prefill program"),
        (
            |plan| plan.programs[0].phase = Phase::Prefill,
            "program `prefill` 1..=8: a prefill program before it serves 1..=8 tokens too",
        ),
        (|plan| plan.programs[1].max_tokens = 0, "program `prefill` 1..=0: 1..=0 is no range of tokens"),
        (|plan| plan.programs[1].min_tokens = 0, "0..=8 is no range of tokens in 1..="),
        (|plan| plan.programs[1].max_tokens = 1 << 31, "1..=2147483648 is no range of tokens in 1..="),
        (|plan| plan.programs[1].max_seqs = 3, "max_seqs is 3, but its largest steps have 2 sequences"),
        (|plan| plan.programs[1].max_seqs = 1, "max_seqs is 1, but its largest steps have 2 sequences"),
        (|plan| plan.programs[1].arena_bytes = 64, "offset 64 is past the arena of 64 bytes"),
        (|plan| plan.programs[1].arena_bytes = u64::MAX, "is too large"),
        (|plan| plan.programs[1].blocks[0].launches[0].kernel = 1, "kernel 1, of which there are 1"),
        (|plan| plan.kernels[0].args = 6, "launch 0 (embed): it has 5 arguments, but the kernel takes 6"),
        (|plan| plan.tables.clear(), "table 0, of which there are 0"),
        (|plan| plan.programs[1].calls[0].block = 5, "program `prefill` 1..=8, call 0: block 5"),
        (|plan| plan.programs[1].calls[0].weights[0] = 5, "weight 5"),
        (|plan| plan.programs[1].calls[0].weights.clear(), "bound weight 0"),
        (|plan| plan.programs[1].calls[0].states[0] = 5, "state 5"),
        (|plan| plan.programs[1].calls[0].states.clear(), "bound state 0"),
    ];
    validate(&plan()).unwrap();
    for (damage, wanted) in cases {
        let mut plan = plan();
        damage(&mut plan);
        let message = validate(&plan).unwrap_err().to_string();
        assert!(message.contains(wanted), "wanted {wanted:?}, got {message:?}");
    }
}

/// A plan with a program of `phase` for each range, beside a whole one of the other phase.
fn split(phase: Phase, ranges: &[(u64, u64)]) -> Plan {
    let mut plan = plan();
    plan.programs.retain(|program| program.phase != phase);
    plan.programs.extend(ranges.iter().map(|(first, last)| Program {
        min_tokens: *first,
        max_tokens: *last,
        max_seqs: plan.limits.max_seqs.min(*last),
        ..program(phase)
    }));
    plan
}

#[test]
fn ranges_follow_each_other() {
    let check =
        |ranges: &[(u64, u64)]| validate(&split(Phase::Decode, ranges)).map_err(|fault| fault.to_string());
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[(1, 1), (2, 4), (5, 8)]), Ok(()));
    for (ranges, wanted) in [
        (&[(2, 8)][..], "program `decode` 2..=8: no decode program before it serves 1..=1 tokens"),
        (&[(1, 2), (4, 8)], "program `decode` 4..=8: no decode program before it serves 3..=3 tokens"),
        (&[(1, 4), (3, 8)], "program `decode` 3..=8: a decode program before it serves 3..=4 tokens too"),
        (&[(1, 8), (2, 3)], "program `decode` 2..=3: a decode program before it serves 2..=3 tokens too"),
        (&[(5, 8), (1, 4)], "program `decode` 5..=8: no decode program before it serves 1..=4 tokens"),
        (&[(1, 2), (4, 3)], "program `decode` 4..=3: 4..=3 is no range of tokens in 1..=2147483647"),
    ] {
        assert_eq!(check(ranges), Err(wanted.to_owned()));
    }
    let prefill = validate(&split(Phase::Prefill, &[(9, 16)])).unwrap_err().to_string();
    assert!(prefill.ends_with("no prefill program before it serves 1..=8 tokens"), "{prefill}");
}

/// A flipped bit is refused, or changes only what nobody reads: times, permissions and the local copies
/// of names in the zip's own records, and the padding before an entry.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let bytes = to_bytes(&contents()).unwrap();
    let good = open(bytes.clone()).unwrap();
    let all = |artifact: &Artifact| -> Vec<(String, Vec<u8>)> {
        artifact
            .entries()
            .map(|(name, _)| (name.to_owned(), artifact.entry(name).unwrap().to_vec()))
            .collect()
    };
    let wanted = all(&good);
    let mut guarded = vec![false; bytes.len()];
    for (name, _) in good.entries() {
        let start = good.entry(name).unwrap().as_ptr() as usize - good.bytes_start();
        guarded[start..start + good.entry(name).unwrap().len()].fill(true);
    }
    for (at, guarded) in guarded.into_iter().enumerate() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let Ok(found) = open(damaged) else { continue };
            assert!(!guarded, "byte {at}, bit {bit} of an entry");
            assert_eq!(found.manifest(), good.manifest(), "byte {at}, bit {bit}");
            assert!(all(&found) == wanted, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_damaged_manifest_says_so() {
    let mut bytes = to_bytes(&contents()).unwrap();
    let at = bytes.windows(4).position(|window| window == b"tiny").unwrap();
    bytes[at] ^= 1;
    let message = message(bytes);
    assert!(message.contains("entry `manifest.json`: it is damaged"), "{message}");
}

#[test]
fn nothing_follows_the_end() {
    let good = to_bytes(&contents()).unwrap();
    for (more, wanted) in [(&b"x"[..], "1 byte follows"), (b"0123456789", "10 bytes follow")] {
        let message = message([&good, more].concat());
        assert!(message.contains(wanted), "{message}");
    }
    // A comment, which zip files may end with.
    let mut comment = [&good[..], b"xy"].concat();
    let length = comment.len() - 4;
    comment[length] = 2;
    assert!(message(comment).contains("2 bytes follow"));
    assert!(message(Vec::new()).ends_with("it is empty"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut zip = b"PK\x03\x04".to_vec();
        zip.extend(&bytes);
        let _ = message(bytes);
        let _ = message(zip);
    }

    #[test]
    fn each_size_of_a_step_has_one_program(lengths in proptest::collection::vec(1u64..40, 1..8)) {
        let mut ranges = Vec::new();
        let mut next = 1;
        for length in lengths {
            ranges.push((next, next + length - 1));
            next += length;
        }
        for phase in Phase::ALL {
            let plan = split(phase, &ranges);
            prop_assert_eq!(validate(&plan), Ok(()));
            for tokens in 1..next {
                let serving = plan
                    .programs
                    .iter()
                    .enumerate()
                    .filter(|(_, program)| program.phase == phase && program.tokens().contains(&tokens));
                let serving: Vec<_> = serving.map(|(index, _)| index).collect();
                prop_assert_eq!(serving.len(), 1);
                prop_assert_eq!(plan.program_for(phase, tokens), Some(serving[0]));
            }
            prop_assert_eq!(plan.program_for(phase, 0), None);
            prop_assert_eq!(plan.program_for(phase, next), None);
        }
    }

    #[test]
    fn ranges_pass_only_where_each_size_has_one_program(
        ranges in proptest::collection::vec((0u64..5, 0u64..5), 1..4),
    ) {
        let plan = split(Phase::Decode, &ranges);
        let serving = |tokens: u64| ranges.iter().filter(|(a, b)| (*a..=*b).contains(&tokens)).count();
        let last = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
        let each = (1..=last).all(|tokens| serving(tokens) == 1);
        let ascending = ranges.is_sorted() && ranges.iter().all(|(a, b)| 1 <= *a && a <= b);
        prop_assert_eq!(validate(&plan).is_ok(), each && ascending);
    }

    #[test]
    fn truncation_is_noticed(at in any::<prop::sample::Index>()) {
        let mut bytes = to_bytes(&contents()).unwrap();
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(message(bytes) != "no error");
    }
}
