//! Importing Hugging Face configurations: written here key by key, in the shape the released files have.

use nemo_models::{ImportError, Mixer, Model, import_hf};
use serde_json::{Map, Value, json};

fn common(architecture: &str, model_type: &str) -> Value {
    json!({
        "architectures": [architecture], "model_type": model_type, "attention_bias": false, "attention_dropout": 0.0,
        "initializer_range": 0.02, "mlp_bias": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "use_cache": true,
    })
}

fn with(mut base: Value, more: Value) -> Value {
    let (Value::Object(map), Value::Object(more)) = (&mut base, more) else { panic!("objects") };
    map.extend(more);
    base
}

/// A configuration of the hybrid family. `mamba` is heads, head width and state.
fn hybrid(
    hidden: u64,
    ffn: u64,
    heads: u64,
    mamba: [u64; 3],
    context: u64,
    eos: u64,
    pattern: &str,
) -> Value {
    with(
        common("NemotronHForCausalLM", "nemotron_h"),
        json!({
            "bos_token_id": 1, "eos_token_id": eos, "pad_token_id": 0, "vocab_size": 131072, "hidden_size": hidden,
            "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": 8,
            "attention_head_dim": 128, "mamba_num_heads": mamba[0], "mamba_head_dim": mamba[1],
            "ssm_state_size": mamba[2], "n_groups": 8, "conv_kernel": 4, "chunk_size": 128, "expand": 2,
            "use_bias": false, "use_conv_bias": true, "mamba_proj_bias": false, "mamba_hidden_act": "silu",
            "mlp_hidden_act": "relu2", "layer_norm_epsilon": 1e-5, "rms_norm_eps": 1e-5, "residual_in_fp32": false,
            "rescale_prenorm_residual": true, "sliding_window": null, "hidden_dropout": 0.0,
            "time_step_floor": 1e-4, "time_step_max": 0.1, "time_step_min": 0.001, "num_logits_to_keep": 1,
            "max_position_embeddings": context, "num_hidden_layers": pattern.len(), "hybrid_override_pattern": pattern,
        }),
    )
}

fn nano_9b() -> Value {
    let pattern = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-";
    hybrid(4480, 15680, 40, [128, 80, 128], 131072, 12, pattern)
}

fn llama_like(architecture: &str, model_type: &str, hidden: u64, heads: u64, factor: f64) -> Value {
    with(
        common(architecture, model_type),
        json!({
            "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "vocab_size": 128256,
            "hidden_size": hidden, "num_attention_heads": heads, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072, "pretraining_tp": 1, "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3",
            },
        }),
    )
}

fn nano_8b() -> Value {
    with(
        llama_like("LlamaForCausalLM", "llama", 4096, 32, 8.0),
        json!({ "head_dim": 128, "intermediate_size": 14336, "num_hidden_layers": 32, "num_key_value_heads": 8 }),
    )
}

/// A searched model. Each entry is the number of layers in a row, whether they have attention, and the FFN multiple.
fn searched(hidden: u64, heads: u64, factor: f64, layers: &[(usize, bool, Option<f64>)]) -> Value {
    let block = |attention: bool, mult: Option<f64>| {
        json!({
            "attention": {
                "n_heads_in_group": attention.then_some(heads / 8), "no_op": !attention, "num_sink_tokens": null,
                "replace_with_linear": false, "sparsify": null, "unshifted_sink": false,
                "use_prefill_window_in_sink_attention": false, "window_length": null,
            },
            "ffn": { "ffn_mult": mult, "no_op": mult.is_none(), "replace_with_linear": false, "sparsify": null },
        })
    };
    let blocks: Vec<Value> =
        layers.iter().flat_map(|(n, attention, mult)| vec![block(*attention, *mult); *n]).collect();
    with(
        llama_like("DeciLMForCausalLM", "nemotron-nas", hidden, heads, factor),
        json!({
            "intermediate_size": null, "num_key_value_heads": null, "num_hidden_layers": blocks.len(),
            "block_configs": blocks,
        }),
    )
}

