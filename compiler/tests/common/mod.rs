//! Models for tests: a tiny one with every mixer, and drawn ones.

// Each test file uses its part of this module.
#![allow(dead_code)]

use nemo_models::{
    Activation, Attention, Block, Dtype, Embedding, Ffn, Head, Linear, Llama3Scaling, Mamba2, Mixer, Model,
    Norm, Part, QkNorm, Rope,
};
use proptest::prelude::*;

/// A hybrid with all that the lowering knows: both kinds of attention in one block, a linear, an empty slot.
pub const TINY: &str = r#"
name = "tiny"
description = "every mixer once"
dtype = "bf16"
hidden = 64
vocab = 96
max_context = 256
norm_eps = 1e-5
eos = 2
aliases = [{ prefix = "backbone.", also = "model." }]

[embedding]
tensor = "backbone.embeddings.weight"

[head]
norm = "backbone.norm_f.weight"
tied = true

[parts.mamba]
mixer = "mamba2"
norm = "norm.weight"
heads = 4
head_dim = 24
state = 16
groups = 2
conv = 4
dt_limit = [0.0, inf]

[parts.mamba.tensors]
in_proj = "mixer.in_proj.weight"
conv_weight = "mixer.conv1d.weight"
conv_bias = "mixer.conv1d.bias"
dt_bias = "mixer.dt_bias"
a_log = "mixer.A_log"
d = "mixer.D"
norm = "mixer.norm.weight"
out_proj = "mixer.out_proj.weight"

[parts.plain]
mixer = "attention"
norm = "plain_norm.weight"
heads = 4
kv_heads = 2
head_dim = 16
tensors = "plain.{}_proj.weight"

[parts.rotary]
mixer = "attention"
norm = "rotary_norm.weight"
heads = 6
kv_heads = 3
head_dim = 16
window = 32
rope.theta = 10000.0
qk_norm = { q = "rotary.q_norm.weight", k = "rotary.k_norm.weight" }
tensors = "rotary.{}_proj.weight"

[parts.mlp]
mixer = "ffn"
norm = "mlp_norm.weight"
width = 128
activation = "swiglu"
tensors = "mlp.{}_proj.weight"

[parts.relu]
mixer = "ffn"
norm = "norm.weight"
width = 160
activation = "relu2"
tensors = "mixer.{}_proj.weight"

[parts.matrix]
mixer = "linear"
norm = "norm.weight"
tensor = "linear.weight"

[blocks]
both = ["plain", "rotary", "mlp"]
scan = ["mamba"]
feed = ["relu"]
square = ["matrix"]
nothing = []

[layers]
prefix = "backbone.layers.{layer}."
count = 6
runs = [
  { at = "0", block = "scan" },
  { at = "1", block = "feed" },
  { at = "2", block = "nothing" },
  { at = "3", block = "both" },
  { at = "4", block = "square" },
  { at = "5", block = "scan" },
]
"#;

