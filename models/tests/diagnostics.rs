//! What a person sees when a model file is wrong. Each case is a small sound file with one or two lines changed.

use nemo_models::Model;

const HYBRID: &str = r#"name = "tiny"
dtype = "bf16"
hidden = 64
vocab = 256
max_context = 512
norm_eps = 1e-5
eos = 2

[embedding]
tensor = "backbone.embeddings.weight"

[head]
norm = "backbone.norm_f.weight"
tensor = "lm_head.weight"

[parts.mamba]
mixer = "mamba2"
norm = "norm.weight"
heads = 8
head_dim = 16
state = 16
groups = 2
conv = 4
[parts.mamba.tensors]
in_proj = "mixer.in_proj.weight"
conv_weight = "mixer.conv1d.weight"
conv_bias = "mixer.conv1d.bias"
dt_bias = "mixer.dt_bias"
a_log = "mixer.A_log"
d = "mixer.D"
norm = "mixer.norm.weight"
out_proj = "mixer.out_proj.weight"

[parts.attention]
mixer = "attention"
norm = "norm.weight"
heads = 4
kv_heads = 2
head_dim = 16
tensors = "mixer.{}_proj.weight"

[parts.mlp]
mixer = "ffn"
norm = "norm.weight"
width = 128
activation = "relu2"
tensors = "mixer.{}_proj.weight"

[layers]
prefix = "backbone.layers.{layer}."
count = 5
letters = { M = "mamba", "*" = "attention", "-" = "mlp" }
pattern = "M-M*-"
"#;

const SEARCHED: &str = r#"name = "tiny-nas"
dtype = "bf16"
hidden = 768
vocab = 256
max_context = 512
norm_eps = 1e-5
eos = [2, 3]

[embedding]
tensor = "model.embed_tokens.weight"

[head]
norm = "model.norm.weight"
tied = true

[parts.attention]
mixer = "attention"
norm = "input_layernorm.weight"
heads = 4
kv_heads = 2
head_dim = 16
rope.theta = 10000.0
tensors = "self_attn.{}_proj.weight"

[parts.mlp]
mixer = "ffn"
norm = "post_attention_layernorm.weight"
activation = "swiglu"
tensors = "mlp.{}_proj.weight"

[blocks]
layer = ["attention", "mlp"]
empty = []

[layers]
prefix = "model.layers.{layer}."
count = 8
runs = [
  { at = "0-3, 6", block = "layer", mlp.ffn_mult = 1.0 },
  { at = "4-5", block = "layer", mlp.width = 1024 },
  { at = "7", block = "empty" },
]
"#;