fn super_49b() -> Value {
    let (a, f) = (true, false);
    let runs = [
        (1, a, 2.625),
        (5, a, 5.25),
        (2, f, 2.625),
        (3, a, 5.25),
        (1, f, 3.28125),
        (30, a, 5.25),
        (1, f, 1.3125),
        (2, f, 2.625),
        (1, f, 1.3125),
        (1, f, 5.25),
        (1, f, 1.3125),
        (1, f, 2.625),
        (3, f, 1.3125),
        (1, a, 5.25),
        (1, f, 1.3125),
        (2, f, 1.0),
        (1, f, 1.3125),
        (3, f, 1.0),
        (2, f, 1.3125),
        (2, f, 0.5),
        (2, f, 1.0),
        (2, f, 0.5),
        (1, f, 1.0),
        (2, f, 0.5),
        (9, a, 5.25),
    ];
    searched(8192, 64, 8.0, &runs.map(|(n, attention, mult)| (n, attention, Some(mult))))
}

fn import(config: &Value) -> Result<Model, ImportError> {
    import_hf(&config.to_string(), "config.json", "imported")
}

/// Name and description are not in a configuration.
fn assert_same(config: &Value, name: &str) {
    let built_in = Model::builtin(name).unwrap();
    let mut imported = import(config).unwrap_or_else(|error| panic!("{name}: {error}"));
    imported.name.clone_from(&built_in.name);
    imported.description.clone_from(&built_in.description);
    assert_eq!(imported, built_in, "{name}");
}

#[test]
fn the_hybrid_family_imports_as_the_built_in_models() {
    assert_same(&nano_9b(), "nemotron-nano-9b-v2");
    assert_same(&with(nano_9b(), json!({ "eos_token_id": 2 })), "nemotron-nano-9b-v2-base");
    let group = "M-M-M-M*-";
    let nano_12b = format!("{}{}{}", group, "M-M-M-M*-".repeat(5), "M-M-M-M-");
    let config = hybrid(5120, 20480, 40, [128, 80, 128], 131072, 12, &nano_12b);
    assert_same(&config, "nemotron-nano-12b-v2");
    assert_same(&with(config, json!({ "eos_token_id": [2] })), "nemotron-nano-12b-v2-base");
    let wide = |groups: usize| format!("M-M-M-M*-{}M-M-M-M-M-", "M-M-M-M-M*-".repeat(groups));
    assert_same(&hybrid(4096, 21504, 32, [128, 64, 128], 8192, 2, &wide(3)), "nemotron-h-8b");
    assert_same(&hybrid(8192, 32768, 64, [256, 64, 256], 8192, 2, &wide(9)), "nemotron-h-56b");
    let pruned = [
        &"M-".repeat(8),
        "M*-",
        &"M-".repeat(9),
        "M*-",
        &"M-M-M-M-M*-".repeat(2),
        &"M-".repeat(6),
        "M---MM---M-M*-M-M-M-M-M-",
    ]
    .concat();
    assert_same(&hybrid(8192, 30720, 64, [256, 64, 256], 8192, 2, &pruned), "nemotron-h-47b");
}

#[test]
fn the_llama_family_imports_as_the_built_in_models() {
    assert_same(&nano_8b(), "llama-3.1-nemotron-nano-8b-v1");
    let nano_4b = with(nano_8b(), json!({ "hidden_size": 3072, "intermediate_size": 9216 }));
    assert_same(&nano_4b, "llama-3.1-nemotron-nano-4b-v1.1");
    assert_same(&super_49b(), "llama-3.3-nemotron-super-49b-v1");
    assert_same(&super_49b(), "llama-3.3-nemotron-super-49b-v1.5");
}

