//! Rules that a model keeps, wherever it was described. A problem names a key of the model file; the readers translate
//! that to a place in their source.

use crate::model::{Attention, Ffn, Llama3Scaling, Mamba2, Mixer, Model, Part, QkNorm, Rope};

/// Largest dimension, head product or vocabulary: no tensor's element count then comes near 2^63.
pub(crate) const MAX_DIM: u64 = 1 << 24;
/// Most layer slots of a model.
pub(crate) const MAX_LAYERS: u64 = 4096;
/// Most parts of one block.
pub(crate) const MAX_PARTS: usize = 8;
/// Positions are 32-bit signed numbers at run time.
pub(crate) const MAX_CONTEXT: u64 = i32::MAX as u64;
/// Taps of a convolution: state keeps one column less per channel.
const MAX_CONV: u64 = 64;

/// A broken rule.
pub(crate) struct Problem {
    pub(crate) key: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    fn new(key: &'static str, message: String) -> Self {
        Self { key, message, help: None }
    }
}

/// A count between 1 and `max`.
pub(crate) fn count(key: &'static str, value: u64, max: u64) -> Option<Problem> {
    if value == 0 {
        Some(Problem::new(key, format!("`{key}` is 0; it must be at least 1")))
    } else if value > max {
        Some(Problem::new(key, format!("`{key}` is {value}; at most {max} is supported")))
    } else {
        None
    }
}

fn product(key: &'static str, what: &str, a: u64, b: u64) -> Option<Problem> {
    let value = a.saturating_mul(b);
    // A factor that is too large by itself has been reported.
    (value > MAX_DIM && a <= MAX_DIM && b <= MAX_DIM)
        .then(|| Problem::new(key, format!("{what} would be {value} wide; at most {MAX_DIM} is supported")))
}

/// A small positive number added under a root.
pub(crate) fn eps(key: &'static str, value: f64) -> Option<Problem> {
    let fine = value > 0.0 && value < 1.0;
    (!fine)
        .then(|| Problem::new(key, format!("`{key}` is {value:?}; it must lie between 0 and 1, like 1e-5")))
}

fn positive(key: &'static str, value: f64) -> Option<Problem> {
    let fine = value > 0.0 && value.is_finite();
    (!fine).then(|| Problem::new(key, format!("`{key}` is {value:?}; it must be a positive number")))
}

/// Why a name cannot be the name of a tensor, if it cannot.
pub(crate) fn tensor_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a tensor name is empty".to_owned());
    }
    let bad = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c))?;
    Some(format!("`{}` cannot stand in a tensor name", bad.escape_default()))
}

/// Why a layer prefix is not usable, if it is not.
pub(crate) fn layer_prefix(prefix: &str) -> Option<String> {
    match prefix.matches("{layer}").count() {
        1 => tensor_name(&prefix.replace("{layer}", "0")),
        0 => Some("the prefix has no `{layer}`, so all layers would share their tensors".to_owned()),
        n => Some(format!("the prefix has `{{layer}}` {n} times; it must stand there once")),
    }
}

/// Whether a name may be a block or part name.
pub(crate) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a text may be a model name: it becomes part of file names.
pub(crate) fn is_model_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// All rules, for a model that did not come from a model file.
pub(crate) fn model(model: &Model) -> Vec<Problem> {
    let mut found: Vec<Problem> = [
        count("hidden", model.hidden, MAX_DIM),
        count("vocab", model.vocab, MAX_DIM),
        count("max_context", model.max_context, MAX_CONTEXT),
        count("layers", model.layers.len() as u64, MAX_LAYERS),
        eps("norm eps", model.head.norm.eps),
    ]
    .into_iter()
    .flatten()
    .collect();
    for token in model.bos.iter().chain(&model.eos) {
        if u64::from(*token) >= model.vocab {
            let message = format!("token {token} is outside the vocabulary of {}", model.vocab);
            found.push(Problem::new("eos", message));
        }
    }
    for one in model.blocks.iter().flat_map(|block| &block.parts) {
        found.extend(eps("norm eps", one.norm.eps));
        found.extend(part(one));
        if let Mixer::Attention(attention) = &one.mixer {
            found.extend(attention.rope.iter().flat_map(rope));
            found.extend(attention.rope.iter().filter_map(|rope| rope.scaling.as_ref()).flat_map(llama3));
            found.extend(attention.qk_norm.iter().flat_map(qk_norm));
        }
    }
    found
}

