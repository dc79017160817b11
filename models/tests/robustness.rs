//! No input makes the readers panic, and a written model reads back as itself.

use nemo_models::{
    Activation, Attention, Block, Dtype, Embedding, Ffn, Head, Linear, Llama3Scaling, Mamba2, Mixer, Model,
    Norm, Part, QkNorm, Rope, builtin_names, builtin_source, import_hf,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Replaces a stretch of a text with another one.
fn mutate(text: &str, edits: &[(Index, usize, String)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, new) in edits {
        let start = at.index(chars.len() + 1);
        let end = (start + length).min(chars.len());
        chars.splice(start..end, new.chars());
    }
    chars.into_iter().collect()
}

fn snippet() -> impl Strategy<Value = String> {
    let words = vec![
        "",
        "0",
        "-1",
        "99999999999999999999",
        "18446744073709551615",
        "1e999",
        "inf",
        "nan",
        "true",
        "\"",
        "\"\"\"",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ",",
        "\n",
        "#",
        "\\",
        "{}",
        "{layer}",
        "é",
        "\u{0}",
        "\"0-4096\"",
        "'M'",
        "Infinity",
        "NaN",
        "null",
        "[]",
        "{}}",
        "1979-05-27",
        "mlp",
        "block",
        "as",
        "at",
        ".",
        "width = 0\n",
    ];
    prop_oneof![3 => select(words).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn edits() -> impl Strategy<Value = Vec<(Index, usize, String)>> {
    prop::collection::vec((any::<Index>(), 0usize..12, snippet()), 1..6)
}

const CONFIG: &str = r#"{"model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"], "hidden_size": 64,
"vocab_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 512, "bos_token_id": 1,
"eos_token_id": [2], "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "torch_dtype": "float32",
"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
"original_max_position_embeddings": 128}, "block_configs": [
{"attention": {"n_heads_in_group": 2, "no_op": false}, "ffn": {"ffn_mult": 1.3, "no_op": false}},
{"attention": {"no_op": true}, "ffn": {"no_op": true}}]}"#;

const HYBRID: &str = r#"{"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 96, "num_attention_heads": 4,
"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "mamba_num_heads": 8, "mamba_head_dim": 16,
"n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "time_step_limit": [0.0, Infinity], "eos_token_id": 2,
"layer_norm_epsilon": 1e-05, "max_position_embeddings": 512, "torch_dtype": "bfloat16", "num_hidden_layers": 4,
"hybrid_override_pattern": "M-*-"}"#;

fn eps() -> impl Strategy<Value = f64> {
    select(&[1e-5, 1e-6, 3.25e-4][..])
}

fn tensor_name() -> impl Strategy<Value = String> {
    "[a-zA-Z_]{1,6}(\\.[a-z0-9_]{1,5}){0,2}"
}

/// Names for some roles: from a template, or each of its own.
fn roles(roles: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let template = "[a-z.]{0,5}";
    prop_oneof![
        (template, template).prop_map(move |(before, after)| {
            roles.iter().map(|role| format!("{before}{role}{after}")).collect()
        }),
        prop::collection::vec(tensor_name(), roles.len()),
    ]
}

fn attention() -> impl Strategy<Value = Mixer> {
    let rope =
        (1.0f64..1e7, proptest::option::of((1.0f64..32.0, 1u64..100_000))).prop_map(|(theta, scaling)| {
            Rope {
                theta,
                scaling: scaling.map(|(factor, original_context)| Llama3Scaling {
                    factor,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.5,
                    original_context,
                }),
            }
        });
    let qk_norm = (eps(), roles(&["q", "k"])).prop_map(|(eps, names)| QkNorm {
        eps,
        q_tensor: format!("qn.{}", names[0]),
        k_tensor: format!("kn.{}", names[1]),
    });
    (
        (1u64..4, 1u64..4, 1u64..64),
        proptest::option::of(rope),
        proptest::option::of(qk_norm),
        proptest::option::of(1u64..4096),
        roles(&["q", "k", "v", "o"]),
    )
        .prop_map(|((kv_heads, share, half_dim), rope, qk_norm, window, names)| {
            Mixer::Attention(Attention {
                heads: kv_heads * share,
                kv_heads,
                head_dim: 2 * half_dim,
                rope,
                qk_norm,
                window,
                q: names[0].clone(),
                k: names[1].clone(),
                v: names[2].clone(),
                o: names[3].clone(),
            })
        })
}