#[test]
fn ultra_imports_as_the_built_in_model() {
    let mut layers: Vec<(usize, bool, Option<f64>)> = vec![(1, false, None); 162];
    let widths: [(f64, &[usize]); 12] = [
        (0.4875, &[0]),
        (0.975, &[1]),
        (1.4625, &[2, 3, 4, 5, 6, 7]),
        (1.95, &[8, 13, 14, 15, 39, 40, 41, 42, 150, 151]),
        (2.4375, &[35, 93, 94, 95, 96, 97, 98, 100, 101, 102, 103, 104, 105, 106, 107, 152, 154, 155, 161]),
        (2.925, &[92, 113]),
        (3.4125, &[87, 88, 89, 156]),
        (36.5625, &[125]),
        (39.0, &[134]),
        (31.40625, &[143]),
        (27.5625, &[149]),
        (4.875, &[16, 17, 24, 25, 26, 32, 33, 34, 43, 44, 86, 114, 115, 116, 157, 158, 159, 160]),
    ];
    let more = [50..=53, 59..=62, 68..=71, 77..=80].into_iter().flatten().map(|layer| (layer, 4.875));
    let listed = widths.iter().flat_map(|(mult, list)| list.iter().map(|layer| (*layer, *mult)));
    for (layer, mult) in listed.chain(more) {
        layers[layer] = (1, true, Some(mult));
    }
    for layer in [42, 44, 96, 97, 100, 101, 102, 103, 104, 105, 106, 115, 125, 134, 143, 149, 150] {
        layers[layer].1 = false;
    }
    assert_same(&searched(16384, 128, 16.0, &layers), "llama-3.1-nemotron-ultra-253b-v1");
}

#[test]
fn qwen3_imports_as_the_built_in_model() {
    let config = with(
        common("Qwen3ForCausalLM", "qwen3"),
        json!({
            "bos_token_id": 151643, "eos_token_id": 151645, "vocab_size": 151936, "hidden_size": 4096,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
            "num_hidden_layers": 36, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000,
            "rope_scaling": null, "max_position_embeddings": 40960, "max_window_layers": 36, "sliding_window": null,
            "use_sliding_window": false,
        }),
    );
    assert_same(&config, "qwen3-8b");
    let windowed = with(config, json!({ "use_sliding_window": true }));
    let error = import(&windowed).unwrap_err().to_string();
    assert_eq!(error, "config.json: `use_sliding_window` is true; supported is false");
}

/// The text of a configuration with one value spelled in a way that JSON does not have.
fn raw(config: &Value, placeholder: &str, spelling: &str) -> String {
    config.to_string().replacen(&format!("\"{placeholder}\""), spelling, 1)
}

