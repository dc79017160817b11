//! Reading one part: a pre-norm and a mixer.

use super::fields::{Fields, Value, read};
use crate::diagnostic::{Sink, suggest};
use crate::model::{
    Activation, Attention, Ffn, Linear, Llama3Scaling, Mamba2, Mixer, Norm, Part, QkNorm, Rope,
};
use crate::validate;
use toml::de::{DeArray, DeValue};

const MIXERS: [&str; 4] = ["attention", "mamba2", "ffn", "linear"];
const ACTIVATIONS: [Activation; 2] = [Activation::Relu2, Activation::SwiGlu];

/// What parts take from the top of the file.
#[derive(Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) hidden: Option<u64>,
    pub(crate) norm_eps: Option<f64>,
}

impl Defaults {
    fn eps(&self, sink: &mut Sink<'_>, fields: &mut Fields<'_>, key: &'static str) -> Option<f64> {
        match fields.get(sink, key) {
            Some(eps) => Some(eps),
            None if fields.has(key) => None,
            None => self.norm_eps,
        }
    }
}

/// Reads a norm: the name of its weight, or a table with the name and its own epsilon.
pub(crate) fn norm(
    sink: &mut Sink<'_>,
    fields: &mut Fields<'_>,
    key: &'static str,
    defaults: Defaults,
) -> Option<Norm> {
    let value: &Value<'_> = fields.need_as(sink, key, "the name of its weight")?;
    let (eps, tensor) = if matches!(value.get_ref(), DeValue::Table(_)) {
        let mut nested = fields.table(sink, key)?;
        let tensor = tensor(sink, &mut nested, "tensor");
        let eps = defaults.eps(sink, &mut nested, "eps");
        nested.report(sink, eps.and_then(|eps| validate::eps("eps", eps)));
        nested.finish(sink);
        (eps, tensor)
    } else {
        (defaults.norm_eps, tensor(sink, fields, key))
    };
    Some(Norm { eps: eps?, tensor: tensor? })
}

/// Reads the name of a tensor.
pub(crate) fn tensor(sink: &mut Sink<'_>, fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    let name: &str = fields.need(sink, key)?;
    checked_name(sink, fields, key, name)
}

fn checked_name(sink: &mut Sink<'_>, fields: &Fields<'_>, key: &str, name: &str) -> Option<String> {
    match validate::tensor_name(name) {
        Some(problem) => {
            let help = name.contains('{').then(|| {
                "`{}` stands for the role in the `tensors` of attention and ffn, `{layer}` for the layer in `prefix`"
                    .to_owned()
            });
            sink.error_with_help(&fields.span(key), problem, help);
            None
        }
        None => Some(name.to_owned()),
    }
}

/// Reads a part. `None` when something is missing or malformed; all of it has been reported then.
pub(crate) fn part(sink: &mut Sink<'_>, mut fields: Fields<'_>, defaults: Defaults) -> Option<Part> {
    let norm = norm(sink, &mut fields, "norm", defaults);
    let kind: &str = fields.need(sink, "mixer")?;
    let mixer = match kind {
        "attention" => attention(sink, &mut fields, defaults).map(Mixer::Attention),
        "mamba2" => mamba2(sink, &mut fields, defaults).map(Mixer::Mamba2),
        "ffn" => ffn(sink, &mut fields, defaults).map(Mixer::Ffn),
        "linear" => tensor(sink, &mut fields, "tensor").map(|tensor| Mixer::Linear(Linear { tensor })),
        _ => {
            // Its other keys cannot be judged without knowing the mixer.
            let message = format!("unknown mixer `{kind}`");
            sink.error_with_help(&fields.span("mixer"), message, suggest(kind, MIXERS));
            return None;
        }
    };
    let part = norm.zip(mixer).map(|(norm, mixer)| Part { norm, mixer });
    if let Some(part) = &part {
        fields.report(sink, validate::part(part));
    }
    fields.finish(sink);
    part
}

