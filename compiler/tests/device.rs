//! Device files: the built-in ones, their round trip, and what is said of wrong ones.

use std::path::Path;

use nemoc::device::{Device, DeviceError, Efficiency, Kind, Peak, machine_memory};
use proptest::prelude::*;
use proptest::sample::Index;

fn a10g() -> String {
    Device::builtin("a10g").unwrap().to_toml()
}

#[test]
fn every_built_in_device_parses_and_bears_its_name() {
    assert_eq!(Device::builtin_names(), ["a10g", "h100", "h200", "x86-64-v3", "x86-64-v4"]);
    for name in Device::builtin_names() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("devices/{name}.toml"));
        let device = Device::read(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((device.name.as_str(), Some(&device)), (name, Device::builtin(name).as_ref()));
        assert_eq!(device.kind == Kind::Gpu, device.memory_bytes.is_some(), "{name}");
        assert_eq!(Device::parse(&device.to_toml(), name), Ok(device));
    }
    assert_eq!(Device::builtin("b200"), None);
}

#[test]
fn targets_have_a_device() {
    let name = |target: &str| Device::for_target(target).map(|device| device.name);
    for (target, device) in [
        ("sm_86", "a10g"),
        ("sm_90", "h100"),
        ("x86-64-v3", "x86-64-v3"),
        ("x86-64-v4", "x86-64-v4"),
        ("x86-64-v4+avx512bf16+avx512vnni", "x86-64-v4"),
    ] {
        assert_eq!(name(target).as_deref(), Some(device), "{target}");
    }
    assert_eq!(name("sm_100"), None);
}

#[test]
fn host_is_a_device_with_memory() {
    match Device::host() {
        Ok(device) => {
            assert_eq!((device.name.as_str(), device.kind), ("host", Kind::Cpu));
            assert_eq!(device.memory_bytes, machine_memory());
        }
        Err(error) => assert!(matches!(error, DeviceError::Host(_)), "{error}"),
    }
}

#[test]
fn what_is_said_of_wrong_files() {
    let replaced = |from: &str, to: &str| {
        let text = a10g();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let texts = [
        String::new(),
        "units".to_owned(),
        "name = \"a\"\nname = \"b\"\n".to_owned(),
        replaced("units = 80", "units = 0"),
        replaced("units = 80", "units = -80"),
        replaced("units = 80", "units = 8.5"),
        replaced("units = 80", "units = \"many\""),
        replaced("units = 80", "unites = 80"),
        replaced("units = 80\n", ""),
        replaced("bandwidth_gb_s = 600.0", "bandwidth_gb_s = nan"),
        replaced("bandwidth_gb_s = 600.0", "bandwidth_gb_s = inf"),
        replaced("launch_us = 2.5", "launch_us = 0"),
        replaced("vector_gflop_s = 15500.0", "vector_gflop_s = -1.5"),
        replaced("f32 = 31000.0", "f32 = true"),
        replaced("f32 = 31000.0", "f64 = 31000.0"),
        replaced("scan = 0.3", "scan = 1.01"),
        replaced("scan = 0.3", "scan = nan"),
        replaced("kind = \"gpu\"", "kind = \"tpu\""),
        replaced("kind = \"gpu\"", "kind = \"cpu\""),
        replaced("target = \"sm_86\"", "target = \"sm_100\""),
        replaced("name = \"a10g\"", "name = \"\""),
        replaced("memory_bytes = 23686744637\n", ""),
        replaced("memory_bytes = 23686744637", "memory_bytes = 99999999999999999999"),
    ];
    let mut said = String::new();
    for text in texts {
        let error = Device::parse(&text, "mine.toml").unwrap_err();
        said.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn what_is_said_of_unknown_names() {
    let mut said = String::new();
    for name in ["a10", "H100", "nvidia-h100-sxm", "h20", "sm_86", "x86-64-v5", "tpu", "", "absent.toml", "/"]
    {
        said.push_str(&format!("{}\n", Device::find(name).unwrap_err()));
    }
    insta::assert_snapshot!(said);
}

fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![1e-3..1e7, prop::num::f64::POSITIVE, Just(1.0), Just(1e300)]
        .prop_filter("rates are finite and above 0", |rate: &f64| rate.is_finite() && *rate > 0.0)
}

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), 1e-6..1.0]
}

prop_compose! {
    fn any_device()(
        name in "[ -~é→]{0,20}[a-z\"'\\\\#]",
        (kind, target) in prop_oneof![
            Just((Kind::Gpu, "sm_86")), Just((Kind::Gpu, "sm_90")),
            Just((Kind::Cpu, "x86-64-v3")), Just((Kind::Cpu, "x86-64-v4")),
        ],
        counts in prop::array::uniform5(1..=i64::MAX as u64),
        rates in prop::array::uniform6(rate()),
        shares in prop::array::uniform6(share()),
        stated in any::<bool>(),
    ) -> Device {
        Device {
            name,
            target: target.to_owned(),
            kind,
            units: counts[0],
            bandwidth_gb_s: rates[0],
            cache_bandwidth_gb_s: rates[1],
            cache_bytes: counts[1],
            products_gflop_s: Peak { bf16: rates[2], f32: rates[3] },
            vector_gflop_s: rates[4],
            launch_us: rates[5],
            work_space_bytes: counts[2],
            registers: counts[3],
            memory_bytes: (stated || kind == Kind::Gpu).then_some(counts[4]),
            efficiency: Efficiency {
                products: shares[0],
                scan: shares[1],
                attention: shares[2],
                elementwise: shares[3],
                memory: shares[4],
                cache: shares[5],
            },
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(device in any_device()) {
        let text = device.to_toml();
        prop_assert_eq!(Device::parse(&text, "drawn.toml"), Ok(device), "{}", text);
    }

    #[test]
    fn no_text_panics(at in any::<Index>(), length in 0usize..40, new in "[ -~\n]{0,8}|nan|inf|-1|1e999|é") {
        let mut chars: Vec<char> = a10g().chars().collect();
        let start = at.index(chars.len() + 1);
        let end = (start + length).min(chars.len());
        chars.splice(start..end, new.chars());
        let text: String = chars.into_iter().collect();
        if let Err(error) = Device::parse(&text, "drawn.toml") {
            let message = error.to_string();
            prop_assert!(message.starts_with("device file `drawn.toml`, line "), "{}", message);
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
        }
    }
}