#[test]
fn spellings_of_the_same_configuration() {
    let expected = import(&nano_9b()).unwrap();
    for infinity in ["Infinity", "\"Infinity\"", r#"{"__float__": "Infinity"}"#, "1e+308"] {
        let config = with(nano_9b(), json!({ "time_step_limit": [0.0, "HERE"] }));
        let imported = import_hf(&raw(&config, "HERE", infinity), "config.json", "imported");
        assert_eq!(imported.as_ref(), Ok(&expected), "{infinity}");
    }
    let words: Vec<&str> = nano_9b()["hybrid_override_pattern"]
        .as_str()
        .unwrap()
        .chars()
        .map(|letter| match letter {
            'M' => "mamba",
            '*' => "attention",
            _ => "mlp",
        })
        .collect();
    let renamed = |from: &str, to: &str, value: Value| {
        let mut map: Map<String, Value> = nano_9b().as_object().unwrap().clone();
        map.remove(from);
        map.insert(to.to_owned(), value);
        Value::Object(map)
    };
    for config in [
        renamed("hybrid_override_pattern", "layers_block_type", json!(words)),
        renamed("attention_head_dim", "head_dim", json!(128)),
        renamed("torch_dtype", "dtype", json!("bfloat16")),
        renamed("num_hidden_layers", "layers_block_type", json!(words)),
        with(nano_9b(), json!({ "eos_token_id": [12], "time_step_limit": null, "rope_theta": 10000 })),
    ] {
        assert_eq!(import(&config).as_ref(), Ok(&expected));
    }
    let parameters = json!({
        "rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let mut newer = with(nano_8b(), json!({ "rope_scaling": null, "rope_parameters": parameters }));
    newer.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(import(&newer), import(&nano_8b()));
}

#[test]
fn a_time_step_limit_is_followed() {
    let model = import(&with(nano_9b(), json!({ "time_step_limit": [0.001, 0.1] }))).unwrap();
    let Mixer::Mamba2(mamba) = &model.blocks[0].parts[0].mixer else { panic!("a Mamba-2 layer comes first") };
    assert_eq!((mamba.dt_min, mamba.dt_max), (0.001, 0.1));
}

#[test]
fn a_tied_head_and_linear_halves_import() {
    let tied = import(&with(nano_8b(), json!({ "tie_word_embeddings": true }))).unwrap();
    assert_eq!(tied.head.tensor, None);
    assert_eq!(tied.counts().parameters, 8_030_261_248 - 128_256 * 4096);

    let mut config = searched(4096, 32, 8.0, &[(2, true, Some(1.0)), (1, false, None)]);
    let linear = json!({ "no_op": false, "replace_with_linear": true });
    config["block_configs"][1] = json!({ "attention": linear, "ffn": { "no_op": true } });
    let model = import(&config).unwrap();
    let names: Vec<&str> = model.blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["layer", "linear", "empty"]);
    assert!(
        model.tensors().iter().any(|tensor| tensor.name == "model.layers.1.self_attn.linear_attn.weight")
    );
    assert_eq!(Model::parse_toml(&model.to_toml(), "model.toml"), Ok(model));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let tiny = || searched(4096, 32, 8.0, &[(2, true, Some(1.0))]);
    let inner = |half: &str, key: &str, value: Value| {
        let mut config = tiny();
        config["block_configs"][1][half][key] = value;
        config
    };
    let without = |key: &str| {
        let mut config = nano_9b();
        config.as_object_mut().unwrap().remove(key);
        config
    };
    let rope = |kind: &str| with(nano_8b(), json!({ "rope_scaling": { "type": kind, "factor": 2.0 } }));
    let cases = [
        with(nano_9b(), json!({ "model_type": "mixtral" })),
        with(nano_9b(), json!({ "architectures": ["NemotronHForSequenceClassification"] })),
        with(nano_9b(), json!({ "quantization_config": { "quant_method": "fp8" } })),
        with(nano_9b(), json!({ "hybrid_override_pattern": "MEM*", "n_routed_experts": 8 })),
        with(nano_9b(), json!({ "layers_block_type": ["mamba", "moe"] })),
        with(nano_9b(), json!({ "num_hidden_layers": 55 })),
        with(nano_9b(), json!({ "attention_bias": true })),
        with(nano_9b(), json!({ "residual_in_fp32": true })),
        with(nano_9b(), json!({ "sliding_window": 4096 })),
        with(nano_9b(), json!({ "mlp_hidden_act": "silu" })),
        with(nano_9b(), json!({ "num_nextn_predict_layers": 1 })),
        with(nano_9b(), json!({ "rms_norm_eps": 1e-6 })),
        with(nano_9b(), json!({ "head_dim": 64 })),
        with(nano_9b(), json!({ "num_key_value_heads": 7 })),
        with(nano_9b(), json!({ "torch_dtype": "float16" })),
        with(nano_9b(), json!({ "hidden_size": "4480" })),
        with(nano_9b(), json!({ "logits_soft_cap": 30.0 })),
        without("hidden_size"),
        without("hybrid_override_pattern"),
        without("eos_token_id"),
        with(nano_8b(), json!({ "hidden_act": "gelu" })),
        with(nano_8b(), json!({ "num_attention_heads": 33 })),
        rope("yarn"),
        rope("default"),
        inner("attention", "window_length", json!(8192)),
        inner("attention", "n_heads_in_group", json!(5)),
        inner("attention", "sparsify", json!([1])),
        inner("ffn", "moe", json!({ "experts": 8 })),
        inner("ffn", "gated", json!(false)),
        with(tiny(), json!({ "num_hidden_layers": 3 })),
        with(tiny(), json!({ "intermediate_size": 1024 })),
    ];
    let mut sentences: Vec<String> =
        cases.iter().map(|config| import(config).unwrap_err().to_string()).collect();
    for text in ["[1, 2]", "{\n  \"model_type\": nemotron_h\n}", "", "{\"a\": NaN}"] {
        sentences.push(import_hf(text, "config.json", "x").unwrap_err().to_string());
    }
    insta::assert_snapshot!(sentences.join("\n"));
}