fn attention(sink: &mut Sink<'_>, fields: &mut Fields<'_>, defaults: Defaults) -> Option<Attention> {
    let heads = fields.need(sink, "heads");
    let kv_heads = fields.need(sink, "kv_heads");
    let head_dim = fields.need(sink, "head_dim");
    let rope = fields.table(sink, "rope").map(|nested| rope(sink, nested));
    let qk_norm = fields.table(sink, "qk_norm").map(|nested| qk_norm(sink, nested, defaults));
    let window = fields.get(sink, "window");
    let [q, k, v, o] = roles(sink, fields, ["q", "k", "v", "o"]);
    Some(Attention {
        heads: heads?,
        kv_heads: kv_heads?,
        head_dim: head_dim?,
        rope: transpose(rope)?,
        qk_norm: transpose(qk_norm)?,
        window,
        q: q?,
        k: k?,
        v: v?,
        o: o?,
    })
}

/// A table that is absent is fine; one that is there must be readable.
fn transpose<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

fn rope(sink: &mut Sink<'_>, mut fields: Fields<'_>) -> Option<Rope> {
    let theta = fields.need(sink, "theta");
    let scaling = fields.table(sink, "llama3").map(|nested| llama3(sink, nested));
    let rope = theta.zip(transpose(scaling)).map(|(theta, scaling)| Rope { theta, scaling });
    if let Some(rope) = &rope {
        fields.report(sink, validate::rope(rope));
    }
    fields.finish(sink);
    rope
}

fn llama3(sink: &mut Sink<'_>, mut fields: Fields<'_>) -> Option<Llama3Scaling> {
    let factor = fields.need(sink, "factor");
    let low = fields.need(sink, "low_freq_factor");
    let high = fields.need(sink, "high_freq_factor");
    let original = fields.need(sink, "original_context");
    let read = || {
        Some(Llama3Scaling {
            factor: factor?,
            low_freq_factor: low?,
            high_freq_factor: high?,
            original_context: original?,
        })
    };
    let scaling = read();
    if let Some(scaling) = &scaling {
        fields.report(sink, validate::llama3(scaling));
    }
    fields.finish(sink);
    scaling
}

fn qk_norm(sink: &mut Sink<'_>, mut fields: Fields<'_>, defaults: Defaults) -> Option<QkNorm> {
    let q = tensor(sink, &mut fields, "q");
    let k = tensor(sink, &mut fields, "k");
    let eps = defaults.eps(sink, &mut fields, "eps");
    let read = || Some(QkNorm { eps: eps?, q_tensor: q?, k_tensor: k? });
    let norm = read();
    if let Some(norm) = &norm {
        fields.report(sink, validate::qk_norm(norm));
    }
    fields.finish(sink);
    norm
}

fn mamba2(sink: &mut Sink<'_>, fields: &mut Fields<'_>, defaults: Defaults) -> Option<Mamba2> {
    let heads = fields.need(sink, "heads");
    let head_dim = fields.need(sink, "head_dim");
    let state = fields.need(sink, "state");
    let groups = fields.need(sink, "groups");
    let conv = fields.need(sink, "conv");
    let conv_bias = fields.get(sink, "conv_bias").unwrap_or(true);
    let limit = dt_limit(sink, fields);
    let norm_eps = defaults.eps(sink, fields, "norm_eps");
    let mut names = fields.need_table(sink, "tensors")?;
    let mut name = |key| tensor(sink, &mut names, key);
    let (in_proj, conv_weight) = (name("in_proj"), name("conv_weight"));
    let conv_bias_tensor = if conv_bias { name("conv_bias") } else { Some(String::new()) };
    let (dt_bias, a_log, d) = (name("dt_bias"), name("a_log"), name("d"));
    let (norm, out_proj) = (name("norm"), name("out_proj"));
    names.finish(sink);
    let (dt_min, dt_max) = limit?;
    Some(Mamba2 {
        heads: heads?,
        head_dim: head_dim?,
        state: state?,
        groups: groups?,
        conv: conv?,
        conv_bias,
        dt_min,
        dt_max,
        norm_eps: norm_eps?,
        in_proj: in_proj?,
        conv_weight: conv_weight?,
        conv_bias_tensor: conv_bias_tensor?,
        dt_bias: dt_bias?,
        a_log: a_log?,
        d: d?,
        norm: norm?,
        out_proj: out_proj?,
    })
}