/// The diagnostics of a file after some replacements, each of which must find its place.
fn complaints(source: &str, edits: &[(&str, &str)]) -> String {
    let mut source = source.to_owned();
    for (from, to) in edits {
        assert_eq!(source.matches(from).count(), 1, "{from:?} must be there once");
        source = source.replacen(from, to, 1);
    }
    match Model::parse_toml(&source, "tiny.toml") {
        Ok(_) => "no complaint\n".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn cases(source: &str, cases: &[&[(&str, &str)]]) -> String {
    let texts: Vec<String> = cases.iter().map(|edits| complaints(source, edits)).collect();
    texts.join("\n----------------------------------------\n\n")
}

#[test]
fn the_base_files_are_sound() {
    let hybrid = Model::parse_toml(HYBRID, "tiny.toml").unwrap();
    assert_eq!(hybrid.layers, [0, 1, 0, 2, 1]);
    let searched = Model::parse_toml(SEARCHED, "tiny.toml").unwrap();
    let names: Vec<&str> = searched.blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["layer_512", "layer_1024", "empty"]);
    assert_eq!(searched.layers, [0, 0, 0, 0, 1, 1, 0, 2]);
    assert_eq!(searched.head.tensor, None);
}

#[test]
fn keys() {
    let text = cases(
        HYBRID,
        &[
            &[("kv_heads = 2", "kv_head = 2")],
            &[("hidden = 64", "hiden = 64"), ("eos = 2", "")],
            &[("vocab = 256", "vocab = \"256\""), ("conv = 4", "conv = true")],
            &[("d = \"mixer.D\"", "skip = \"mixer.D\"")],
            &[("[parts.mlp]", "[part.mlp]")],
            &[("mixer = \"mamba2\"", "mixer = \"mamba\"")],
            &[("activation = \"relu2\"", "activation = \"relu\"")],
            &[("dtype = \"bf16\"", "dtype = \"bfloat16\"")],
            &[("name = \"tiny\"", "name = \"a tiny one\"")],
            &[("[layers]", "[layers")],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn numbers() {
    let text = cases(
        HYBRID,
        &[
            &[("heads = 4\nkv_heads = 2", "heads = 40\nkv_heads = 7")],
            &[("groups = 2", "groups = 3")],
            &[("head_dim = 16\nstate = 16", "head_dim = 0\nstate = 99999999")],
            &[("head_dim = 16\ntensors", "head_dim = 15\nrope.theta = 1e4\ntensors")],
            &[("norm_eps = 1e-5", "norm_eps = -1e-5")],
            &[("conv = 4", "conv = 4\ndt_limit = [0.1, 0.001]")],
            &[("conv = 4", "conv = 4\ndt_limit = [0.1]")],
            &[("width = 128", "width = 128\nffn_mult = 2.0")],
            &[("eos = 2", "eos = [2, 256]\nbos = -1")],
            &[(
                "head_dim = 16\ntensors",
                "head_dim = 16\nrope = { theta = 0.0, llama3 = { factor = 8 } }\ntensors",
            )],
            &[("heads = 8", "heads = 16777216")],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn tensors() {
    let text = cases(
        HYBRID,
        &[
            &[(
                "head_dim = 16\ntensors = \"mixer.{}_proj.weight\"",
                "head_dim = 16\ntensors = \"mixer.q_proj.weight\"",
            )],
            &[("a_log = \"mixer.A_log\"", "a_log = \"mixer.{}\"")],
            &[("backbone.layers.{layer}.", "backbone.layers.")],
            &[("tensor = \"lm_head.weight\"", "tensor = \"backbone.embeddings.weight\"")],
            &[("a_log = \"mixer.A_log\"", "a_log = \"mixer.D\"")],
            &[("tensor = \"lm_head.weight\"", "")],
            &[("tensor = \"lm_head.weight\"", "tensor = \"lm_head.weight\"\ntied = true")],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn patterns() {
    let text = cases(
        HYBRID,
        &[
            &[("M-M*-", "M-E*-")],
            &[("M-M*-", "M-M*-M")],
            &[("M-M*-", "M-éX*-M")],
            &[("\"-\" = \"mlp\"", "\"-\" = \"mpl\"")],
            &[("\"-\" = \"mlp\"", "ml = \"mlp\"")],
            &[("count = 5", "count = 50000")],
            &[("pattern = \"M-M*-\"", "")],
            &[("pattern = \"M-M*-\"", "pattern = \"M-M*-\"\noverrides = [{ at = \"0-1\", mlp.width = 64 }]")],
            &[("pattern = \"M-M*-\"", "pattern = \"M-M*-\"\noverrides = [{ at = \"1\", mlp.widht = 64 }]")],
            &[(
                "pattern = \"M-M*-\"",
                "pattern = \"M-M*-\"\noverrides = [{ at = \"1\", mlp.width = 64 }, { at = \"1, 4\", mlp.width = 32 }]",
            )],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn runs() {
    let text = cases(
        SEARCHED,
        &[
            &[("\"4-5\"", "\"3-5\"")],
            &[("\"4-5\"", "\"5\"")],
            &[("\"4-5\"", "\"5-4\"")],
            &[("\"4-5\"", "\"4-9\"")],
            &[("\"0-3, 6\"", "\"0-3, six\"")],
            &[("block = \"empty\"", "block = \"emty\"")],
            &[("block = \"empty\"", "block = \"empty\", mlp.width = 5")],
            &[("mlp.width = 1024", "mlp.width = 1024, mlp.ffn_mult = 1.0")],
            &[(", mlp.width = 1024", "")],
            &[("mlp.width = 1024", "mlp.width = 1024, attention.kv_heads = 3")],
            &[("mlp.width = 1024", "mlp.mixer = \"linear\"")],
            &[("layer = [\"attention\", \"mlp\"]", "layer = [\"attn\", \"mlp\"]")],
            &[("mlp.width = 1024", "mlp.width = 1024, as = \"layer_512\"")],
            &[("count = 8", "count = 8\npattern = \"LLLL\"")],
        ],
    );
    insta::assert_snapshot!(text);
}

#[test]
fn several_problems_are_told_at_once() {
    let text = complaints(
        HYBRID,
        &[
            ("hidden = 64", "hiden = 64"),
            ("groups = 2", "groups = 3"),
            ("kv_heads = 2", "kv_heads = 3"),
            ("M-M*-", "M-E"),
        ],
    );
    assert_eq!(text.matches("error: ").count(), 6, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn overrides_make_new_blocks() {
    let source = HYBRID.replace(
        "count = 5",
        "count = 5\noverrides = [{ at = \"4\", mlp.width = 64 }, { at = \"2\", mamba.groups = 4 }]",
    );
    let model = Model::parse_toml(&source, "tiny.toml").unwrap();
    let names: Vec<&str> = model.blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["mamba", "mlp", "mamba_groups4", "attention", "mlp_64"]);
    assert_eq!(model.layers, [0, 1, 2, 3, 4]);
    assert_eq!(Model::parse_toml(&model.to_toml(), "again.toml"), Ok(model));
}
