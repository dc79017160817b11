//! The built-in systems: every file parses, and their sizes are the known ones.

use nemo_models::{Model, builtin_names, builtin_source};

fn model(name: &str) -> Model {
    let source = builtin_source(name).unwrap();
    Model::parse_toml(source, &format!("{name}.toml")).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_built_in_file_parses_and_bears_its_name() {
    for name in builtin_names() {
        let parsed = model(name);
        assert_eq!(parsed.name, name);
        assert_eq!(Model::builtin(name), Some(parsed));
        assert!(builtin_source(name).unwrap().lines().count() < 80, "{name} is long");
    }
    assert_eq!(Model::builtin("nemotron-nano-9b"), None);
    assert_eq!(nemo_models::nearest_builtin("nemotron-nano-9b-v3"), Some("nemotron-nano-9b-v2"));
}

#[test]
fn parameters_are_exact() {
    let known = [
        ("nemotron-nano-9b-v2", 8_888_227_328),
        ("nemotron-nano-9b-v2-base", 8_888_227_328),
        ("nemotron-nano-12b-v2", 12_310_001_152),
        ("nemotron-nano-12b-v2-base", 12_310_001_152),
        ("nemotron-h-8b", 8_100_852_736),
        ("nemotron-h-47b", 46_791_554_816),
        ("nemotron-h-56b", 56_324_350_464),
        ("llama-3.1-nemotron-nano-8b-v1", 8_030_261_248),
        ("llama-3.1-nemotron-nano-4b-v1.1", 4_512_746_496),
        ("llama-3.3-nemotron-super-49b-v1", 49_867_145_216),
        ("llama-3.3-nemotron-super-49b-v1.5", 49_867_145_216),
        ("llama-3.1-nemotron-ultra-253b-v1", 253_401_268_224),
        // 36 blocks of 41,943,040 (attention) + 150,994,944 (FFN) + 8,192 + 256 (norms), two vocabulary matrices, norm.
        ("qwen3-8b", 36 * (41_943_040 + 150_994_944 + 8_192 + 256) + 2 * 151_936 * 4_096 + 4_096),
    ];
    assert_eq!(known.len(), builtin_names().len());
    for (name, parameters) in known {
        let counts = model(name).counts();
        assert_eq!(counts.parameters, parameters, "{name}");
        assert_eq!(counts.bytes, 2 * parameters, "{name}");
    }
}

#[test]
fn cache_sizes_are_the_known_ones() {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let known = [
        // name, KV bytes per token, SSM state bytes, conv state bytes
        ("nemotron-nano-9b-v2", 16 * KIB, 135 * MIB, 27 * 12_288 * 3 * 2),
        ("nemotron-nano-12b-v2", 24 * KIB, 140 * MIB, 28 * 12_288 * 3 * 2),
        ("nemotron-h-8b", 16 * KIB, 96 * MIB, 24 * 10_240 * 3 * 2),
        ("llama-3.1-nemotron-nano-8b-v1", 128 * KIB, 0, 0),
        ("llama-3.1-nemotron-nano-4b-v1.1", 128 * KIB, 0, 0),
        ("llama-3.3-nemotron-super-49b-v1", 196 * KIB, 0, 0),
        ("llama-3.1-nemotron-ultra-253b-v1", 256 * KIB, 0, 0),
    ];
    for (name, kv, ssm, conv) in known {
        let counts = model(name).counts();
        assert_eq!(
            (counts.kv_bytes_per_token, counts.ssm_state_bytes, counts.conv_state_bytes),
            (kv, ssm, conv),
            "{name}"
        );
    }
}

#[test]
fn ultra_has_the_tensors_of_its_released_checkpoint() {
    let ultra = model("llama-3.1-nemotron-ultra-253b-v1");
    let tensors = ultra.tensors();
    assert_eq!(tensors.len(), 647);
    assert_eq!(tensors.iter().filter(|tensor| tensor.shape.len() == 1).count(), 146);
    // The widest fused FFN does not fit 32-bit element offsets.
    let gate = tensors.iter().find(|tensor| tensor.name == "model.layers.134.mlp.gate_proj.weight").unwrap();
    assert_eq!(gate.shape, [425_984, 16_384]);
    assert!(gate.elements() > u64::from(u32::MAX));
    assert!(!tensors.iter().any(|tensor| tensor.name.starts_with("model.layers.9.")));
}

#[test]
fn shapes_of_the_hybrid_family() {
    let nano = model("nemotron-nano-9b-v2");
    let tensors = nano.tensors();
    let shape = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap().shape.clone();
    assert_eq!(shape("backbone.layers.0.mixer.in_proj.weight"), [22_656, 4480]);
    assert_eq!(shape("backbone.layers.0.mixer.conv1d.weight"), [12_288, 1, 4]);
    assert_eq!(shape("backbone.layers.0.mixer.norm.weight"), [10_240]);
    assert_eq!(shape("backbone.layers.14.mixer.q_proj.weight"), [5120, 4480]);
    assert_eq!(shape("backbone.layers.55.mixer.down_proj.weight"), [4480, 15_680]);
    assert_eq!(shape("backbone.norm_f.weight"), [4480]);
    let names: Vec<&str> = nano.blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["mamba", "mlp", "attention"]);
}

#[test]
fn summary_of_the_systems() {
    let mut table = format!(
        "{:<34} {:>15} {:>9} {:>10} {:>9} {:>6}  layers\n",
        "name", "parameters", "GiB", "KV B/token", "SSM MiB", "blocks"
    );
    for name in builtin_names() {
        let system = model(name);
        let c = system.counts();
        table += &format!(
            "{name:<34} {:>15} {:>9.2} {:>10} {:>9.1} {:>6}  {} = {} attention, {} mamba, {} ffn, {} linear, {} empty\n",
            c.parameters,
            c.bytes as f64 / f64::from(1 << 30),
            c.kv_bytes_per_token,
            c.ssm_state_bytes as f64 / f64::from(1 << 20),
            system.blocks.len(),
            c.layers,
            c.attention_layers,
            c.mamba_layers,
            c.ffn_layers,
            c.linear_layers,
            c.empty_layers,
        );
    }
    insta::assert_snapshot!(table);
}