/// The model of [`TINY`].
pub fn tiny() -> Model {
    Model::parse_toml(TINY, "tiny.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn name(part: usize, tensor: &str) -> String {
    format!("part{part}.{tensor}.weight")
}

fn attention(part: usize) -> impl Strategy<Value = Mixer> {
    let rope = prop::option::of((1e3..1e6, any::<bool>()));
    (1u64..5, 1u64..4, 1u64..5, rope, any::<bool>(), prop::option::of(1u64..40)).prop_map(
        move |(kv_heads, group, half, rope, normed, window)| {
            Mixer::Attention(Attention {
                heads: kv_heads * group,
                kv_heads,
                head_dim: 2 * half,
                rope: rope.map(|(theta, scaled)| Rope {
                    theta,
                    scaling: scaled.then_some(Llama3Scaling {
                        factor: 8.0,
                        low_freq_factor: 1.0,
                        high_freq_factor: 4.0,
                        original_context: 64,
                    }),
                }),
                qk_norm: normed.then(|| QkNorm {
                    eps: 1e-6,
                    q_tensor: name(part, "q_norm"),
                    k_tensor: name(part, "k_norm"),
                }),
                window,
                q: name(part, "q"),
                k: name(part, "k"),
                v: name(part, "v"),
                o: name(part, "o"),
            })
        },
    )
}

fn mamba(part: usize) -> impl Strategy<Value = Mixer> {
    let limits = prop_oneof![Just((0.0, f64::INFINITY)), Just((0.001, 0.1)), Just((0.0, 2.5))];
    (1u64..4, 1u64..4, 1u64..9, 1u64..9, 2u64..5, any::<bool>(), limits).prop_map(
        move |(groups, per_group, head_dim, state, conv, conv_bias, (dt_min, dt_max))| {
            Mixer::Mamba2(Mamba2 {
                heads: groups * per_group,
                head_dim,
                state,
                groups,
                conv,
                conv_bias,
                dt_min,
                dt_max,
                norm_eps: 1e-5,
                in_proj: name(part, "in"),
                conv_weight: name(part, "conv"),
                conv_bias_tensor: if conv_bias { name(part, "conv_bias") } else { String::new() },
                dt_bias: name(part, "dt_bias"),
                a_log: name(part, "a_log"),
                d: name(part, "d"),
                norm: name(part, "gated_norm"),
                out_proj: name(part, "out"),
            })
        },
    )
}

fn ffn(part: usize) -> impl Strategy<Value = Mixer> {
    // Narrower than the stream, as wide, and much wider.
    let width = prop_oneof![4 => 1u64..100, 1 => 300u64..400];
    (width, any::<bool>()).prop_map(move |(width, gated)| {
        Mixer::Ffn(Ffn {
            width,
            activation: if gated { Activation::SwiGlu } else { Activation::Relu2 },
            gate: gated.then(|| name(part, "gate")),
            up: name(part, "up"),
            down: name(part, "down"),
        })
    })
}

fn part(number: usize) -> impl Strategy<Value = Part> {
    let linear = Just(Mixer::Linear(Linear { tensor: name(number, "square") }));
    let mixer = prop_oneof![attention(number), mamba(number), ffn(number), linear];
    mixer.prop_map(move |mixer| Part { norm: Norm { eps: 1e-5, tensor: name(number, "norm") }, mixer })
}

fn block(number: usize) -> impl Strategy<Value = Block> {
    // Names that collide with those of the two ends are legal.
    let label =
        prop_oneof![Just(format!("block_{number}")), Just(["embed", "head", "b"][number % 3].to_owned())];
    let parts = (0usize..4).prop_flat_map(|count| (0..count).map(part).collect::<Vec<_>>());
    (label, parts).prop_map(|(name, parts)| Block { name, parts })
}

/// Models of any make that the op table admits.
pub fn any_model() -> impl Strategy<Value = Model> {
    let blocks = (1usize..4).prop_flat_map(|count| (0..count).map(block).collect::<Vec<_>>());
    (
        blocks,
        1u64..80,
        1u64..50,
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    )
        .prop_map(|(blocks, hidden, vocab, tied, bf16, slots)| Model {
            name: "drawn".to_owned(),
            description: String::new(),
            dtype: if bf16 { Dtype::Bf16 } else { Dtype::F32 },
            hidden,
            vocab,
            max_context: 128,
            bos: None,
            eos: vec![0],
            embedding: Embedding { tensor: "root.embed".to_owned() },
            head: Head {
                norm: Norm { eps: 1e-5, tensor: "root.norm".to_owned() },
                tensor: (!tied).then(|| "head".to_owned()),
            },
            layer_prefix: "root.{layer}.".to_owned(),
            root_aliases: vec![("root.".to_owned(), "other.".to_owned())],
            layers: slots.iter().map(|slot| slot.index(blocks.len())).collect(),
            blocks,
        })
}
