//! The hybrid family: Mamba-2, attention and squared-ReLU layers in any order, one mixer a layer.

use serde_json::Value;

use super::config::Config;
use super::{ImportError, Names, frame, push_layer};
use crate::model::{Activation, Attention, Block, Ffn, Mamba2, Mixer, Model, Norm, Part};

const NAMES: Names = Names {
    embedding: "backbone.embeddings.weight",
    norm: "backbone.norm_f.weight",
    layers: "backbone.layers.{layer}.",
    aliases: &[("backbone.", "model.")],
};

/// Keys of mixture-of-experts layers: without meaning in a model that has no such layer, and newer files list them all
/// the same.
const EXPERTS: [&str; 13] = [
    "moe_intermediate_size",
    "moe_latent_size",
    "moe_shared_expert_intermediate_size",
    "moe_shared_expert_overlap",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "output_router_logits",
    "routed_scaling_factor",
    "router_aux_loss_coef",
    "topk_group",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
}

impl Kind {
    fn of_letter(letter: char) -> Option<Self> {
        match letter {
            'M' => Some(Self::Mamba),
            '*' => Some(Self::Attention),
            '-' => Some(Self::Mlp),
            _ => None,
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "mamba" | "linear_attention" => Some(Self::Mamba),
            "attention" | "full_attention" => Some(Self::Attention),
            "mlp" => Some(Self::Mlp),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mamba => "mamba",
            Self::Attention => "attention",
            Self::Mlp => "mlp",
        }
    }
}

pub(super) fn import(c: &mut Config<'_>) -> Result<Model, ImportError> {
    let kinds = layers(c)?;
    for key in ["attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias", "residual_in_fp32"] {
        c.off(key)?;
    }
    c.nothing("sliding_window", "null")?;
    c.nothing("num_nextn_predict_layers", "no multi-token prediction (0 or null)")?;
    c.only("mamba_hidden_act", "silu")?;
    c.only("mlp_hidden_act", "relu2")?;
    c.only("mamba_ssm_cache_dtype", "float32")?;
    // Weight initialisation, training, switches between equal implementations, and a prediction head that is off.
    c.inert(&[
        "expand",
        "hidden_dropout",
        "mtp_hybrid_override_pattern",
        "mtp_layers_block_type",
        "num_logits_to_keep",
        "rescale_prenorm_residual",
        "time_step_floor",
        "time_step_max",
        "time_step_min",
        "time_step_rank",
        "use_mamba_kernels",
    ]);
    // The family has no position encoding; some files carry these keys, and no implementation reads them.
    c.inert(&["partial_rotary_factor", "rope_parameters", "rope_scaling", "rope_theta"]);
    c.inert(&EXPERTS);

    let eps = c.need_f64("layer_norm_epsilon")?;
    c.only_number("rms_norm_eps", eps)?;
    c.only_number("norm_eps", eps)?;
    let mut model = frame(c, eps, &NAMES)?;
    let mamba = kinds.contains(&Kind::Mamba).then(|| mamba2(c, eps)).transpose()?;
    let attention = kinds.contains(&Kind::Attention).then(|| attention(c)).transpose()?;
    let mlp = kinds.contains(&Kind::Mlp).then(|| mlp(c)).transpose()?;
    // Known keys of kinds that this model may not have.
    c.inert(&[
        "attention_head_dim",
        "chunk_size",
        "conv_kernel",
        "head_dim",
        "intermediate_size",
        "mamba_head_dim",
        "mamba_num_heads",
        "n_groups",
        "num_attention_heads",
        "num_key_value_heads",
        "ssm_state_size",
        "time_step_limit",
        "use_conv_bias",
    ]);
    for kind in kinds {
        let mixer = match kind {
            Kind::Mamba => mamba.clone(),
            Kind::Attention => attention.clone(),
            Kind::Mlp => mlp.clone(),
        };
        let norm = Norm { eps, tensor: "norm.weight".to_owned() };
        let parts = mixer.into_iter().map(|mixer| Part { norm: norm.clone(), mixer }).collect();
        push_layer(&mut model, Block { name: kind.name().to_owned(), parts });
    }
    Ok(model)
}

