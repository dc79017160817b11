//! Llama cut by architecture search: each layer keeps, loses or replaces its attention and its FFN.

use serde_json::Value;

use super::config::Config;
use super::llama::{
    attention, attention_part, ffn_norm, ffn_part, head_dim, input_norm, layer_count, plain, rope, swiglu,
};
use super::{ImportError, LLAMA_NAMES, frame, push_layer};
use crate::model::{Attention, Block, Linear, Mixer, Model, Part};
use crate::validate::ffn_width;

/// What a layer keeps of one half.
enum Half {
    Nothing,
    /// The kv heads of the attention, or the width of the FFN.
    Size(u64),
    Linear,
}

pub(super) fn import(c: &mut Config<'_>) -> Result<Model, ImportError> {
    let eps = c.need_f64("rms_norm_eps")?;
    let mut model = frame(c, eps, &LLAMA_NAMES)?;
    plain(c)?;
    // Each layer has its own.
    c.nothing("intermediate_size", "null, since each layer has its own")?;
    c.nothing("num_key_value_heads", "null, since each layer has its own")?;
    c.nothing("sliding_window", "null")?;
    c.only("position_embedding_type", "rope")?;
    let heads = c.need_u64("num_attention_heads")?;
    let whole = attention(heads, 1, head_dim(c, model.hidden, heads)?, rope(c)?, None);
    let count = layer_count(c)?;
    let Some(list) = c.list("block_configs")? else {
        return Err(c.unsupported("block_configs", "a list with an entry for each layer"));
    };
    if list.len() as u64 != count {
        let problem =
            format!("`block_configs` has {} entries, but `num_hidden_layers` is {count}", list.len());
        return Err(c.invalid(problem));
    }
    let mut halves = Vec::new();
    for (layer, value) in list.iter().enumerate() {
        halves.push(block(c, layer, value, heads, model.hidden)?);
    }
    let kv_varies = varies(halves.iter().map(|(attention, _)| attention));
    let width_varies = varies(halves.iter().map(|(_, ffn)| ffn));
    for (attention, ffn) in &halves {
        let mut name = match (attention, ffn) {
            (Half::Nothing, Half::Nothing) => "empty",
            (Half::Nothing, Half::Size(_)) => "ffn",
            (Half::Nothing, Half::Linear) => "ffn_linear",
            (Half::Size(_), Half::Nothing) => "attention",
            (Half::Size(_), Half::Size(_)) => "layer",
            (Half::Size(_), Half::Linear) => "attention_linear",
            (Half::Linear, Half::Nothing) => "linear",
            (Half::Linear, Half::Size(_)) => "linear_ffn",
            (Half::Linear, Half::Linear) => "linear_linear",
        }
        .to_owned();
        let mut parts = Vec::new();
        match attention {
            Half::Nothing => {}
            Half::Size(kv_heads) => {
                if kv_varies {
                    name += &format!("_kv_heads{kv_heads}");
                }
                let attention = Attention { kv_heads: *kv_heads, ..whole.clone() };
                parts.push(attention_part(eps, attention));
            }
            Half::Linear => {
                parts.push(Part { norm: input_norm(eps), mixer: linear("self_attn.linear_attn.weight") });
            }
        }
        match ffn {
            Half::Nothing => {}
            Half::Size(width) => {
                if width_varies {
                    name += &format!("_{width}");
                }
                parts.push(ffn_part(eps, swiglu(*width)));
            }
            Half::Linear => {
                parts.push(Part { norm: ffn_norm(eps), mixer: linear("mlp.linear_mlp.weight") });
            }
        }
        push_layer(&mut model, Block { name, parts });
    }
    Ok(model)
}

fn linear(tensor: &str) -> Mixer {
    Mixer::Linear(Linear { tensor: tensor.to_owned() })
}

fn varies<'a>(halves: impl Iterator<Item = &'a Half>) -> bool {
    let mut sizes = halves.filter_map(|half| if let Half::Size(size) = half { Some(*size) } else { None });
    let first = sizes.next();
    sizes.any(|size| Some(size) != first)
}

fn block(
    c: &Config<'_>,
    layer: usize,
    value: &Value,
    heads: u64,
    hidden: u64,
) -> Result<(Half, Half), ImportError> {
    let Some(map) = value.as_object() else {
        return Err(c.invalid(format!("`block_configs[{layer}]` is not an object")));
    };
    let mut block = c.nested(&format!("block_configs[{layer}]."), map);
    let (Some(mut attention), Some(mut ffn)) = (block.object("attention")?, block.object("ffn")?) else {
        return Err(c.invalid(format!("`block_configs[{layer}]` lacks `attention` or `ffn`")));
    };
    block.nothing("parallel_blocks", "null")?;
    block.finish()?;

    attention.off("unshifted_sink")?;
    attention.off("use_prefill_window_in_sink_attention")?;
    for key in ["num_sink_tokens", "sparsify", "window_length", "llama4", "mamba"] {
        attention.nothing(key, "null")?;
    }
    let group = attention.opt_u64("n_heads_in_group")?;
    let kept_attention = half(&mut attention, "n_heads_in_group", |attention| match group {
        Some(group) if group > 0 && heads.is_multiple_of(group) => Ok(heads / group),
        _ => Err(attention.unsupported("n_heads_in_group", format!("a divisor of the {heads} heads"))),
    })?;
    attention.finish()?;

    for key in ["sparsify", "moe"] {
        ffn.nothing(key, "null")?;
    }
    let mult = ffn.opt_f64("ffn_mult")?;
    let kept_ffn = half(&mut ffn, "ffn_mult", |ffn| {
        mult.and_then(|mult| ffn_width(hidden, mult))
            .ok_or_else(|| ffn.unsupported("ffn_mult", "a number that gives a usable width"))
    })?;
    ffn.finish()?;
    Ok((kept_attention, kept_ffn))
}

/// Reads what is kept of one half; `size` is asked when it is there.
fn half(
    c: &mut Config<'_>,
    size_key: &'static str,
    size: impl FnOnce(&Config<'_>) -> Result<u64, ImportError>,
) -> Result<Half, ImportError> {
    c.inert(&[size_key]);
    let no_op = c.opt_bool("no_op")?.unwrap_or(false);
    let linear = c.opt_bool("replace_with_linear")?.unwrap_or(false);
    match (no_op, linear) {
        (true, true) => Err(c.unsupported("replace_with_linear", "false in a half with `no_op`")),
        (true, false) => Ok(Half::Nothing),
        (false, true) => Ok(Half::Linear),
        (false, false) => size(c).map(Half::Size),
    }
}
