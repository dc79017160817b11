use std::fmt::Write;

use nemo_ir::plan::Limits;

use super::*;

fn target(name: &str, needs: Needs) -> TargetManifest {
    TargetManifest {
        name: name.to_owned(),
        needs,
        limits: Limits { vocab: 1, max_context: 1, max_seqs: 1, chunk: 1 },
        plan: String::new(),
        kernels: String::new(),
        cubin: None,
        fused: Vec::new(),
        explain: None,
    }
}

fn host(name: &str, features: &[&str]) -> TargetManifest {
    target(name, Needs::Host { cpu_features: features.iter().map(|feature| (*feature).to_owned()).collect() })
}

fn cuda(name: &str, capability: (u32, u32), forward: bool, driver: u32) -> TargetManifest {
    target(name, Needs::Cuda(CudaNeeds { capability, forward, ptx: (7, 8), driver }))
}

/// The targets of the tables, by what they are called there.
fn targets(names: &str) -> Vec<TargetManifest> {
    let target = |name| match name {
        "v3" => host("v3", &["avx2"]),
        "v4" => host("v4", &["avx2", "avx512f"]),
        "v9" => host("v9", &["avx9000"]),
        "sm_86" => cuda("sm_86", (8, 6), true, 520),
        "sm_90" => cuda("sm_90", (9, 0), true, 525),
        "sm_90a" => cuda("sm_90a", (9, 0), false, 525),
        _ => panic!("{name}"),
    };
    names.trim_start_matches("--target ").split_whitespace().map(target).collect()
}

fn gpu(name: &str, capability: (u32, u32), driver: u32) -> Facts {
    Facts { name: name.to_owned(), capability, driver }
}

/// The machines of the tables, by what they are called there.
fn gpus(names: &str) -> Result<Vec<Facts>, NoGpus> {
    let gpu = |name| match name {
        "t4" => gpu("T4", (7, 5), 535),
        "a10g" => gpu("A10G", (8, 6), 535),
        "old" => gpu("A10G", (8, 6), 515),
        "l4" => gpu("L4", (8, 9), 535),
        "h100" => gpu("H100", (9, 0), 535),
        "5090" => gpu("RTX 5090", (12, 0), 570),
        _ => panic!("{name}"),
    };
    match names {
        "no-driver" => Err(NoGpus::NoLibrary),
        "driver-11" => Err(NoGpus::TooOld { has: 520, needs: 525 }),
        "broken" => Err(NoGpus::Failed("cuInit: unknown error (CUDA_ERROR_UNKNOWN)".to_owned())),
        names => Ok(names.split_whitespace().map(gpu).collect()),
    }
}

/// A CPU with AVX2 alone.
fn lacks(features: &[String]) -> Vec<&str> {
    features.iter().map(String::as_str).filter(|feature| *feature != "avx2").collect()
}

/// What is chosen, as a line.
fn chosen(names: &str, machine: &str, wanted: Wanted) -> String {
    let targets = targets(names);
    let gpus = gpus(machine);
    let name = names.strip_prefix("--target ");
    match choose(Path::new("m.nemo"), &targets, name, wanted, &Machine { lacks, gpus: &gpus }) {
        Ok(Choice { target, gpu, note }) => {
            let place = gpu.map_or_else(|| "CPU".to_owned(), |gpu| format!("GPU {gpu}"));
            format!("{} on {place}{}", target.name, note.map(|note| format!(" ({note})")).unwrap_or_default())
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn the_best_that_runs() {
    let best = |names, machine| chosen(names, machine, Wanted::Best);
    assert_eq!(best("v3 v4 sm_86 sm_90a", "h100"), "sm_90a on GPU 0");
    assert_eq!(best("sm_90a sm_86 v3", "a10g"), "sm_86 on GPU 0");
    assert_eq!(best("sm_90 sm_90a", "h100"), "sm_90a on GPU 0");
    assert_eq!(best("sm_90a sm_90", "h100"), "sm_90a on GPU 0");
    // Of several GPUs the one that runs the best target, and of equals the first.
    assert_eq!(best("sm_86 sm_90a", "a10g h100 h100"), "sm_90a on GPU 1");
    for machine in ["no-driver", "driver-11", "broken", "", "t4", "old"] {
        assert_eq!(best("v3 v4 sm_86", machine), "v3 on CPU", "{machine}");
    }
    assert_eq!(best("v3", "h100"), "v3 on CPU");
}

#[test]
fn a_device_that_was_asked_for() {
    assert_eq!(chosen("v3 v4 sm_86", "h100", Wanted::Host), "v3 on CPU");
    assert_eq!(chosen("v3 sm_86", "h100 a10g", Wanted::Gpu(Some(1))), "sm_86 on GPU 1");
    assert_eq!(chosen("sm_86 sm_90a", "a10g h100", Wanted::Gpu(None)), "sm_90a on GPU 1");
    assert_eq!(chosen("sm_86 sm_90a", "a10g h100", Wanted::Gpu(Some(0))), "sm_86 on GPU 0");
}

#[test]
fn a_later_gpu_is_told_of() {
    let mut said = String::new();
    for (names, machine) in [("sm_86 sm_90a", "l4"), ("sm_86 sm_90a v3", "5090"), ("sm_86 sm_90", "5090")] {
        writeln!(said, "{}", chosen(names, machine, Wanted::Best)).unwrap();
    }
    insta::assert_snapshot!("later", said);
}

#[test]
fn what_does_not_run_is_told_in_a_sentence() {
    let (any, first, far) = (Wanted::Gpu(None), Wanted::Gpu(Some(0)), Wanted::Gpu(Some(99)));
    let mut said = String::new();
    for (names, machine, wanted) in [
        ("v3 sm_86", "no-driver", any),
        ("v3 sm_86", "driver-11", any),
        ("v3 sm_86", "broken", any),
        ("v3 sm_86", "", any),
        ("v3 sm_86", "", far),
        ("v3 sm_86", "a10g", far),
        ("v3 sm_86", "a10g h100", far),
        ("v3 sm_86 sm_90a", "t4", first),
        ("v3 sm_86 sm_90a", "t4 old", any),
        ("sm_90a", "5090", any),
        ("sm_86", "old", any),
        ("v3 v4", "a10g", any),
        ("v3", "a10g", any),
        ("--target v3", "a10g", any),
        ("sm_86 sm_90a", "a10g", Wanted::Host),
        ("--target sm_86", "a10g", Wanted::Host),
        ("--target sm_90a", "a10g", Wanted::Best),
        ("v9 sm_86", "a10g", Wanted::Host),
        ("v9", "a10g", Wanted::Best),
        ("v9 v4", "no-driver", Wanted::Best),
        ("v9 sm_86", "no-driver", Wanted::Best),
        ("sm_86 sm_90a", "t4", Wanted::Best),
        ("sm_86", "", Wanted::Best),
        ("", "h100", Wanted::Best),
    ] {
        let wanted_name = match wanted {
            Wanted::Best => "best".to_owned(),
            Wanted::Host => "host".to_owned(),
            Wanted::Gpu(number) => format!("cuda {number:?}"),
        };
        writeln!(said, "[{names}] on [{machine}], {wanted_name}:\n  {}", chosen(names, machine, wanted))
            .unwrap();
    }
    insta::assert_snapshot!("refused", said);
}