/// The rules of one part, except those of nested tables.
pub(crate) fn part(part: &Part) -> Vec<Problem> {
    let found = match &part.mixer {
        Mixer::Attention(attention) => self::attention(attention),
        Mixer::Mamba2(mamba) => mamba2(mamba),
        Mixer::Ffn(ffn) => self::ffn(ffn),
        Mixer::Linear(_) => vec![],
    };
    found.into_iter().flatten().collect()
}

fn attention(a: &Attention) -> Vec<Option<Problem>> {
    let mut found = vec![
        count("heads", a.heads, MAX_DIM),
        count("kv_heads", a.kv_heads, MAX_DIM),
        count("head_dim", a.head_dim, MAX_DIM),
        product("heads", "the queries", a.heads, a.head_dim),
        a.window.and_then(|window| count("window", window, MAX_CONTEXT)),
    ];
    if a.kv_heads > 0 && !a.heads.is_multiple_of(a.kv_heads) {
        let message = format!("{} query heads cannot share {} kv heads evenly", a.heads, a.kv_heads);
        found.push(Some(Problem {
            help: nearest_divisor(a.heads, a.kv_heads).map(|n| format!("{n} divides {}", a.heads)),
            ..Problem::new("kv_heads", message)
        }));
    }
    if a.rope.is_some() && !a.head_dim.is_multiple_of(2) {
        let message =
            format!("`head_dim` is {}; a rotary embedding pairs elements, so it must be even", a.head_dim);
        found.push(Some(Problem::new("head_dim", message)));
    }
    found
}

fn mamba2(m: &Mamba2) -> Vec<Option<Problem>> {
    let mut found = vec![
        count("heads", m.heads, MAX_DIM),
        count("head_dim", m.head_dim, MAX_DIM),
        count("state", m.state, MAX_DIM),
        count("groups", m.groups, MAX_DIM),
        count("conv", m.conv, MAX_CONV),
        product("heads", "the inner stream", m.heads, m.head_dim),
        product("groups", "B", m.groups, m.state),
        eps("norm_eps", m.norm_eps),
    ];
    if m.groups > 0 && !m.heads.is_multiple_of(m.groups) {
        let message = format!("{} heads cannot be split into {} groups evenly", m.heads, m.groups);
        found.push(Some(Problem {
            help: nearest_divisor(m.heads, m.groups).map(|n| format!("{n} divides {}", m.heads)),
            ..Problem::new("groups", message)
        }));
    }
    // Written so that NaN fails.
    let ordered = m.dt_min >= 0.0 && m.dt_min.is_finite() && m.dt_max > m.dt_min;
    if !ordered {
        let message =
            format!("`dt_limit` is [{:?}, {:?}]; it must rise from a number not below 0", m.dt_min, m.dt_max);
        let help = Some("[0.0, inf] means no limit".to_owned());
        found.push(Some(Problem { help, ..Problem::new("dt_limit", message) }));
    }
    found
}

fn ffn(f: &Ffn) -> Vec<Option<Problem>> {
    vec![count("width", f.width, MAX_DIM)]
}

/// The rules of a rotary embedding.
pub(crate) fn rope(rope: &Rope) -> Vec<Problem> {
    positive("theta", rope.theta).into_iter().collect()
}

/// The rules of the Llama 3 frequency scaling.
pub(crate) fn llama3(s: &Llama3Scaling) -> Vec<Problem> {
    let mut found: Vec<Problem> = [
        positive("factor", s.factor),
        positive("low_freq_factor", s.low_freq_factor),
        positive("high_freq_factor", s.high_freq_factor),
        count("original_context", s.original_context, MAX_CONTEXT),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() && s.high_freq_factor <= s.low_freq_factor {
        let message = format!(
            "`high_freq_factor` is {:?}; it must be above `low_freq_factor`, which is {:?}",
            s.high_freq_factor, s.low_freq_factor
        );
        found.push(Problem::new("high_freq_factor", message));
    }
    found
}

/// The rules of a q,k-norm.
pub(crate) fn qk_norm(norm: &QkNorm) -> Vec<Problem> {
    eps("eps", norm.eps).into_iter().collect()
}

/// The inner width that architecture search gives for a multiple of the hidden size: two thirds of the product, cut
/// to an integer, rounded up to a multiple of 256.
pub(crate) fn ffn_width(hidden: u64, mult: f64) -> Option<u64> {
    let width = (2.0 * mult * hidden as f64 / 3.0).trunc();
    (width >= 1.0 && width <= MAX_DIM as f64).then(|| (width as u64).next_multiple_of(256))
}

fn nearest_divisor(of: u64, near: u64) -> Option<u64> {
    (1..=of.min(1024)).filter(|n| of.is_multiple_of(*n)).min_by_key(|n| n.abs_diff(near))
}