/// Reads the layer list, which is a string of letters or a list of words; where both are given they must agree.
fn layers(c: &mut Config<'_>) -> Result<Vec<Kind>, ImportError> {
    const PATTERN: &str = "hybrid_override_pattern";
    const LETTERS: &str = "a string of the layers `M` (Mamba-2), `*` (attention) and `-` (MLP)";
    const WORDS: &str = "a list of the layers \"mamba\", \"attention\" and \"mlp\"";
    let experts = "; mixture-of-experts layers are not";
    let mut found: Option<Vec<Kind>> = None;
    if let Some(text) = c.opt_str(PATTERN)? {
        let kinds = text.chars().map(Kind::of_letter).collect::<Option<Vec<_>>>();
        let note = if text.contains('E') { experts } else { "" };
        found = Some(kinds.ok_or_else(|| c.unsupported(PATTERN, format!("{LETTERS}{note}")))?);
    }
    for key in ["layers_block_type", "layer_types"] {
        let Some(list) = c.list(key)? else { continue };
        let kind = |word: &Value| word.as_str().and_then(Kind::of_word);
        let kinds = list.iter().map(kind).collect::<Option<Vec<_>>>();
        let note = if list.iter().any(|word| word == "moe") { experts } else { "" };
        let kinds = kinds.ok_or_else(|| c.unsupported(key, format!("{WORDS}{note}")))?;
        if found.as_ref().is_some_and(|other| *other != kinds) {
            return Err(c.unsupported(key, "the same layer list as in the other key"));
        }
        found = Some(kinds);
    }
    let kinds = match found {
        Some(kinds) => kinds,
        // Reports the key as missing.
        None => c.need_str(PATTERN).map(|_| vec![])?,
    };
    if let Some(count) = c.opt_u64("num_hidden_layers")?
        && count != kinds.len() as u64
    {
        return Err(
            c.unsupported("num_hidden_layers", format!("{}, the length of the layer list", kinds.len()))
        );
    }
    Ok(kinds)
}

fn mamba2(c: &mut Config<'_>, eps: f64) -> Result<Mixer, ImportError> {
    let (dt_min, dt_max) = dt_limit(c)?;
    let conv_bias = c.opt_bool("use_conv_bias")?.unwrap_or(true);
    let name = |name: &str| format!("mixer.{name}");
    Ok(Mixer::Mamba2(Mamba2 {
        heads: c.need_u64("mamba_num_heads")?,
        head_dim: c.need_u64("mamba_head_dim")?,
        state: c.need_u64("ssm_state_size")?,
        groups: c.need_u64("n_groups")?,
        conv: c.need_u64("conv_kernel")?,
        conv_bias,
        dt_min,
        dt_max,
        norm_eps: eps,
        in_proj: name("in_proj.weight"),
        conv_weight: name("conv1d.weight"),
        conv_bias_tensor: if conv_bias { name("conv1d.bias") } else { String::new() },
        dt_bias: name("dt_bias"),
        a_log: name("A_log"),
        d: name("D"),
        norm: name("norm.weight"),
        out_proj: name("out_proj.weight"),
    }))
}

/// The clamp of the time step; none by default. The keys `time_step_min` and `time_step_max` are not it: they bound the
/// initial weights.
fn dt_limit(c: &mut Config<'_>) -> Result<(f64, f64), ImportError> {
    const KEY: &str = "time_step_limit";
    let Some(list) = c.list(KEY)? else { return Ok((0.0, f64::INFINITY)) };
    let numbers: Option<Vec<f64>> = list.iter().map(super::json::number).collect();
    match numbers.as_deref() {
        // One file writes 1e308, beyond the f32 range that the step is computed in.
        Some([low, high]) if *high > f64::from(f32::MAX) => Ok((*low, f64::INFINITY)),
        Some([low, high]) => Ok((*low, *high)),
        _ => Err(c.unsupported(KEY, "a list of two numbers")),
    }
}

fn attention(c: &mut Config<'_>) -> Result<Mixer, ImportError> {
    let heads = c.need_u64("num_attention_heads")?;
    let kv_heads = c.opt_u64("num_key_value_heads")?.unwrap_or(heads);
    let head_dim = match c.either_u64("head_dim", "attention_head_dim")? {
        Some(head_dim) => head_dim,
        None => c.need_u64("head_dim")?,
    };
    let name = |role: &str| format!("mixer.{role}_proj.weight");
    Ok(Mixer::Attention(Attention {
        heads,
        kv_heads,
        head_dim,
        rope: None,
        qk_norm: None,
        window: None,
        q: name("q"),
        k: name("k"),
        v: name("v"),
        o: name("o"),
    }))
}

fn mlp(c: &mut Config<'_>) -> Result<Mixer, ImportError> {
    Ok(Mixer::Ffn(Ffn {
        width: c.need_u64("intermediate_size")?,
        activation: Activation::Relu2,
        gate: None,
        up: "mixer.up_proj.weight".to_owned(),
        down: "mixer.down_proj.weight".to_owned(),
    }))
}