fn mamba2() -> impl Strategy<Value = Mixer> {
    let names = prop::collection::vec(tensor_name(), 8);
    let limit = select(&[(0.0, f64::INFINITY), (0.001, 0.1)][..]);
    ((1u64..8, 1u64..8, 1u64..64, 1u64..64, 1u64..9), any::<bool>(), limit, eps(), names).prop_map(
        |((groups, share, head_dim, state, conv), conv_bias, (dt_min, dt_max), norm_eps, names)| {
            Mixer::Mamba2(Mamba2 {
                heads: groups * share,
                head_dim,
                state,
                groups,
                conv,
                conv_bias,
                dt_min,
                dt_max,
                norm_eps,
                in_proj: names[0].clone(),
                conv_weight: names[1].clone(),
                conv_bias_tensor: if conv_bias { names[2].clone() } else { String::new() },
                dt_bias: names[3].clone(),
                a_log: names[4].clone(),
                d: names[5].clone(),
                norm: names[6].clone(),
                out_proj: names[7].clone(),
            })
        },
    )
}

/// Few names and widths, so that blocks alike in all but the width are common.
fn ffn() -> impl Strategy<Value = Mixer> {
    (1u64..5, any::<bool>(), prop_oneof![3 => Just(vec!["g".to_owned(), "u".to_owned(), "d".to_owned()]), 1 => roles(&["gate", "up", "down"])])
        .prop_map(|(width, gated, names)| {
            Mixer::Ffn(Ffn {
                width,
                activation: if gated { Activation::SwiGlu } else { Activation::Relu2 },
                gate: gated.then(|| names[0].clone()),
                up: names[1].clone(),
                down: names[2].clone(),
            })
        })
}

fn part() -> impl Strategy<Value = Part> {
    let mixer = prop_oneof![
        2 => attention(),
        1 => mamba2(),
        4 => ffn(),
        1 => tensor_name().prop_map(|tensor| Mixer::Linear(Linear { tensor })),
    ];
    let norm = (select(&[1e-5, 1e-5, 1e-6][..]), select(&["norm_a", "norm_b"][..]));
    (norm, mixer)
        .prop_map(|((eps, tensor), mixer)| Part { norm: Norm { eps, tensor: tensor.to_owned() }, mixer })
}

fn block_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9_]{0,5}",
        "(block|layer|mlp|ffn)(_[1-4]){0,2}",
        select(&["attention", "mlp", "mamba", "linear", "mlp_2", "mlp_1", "mlp_2_3"][..])
            .prop_map(str::to_owned),
    ]
}

prop_compose! {
    fn model()(
        blocks in prop::collection::vec((block_name(), prop::collection::vec(part(), 0..4)), 1..12),
        picks in prop::collection::vec(any::<Index>(), 1..40),
        description in ".{0,20}",
        eps in eps(),
        tied in any::<bool>(),
        bos in proptest::option::of(0u32..100),
        eos in prop::collection::vec(0u32..100, 0..3),
        f32_stream in any::<bool>(),
        aliases in prop::collection::vec((tensor_name(), tensor_name()), 0..3),
    ) -> Model {
        let mut distinct: Vec<Block> = Vec::new();
        for (name, parts) in blocks {
            if distinct.iter().all(|block| block.name != name) {
                distinct.push(Block { name, parts });
            }
        }
        // Blocks stand in the order of first use, and every one is used.
        let drawn: Vec<usize> = picks.iter().map(|pick| pick.index(distinct.len())).collect();
        let mut order: Vec<usize> = Vec::new();
        for block in &drawn {
            if !order.contains(block) {
                order.push(*block);
            }
        }
        let layers = drawn.iter().map(|block| order.iter().position(|other| other == block).unwrap()).collect();
        Model {
            name: "drawn".to_owned(),
            description,
            dtype: if f32_stream { Dtype::F32 } else { Dtype::Bf16 },
            hidden: 64,
            vocab: 100,
            max_context: 1000,
            bos,
            eos,
            embedding: Embedding { tensor: "root.embedding".to_owned() },
            head: Head {
                norm: Norm { eps, tensor: "root.norm".to_owned() },
                tensor: (!tied).then(|| "root.head".to_owned()),
            },
            layer_prefix: "root.layers.{layer}.".to_owned(),
            root_aliases: aliases,
            blocks: order.into_iter().map(|block| distinct[block].clone()).collect(),
            layers,
        }
    }
}

