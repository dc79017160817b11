//! Plain transformers: Llama, and Qwen3, which adds a norm of each query and key head.

use super::config::Config;
use super::{ImportError, LLAMA_NAMES, frame, push_layer};
use crate::model::{
    Activation, Attention, Block, Ffn, Llama3Scaling, Mixer, Model, Norm, Part, QkNorm, Rope,
};
use crate::validate::MAX_LAYERS;

pub(super) fn import(c: &mut Config<'_>) -> Result<Model, ImportError> {
    transformer(c, false)
}

pub(super) fn import_qwen3(c: &mut Config<'_>) -> Result<Model, ImportError> {
    c.off("use_sliding_window")?;
    // Without sliding windows these two have no effect.
    c.inert(&["sliding_window", "max_window_layers"]);
    if let Some(list) = c.list("layer_types")?
        && list.iter().any(|word| word != "full_attention")
    {
        return Err(c.unsupported("layer_types", "\"full_attention\" in every layer"));
    }
    transformer(c, true)
}

fn transformer(c: &mut Config<'_>, head_norms: bool) -> Result<Model, ImportError> {
    let eps = c.need_f64("rms_norm_eps")?;
    let mut model = frame(c, eps, &LLAMA_NAMES)?;
    plain(c)?;
    let heads = c.need_u64("num_attention_heads")?;
    let qk_norm = head_norms.then(|| QkNorm {
        eps,
        q_tensor: "self_attn.q_norm.weight".to_owned(),
        k_tensor: "self_attn.k_norm.weight".to_owned(),
    });
    // Qwen3 documents other defaults than Llama for these two; its files name them.
    let (kv_heads, head_dim) = if head_norms {
        (c.need_u64("num_key_value_heads")?, c.need_u64("head_dim")?)
    } else {
        (c.opt_u64("num_key_value_heads")?.unwrap_or(heads), head_dim(c, model.hidden, heads)?)
    };
    let attention = attention(heads, kv_heads, head_dim, rope(c)?, qk_norm);
    let parts = vec![attention_part(eps, attention), ffn_part(eps, swiglu(c.need_u64("intermediate_size")?))];
    let count = layer_count(c)?;
    for _ in 0..count {
        push_layer(&mut model, Block { name: "layer".to_owned(), parts: parts.clone() });
    }
    Ok(model)
}

/// The keys that all Llama-like configurations share and that must have their usual value.
pub(super) fn plain(c: &mut Config<'_>) -> Result<(), ImportError> {
    c.off("attention_bias")?;
    c.off("mlp_bias")?;
    c.only("hidden_act", "silu")?;
    c.only_number("pretraining_tp", 1.0)?;
    c.only_number("partial_rotary_factor", 1.0)
}

pub(super) fn layer_count(c: &mut Config<'_>) -> Result<u64, ImportError> {
    let count = c.need_u64("num_hidden_layers")?;
    if count > MAX_LAYERS {
        return Err(c.unsupported("num_hidden_layers", format!("a number up to {MAX_LAYERS}")));
    }
    Ok(count)
}

/// The width of a head: given, or the hidden size shared out to the heads.
pub(super) fn head_dim(c: &mut Config<'_>, hidden: u64, heads: u64) -> Result<u64, ImportError> {
    match c.opt_u64("head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None if heads > 0 && hidden.is_multiple_of(heads) => Ok(hidden / heads),
        None => Err(c.unsupported("num_attention_heads", format!("a divisor of `hidden_size`, {hidden}"))),
    }
}

/// Reads the rotary embedding from `rope_theta` and `rope_scaling`, or from the `rope_parameters` of newer files.
pub(super) fn rope(c: &mut Config<'_>) -> Result<Option<Rope>, ImportError> {
    let outer = c.opt_f64("rope_theta")?;
    let scaling = c.object("rope_scaling")?;
    let parameters = c.object("rope_parameters")?;
    if scaling.is_some() && parameters.is_some() {
        return Err(c.unsupported("rope_scaling", "one of `rope_scaling` and `rope_parameters`"));
    }
    let mut theta = outer;
    let mut llama3 = None;
    if let Some(mut nested) = parameters.or(scaling) {
        if let Some(inner) = nested.opt_f64("rope_theta")? {
            if outer.is_some_and(|outer| outer != inner) {
                return Err(nested.unsupported("rope_theta", "the value of the outer `rope_theta`"));
            }
            theta = Some(inner);
        }
        nested.only_number("partial_rotary_factor", 1.0)?;
        let (key, kind) = match nested.opt_str("rope_type")? {
            Some(kind) => ("rope_type", kind),
            None => nested.opt_str("type")?.map_or(("type", "default"), |kind| ("type", kind)),
        };
        nested.only("type", kind)?;
        llama3 = match kind {
            "default" => None,
            "llama3" => Some(Llama3Scaling {
                factor: nested.need_f64("factor")?,
                low_freq_factor: nested.need_f64("low_freq_factor")?,
                high_freq_factor: nested.need_f64("high_freq_factor")?,
                original_context: nested.need_u64("original_max_position_embeddings")?,
            }),
            _ => return Err(nested.unsupported(key, "\"llama3\" or \"default\"")),
        };
        nested.finish()?;
    }
    // The documented default of the Llama configuration.
    Ok(Some(Rope { theta: theta.unwrap_or(10_000.0), scaling: llama3 }))
}

pub(super) fn attention(
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    rope: Option<Rope>,
    qk_norm: Option<QkNorm>,
) -> Attention {
    let name = |role: &str| format!("self_attn.{role}_proj.weight");
    Attention {
        heads,
        kv_heads,
        head_dim,
        rope,
        qk_norm,
        window: None,
        q: name("q"),
        k: name("k"),
        v: name("v"),
        o: name("o"),
    }
}

pub(super) fn swiglu(width: u64) -> Ffn {
    let name = |role: &str| format!("mlp.{role}_proj.weight");
    Ffn {
        width,
        activation: Activation::SwiGlu,
        gate: Some(name("gate")),
        up: name("up"),
        down: name("down"),
    }
}

pub(super) fn attention_part(eps: f64, attention: Attention) -> Part {
    Part { norm: input_norm(eps), mixer: Mixer::Attention(attention) }
}

pub(super) fn ffn_part(eps: f64, ffn: Ffn) -> Part {
    Part { norm: ffn_norm(eps), mixer: Mixer::Ffn(ffn) }
}

pub(super) fn input_norm(eps: f64) -> Norm {
    Norm { eps, tensor: "input_layernorm.weight".to_owned() }
}

pub(super) fn ffn_norm(eps: f64) -> Norm {
    Norm { eps, tensor: "post_attention_layernorm.weight".to_owned() }
}