fn dt_limit(sink: &mut Sink<'_>, fields: &mut Fields<'_>) -> Option<(f64, f64)> {
    if !fields.has("dt_limit") {
        fields.know("dt_limit");
        return Some((0.0, f64::INFINITY));
    }
    let limits: &DeArray<'_> = fields.get(sink, "dt_limit")?;
    let values: Vec<&Value<'_>> = limits.iter().collect();
    let [low, high] = values.as_slice() else {
        sink.error(&fields.span("dt_limit"), "`dt_limit` must have two numbers, like [0.0, inf]");
        return None;
    };
    Some((read(sink, "dt_limit", low)?, read(sink, "dt_limit", high)?))
}

fn ffn(sink: &mut Sink<'_>, fields: &mut Fields<'_>, defaults: Defaults) -> Option<Ffn> {
    let width = width(sink, fields, defaults);
    let Some(activation) = activation(sink, fields) else {
        // Which tensors there are depends on it.
        fields.know("tensors");
        return None;
    };
    let (gate, up, down) = if activation.gated() {
        let [gate, up, down] = roles(sink, fields, ["gate", "up", "down"]);
        (Some(gate?), up, down)
    } else {
        let [up, down] = roles(sink, fields, ["up", "down"]);
        (None, up, down)
    };
    Some(Ffn { width: width?, activation, gate, up: up?, down: down? })
}

fn activation(sink: &mut Sink<'_>, fields: &mut Fields<'_>) -> Option<Activation> {
    let name: &str = fields.need(sink, "activation")?;
    let found = ACTIVATIONS.into_iter().find(|known| known.name() == name);
    if found.is_none() {
        let message = format!("unknown activation `{name}`");
        let known = ACTIVATIONS.map(Activation::name);
        sink.error_with_help(&fields.span("activation"), message, suggest(name, known));
    }
    found
}

fn width(sink: &mut Sink<'_>, fields: &mut Fields<'_>, defaults: Defaults) -> Option<u64> {
    let mult: Option<f64> = fields.get(sink, "ffn_mult");
    if !fields.has("ffn_mult") {
        if !fields.has("width") {
            fields.missing(sink, "width", "a natural number (or `ffn_mult`, a number)");
        }
        return fields.get(sink, "width");
    }
    let written: Option<u64> = fields.get(sink, "width");
    let (mult, hidden) = (mult?, defaults.hidden?);
    let Some(width) = validate::ffn_width(hidden, mult) else {
        let message = format!("`ffn_mult` {mult:?} of {hidden} gives no usable width");
        sink.error(&fields.span("ffn_mult"), message);
        return None;
    };
    if let Some(written) = written.filter(|written| *written != width) {
        let message = format!("`width` is {written}, but `ffn_mult` {mult:?} of {hidden} gives {width}");
        let help =
            "the rule is 2/3 * ffn_mult * hidden, rounded up to a multiple of 256; keep one of the two keys";
        sink.error_with_help(&fields.span("width"), message, help.to_owned());
    }
    Some(width)
}

/// Reads the tensor names of some roles: a template with `{}` for the role, or a table by role.
fn roles<const N: usize>(
    sink: &mut Sink<'_>,
    fields: &mut Fields<'_>,
    roles: [&'static str; N],
) -> [Option<String>; N] {
    let Some(value) = fields.need_as::<&Value<'_>>(sink, "tensors", "a template of names or a table of them")
    else {
        return roles.map(|_| None);
    };
    let DeValue::String(template) = value.get_ref() else {
        let Some(mut names) = fields.table(sink, "tensors") else {
            return roles.map(|_| None);
        };
        let read = roles.map(|role| tensor(sink, &mut names, role));
        names.finish(sink);
        return read;
    };
    if template.matches("{}").count() != 1 {
        let message = "a tensor template must have `{}` once, in the place of the role";
        let help = format!("the roles are {}, as in \"mixer.{{}}_proj.weight\"", roles.join(", "));
        sink.error_with_help(&value.span(), message, help);
        return roles.map(|_| None);
    }
    roles.map(|role| checked_name(sink, fields, "tensors", &template.replace("{}", role)))
}