/// Whether all tensors have names of their own; models without that are refused.
fn sound(model: &Model) -> bool {
    let mut names: Vec<String> = model.tensors().into_iter().map(|tensor| tensor.name).collect();
    names.sort();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// Makes the tensor names of a block's parts differ from part to part.
fn separate(mut model: Model) -> Model {
    for block in &mut model.blocks {
        for (index, part) in block.parts.iter_mut().enumerate() {
            let mut names: Vec<&mut String> = vec![&mut part.norm.tensor];
            match &mut part.mixer {
                Mixer::Attention(a) => {
                    names.extend([&mut a.q, &mut a.k, &mut a.v, &mut a.o]);
                    names.extend(
                        a.qk_norm.iter_mut().flat_map(|norm| [&mut norm.q_tensor, &mut norm.k_tensor]),
                    );
                }
                Mixer::Mamba2(m) => {
                    names.extend(m.conv_bias.then_some(&mut m.conv_bias_tensor));
                    names.extend([&mut m.in_proj, &mut m.conv_weight, &mut m.dt_bias, &mut m.a_log]);
                    names.extend([&mut m.d, &mut m.norm, &mut m.out_proj]);
                }
                Mixer::Ffn(f) => {
                    names.extend(&mut f.gate);
                    names.extend([&mut f.up, &mut f.down]);
                }
                Mixer::Linear(l) => names.push(&mut l.tensor),
            }
            if index > 0 {
                names.into_iter().for_each(|name| *name = format!("p{index}.{name}"));
            }
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_parser_survives_mutated_files(name in select(builtin_names()), edits in edits()) {
        let source = mutate(builtin_source(name).unwrap(), &edits);
        match Model::parse_toml(&source, "mutated.toml") {
            Ok(model) => { let _ = (model.counts(), model.to_toml()); }
            Err(problems) => prop_assert!(problems.to_string().starts_with("error: ")),
        }
    }

    #[test]
    fn the_importer_survives_mutated_files(hybrid in any::<bool>(), edits in edits()) {
        let source = mutate(if hybrid { HYBRID } else { CONFIG }, &edits);
        match import_hf(&source, "config.json", "mutated") {
            Ok(model) => {
                let again = Model::parse_toml(&model.to_toml(), "again.toml");
                prop_assert_eq!(again.map_err(|e| TestCaseError::fail(e.to_string()))?, model);
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
        let _ = Model::parse_toml(&text, "any.toml");
        let _ = import_hf(&text, "any.json", &text);
    }

    #[test]
    fn a_written_model_reads_back(model in model().prop_map(separate).prop_filter("names clash", sound)) {
        let text = model.to_toml();
        match Model::parse_toml(&text, "written.toml") {
            Ok(again) => prop_assert_eq!(again, model, "{}", text),
            Err(problems) => prop_assert!(false, "{}\n{}", problems, text),
        }
    }
}

#[test]
fn long_nonsense_is_refused_quickly() {
    let base = builtin_source("qwen3-8b").unwrap();
    let pattern = format!("pattern = \"{}\"\nletters = {{}}\n[other]", "é".repeat(200_000));
    for source in [
        base.replace("runs = ", &format!("{pattern}\nruns = ")),
        format!("{} = 1\n{base}", "k".repeat(1_000_000)),
        format!("{base}{}", "[[".repeat(100_000)),
        base.replace("0-35", &"0-35,".repeat(100_000)),
    ] {
        let problems = Model::parse_toml(&source, "long.toml").unwrap_err();
        assert!(problems.items().len() <= 40);
    }
    assert!(import_hf(&"[".repeat(1_000_000), "long.json", "x").is_err());
}

#[test]
fn the_unmutated_configurations_import() {
    import_hf(CONFIG, "config.json", "nas").unwrap();
    import_hf(HYBRID, "config.json", "hybrid").unwrap();
}

#[test]
fn built_in_models_are_written_briefly_and_read_back() {
    for name in builtin_names() {
        let model = Model::builtin(name).unwrap();
        let text = model.to_toml();
        assert!(text.lines().count() < 80, "{text}");
        assert_eq!(Model::parse_toml(&text, name), Ok(model));
    }
}
