//! Writing a model as a model file.

mod shape;

use std::fmt::Write as _;

use self::shape::{Group, Shape, WrittenPart};
use crate::model::{Attention, Ffn, Mamba2, Mixer, Model, Norm, Part};
use crate::schema::ranges;
use crate::schema::resolve::with_suffix;

/// Models with more distinct blocks than this are written in runs, not letters.
const LETTERED: usize = 8;

impl Model {
    /// Writes the model as a model file that [`Model::parse_toml`] reads back as the same model.
    ///
    /// Blocks that differ only in the widths of their feed-forward networks are written once, with the widths in the
    /// layer list.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let shape = Shape::of(self);
        let mut out = Writer { text: String::new(), norm_eps: self.head.norm.eps };
        out.header(self);
        for part in &shape.parts {
            out.part(part);
        }
        out.blocks(&shape);
        out.layers(self, &shape);
        out.text
    }
}

struct Writer {
    text: String,
    norm_eps: f64,
}

impl Writer {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn key(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(format!("{key} = {value}"));
    }

    fn header(&mut self, model: &Model) {
        self.key("name", quote(&model.name));
        if !model.description.is_empty() {
            self.key("description", quote(&model.description));
        }
        self.key("dtype", quote(model.dtype.name()));
        self.key("hidden", model.hidden);
        self.key("vocab", model.vocab);
        self.key("max_context", model.max_context);
        self.key("norm_eps", float(self.norm_eps));
        if let Some(bos) = model.bos {
            self.key("bos", bos);
        }
        match model.eos.as_slice() {
            [one] => self.key("eos", one),
            list => self.key("eos", format!("{list:?}")),
        }
        if !model.root_aliases.is_empty() {
            let one = |(prefix, also): &(String, String)| {
                format!("{{ prefix = {}, also = {} }}", quote(prefix), quote(also))
            };
            let list: Vec<String> = model.root_aliases.iter().map(one).collect();
            self.key("aliases", format!("[{}]", list.join(", ")));
        }
        self.line("\n[embedding]");
        self.key("tensor", quote(&model.embedding.tensor));
        self.line("\n[head]");
        self.norm(&model.head.norm);
        match &model.head.tensor {
            Some(tensor) => self.key("tensor", quote(tensor)),
            None => self.key("tied", true),
        }
    }

    fn norm(&mut self, norm: &Norm) {
        let tensor = quote(&norm.tensor);
        if norm.eps == self.norm_eps {
            self.key("norm", tensor);
        } else {
            self.key("norm", format!("{{ tensor = {tensor}, eps = {} }}", float(norm.eps)));
        }
    }

    fn part(&mut self, written: &WrittenPart) {
        self.line(format!("\n[parts.{}]", written.name));
        let kind = match written.part.mixer {
            Mixer::Attention(_) => "attention",
            Mixer::Mamba2(_) => "mamba2",
            Mixer::Ffn(_) => "ffn",
            Mixer::Linear(_) => "linear",
        };
        self.key("mixer", quote(kind));
        self.norm(&written.part.norm);
        match &written.part.mixer {
            Mixer::Attention(attention) => self.attention(attention),
            Mixer::Mamba2(mamba) => self.mamba2(mamba),
            Mixer::Ffn(ffn) => self.ffn(ffn, written.open_width),
            Mixer::Linear(linear) => self.key("tensor", quote(&linear.tensor)),
        }
    }

    fn attention(&mut self, a: &Attention) {
        self.key("heads", a.heads);
        self.key("kv_heads", a.kv_heads);
        self.key("head_dim", a.head_dim);
        if let Some(rope) = &a.rope {
            self.key("rope.theta", float(rope.theta));
            if let Some(s) = &rope.scaling {
                self.key(
                    "rope.llama3",
                    format!(
                        "{{ factor = {}, low_freq_factor = {}, high_freq_factor = {}, original_context = {} }}",
                        float(s.factor),
                        float(s.low_freq_factor),
                        float(s.high_freq_factor),
                        s.original_context
                    ),
                );
            }
        }
        if let Some(norm) = &a.qk_norm {
            let own = if norm.eps == self.norm_eps {
                String::new()
            } else {
                format!(", eps = {}", float(norm.eps))
            };
            let (q, k) = (quote(&norm.q_tensor), quote(&norm.k_tensor));
            self.key("qk_norm", format!("{{ q = {q}, k = {k}{own} }}"));
        }
        if let Some(window) = a.window {
            self.key("window", window);
        }
        self.roles(&[("q", &a.q), ("k", &a.k), ("v", &a.v), ("o", &a.o)]);
    }

    fn mamba2(&mut self, m: &Mamba2) {
        self.key("heads", m.heads);
        self.key("head_dim", m.head_dim);
        self.key("state", m.state);
        self.key("groups", m.groups);
        self.key("conv", m.conv);
        self.key("conv_bias", m.conv_bias);
        self.key("dt_limit", format!("[{}, {}]", float(m.dt_min), float(m.dt_max)));
        if m.norm_eps != self.norm_eps {
            self.key("norm_eps", float(m.norm_eps));
        }
        self.key("tensors.in_proj", quote(&m.in_proj));
        self.key("tensors.conv_weight", quote(&m.conv_weight));
        if m.conv_bias {
            self.key("tensors.conv_bias", quote(&m.conv_bias_tensor));
        }
        self.key("tensors.dt_bias", quote(&m.dt_bias));
        self.key("tensors.a_log", quote(&m.a_log));
        self.key("tensors.d", quote(&m.d));
        self.key("tensors.norm", quote(&m.norm));
        self.key("tensors.out_proj", quote(&m.out_proj));
    }

    fn ffn(&mut self, f: &Ffn, open_width: bool) {
        if !open_width {
            self.key("width", f.width);
        }
        self.key("activation", quote(f.activation.name()));
        let gate = f.gate.as_ref().map(|gate| ("gate", gate));
        let roles: Vec<_> = gate.into_iter().chain([("up", &f.up), ("down", &f.down)]).collect();
        self.roles(&roles);
    }

    /// Writes tensor names as a template where one fits them all.
    fn roles(&mut self, roles: &[(&str, &String)]) {
        let Some((role, name)) = roles.first() else { return };
        let templates = name.match_indices(role).map(|(at, _)| {
            let (before, after) = (&name[..at], &name[at + role.len()..]);
            (before, after)
        });
        for (before, after) in templates {
            if roles.iter().all(|(role, name)| **name == format!("{before}{role}{after}")) {
                return self.key("tensors", quote(&format!("{before}{{}}{after}")));
            }
        }
        for (role, name) in roles {
            self.key(&format!("tensors.{role}"), quote(name));
        }
    }

    fn blocks(&mut self, shape: &Shape) {
        let names = |group: &Group| -> Vec<String> {
            group.parts.iter().map(|part| shape.parts[*part].name.clone()).collect()
        };
        let mut titled = false;
        for group in &shape.groups {
            let parts = names(group);
            // A part is a block of its own name already.
            if parts.as_slice() == [group.name.clone()] {
                continue;
            }
            if !titled {
                self.line("\n[blocks]");
                titled = true;
            }
            self.key(&group.name, format!("{parts:?}"));
        }
    }

    fn layers(&mut self, model: &Model, shape: &Shape) {
        self.line("\n[layers]");
        self.key("prefix", quote(&model.layer_prefix));
        self.key("count", model.layers.len());
        let plain = model.blocks.iter().zip(&shape.member).all(|(block, group)| {
            let group = &shape.groups[*group];
            group.name == block.name && !shape.is_open(group)
        });
        if plain && (2..=LETTERED).contains(&model.blocks.len()) {
            self.pattern(model);
        } else {
            self.runs(model, shape);
        }
    }

    fn pattern(&mut self, model: &Model) {
        let mut letters: Vec<char> = Vec::new();
        for block in &model.blocks {
            let usual = match block.parts.as_slice() {
                [] => '.',
                [Part { mixer: Mixer::Attention(_), .. }] => '*',
                [Part { mixer: Mixer::Mamba2(_), .. }] => 'M',
                [Part { mixer: Mixer::Ffn(_), .. }] => '-',
                _ => 'L',
            };
            let letter = std::iter::once(usual).chain('A'..='Z').find(|letter| !letters.contains(letter));
            letters.push(letter.unwrap_or(usual));
        }
        let table: Vec<String> = letters
            .iter()
            .zip(&model.blocks)
            .map(|(letter, block)| format!("{} = {}", quote(&letter.to_string()), quote(&block.name)))
            .collect();
        let pattern: String = model.layers.iter().filter_map(|block| letters.get(*block)).collect();
        self.key("letters", format!("{{ {} }}", table.join(", ")));
        self.key("pattern", quote(&pattern));
    }

    fn runs(&mut self, model: &Model, shape: &Shape) {
        self.line("runs = [");
        for (index, block) in model.blocks.iter().enumerate() {
            let group = &shape.groups[shape.member[index]];
            let at: Vec<usize> =
                (0..model.layers.len()).filter(|layer| model.layers[*layer] == index).collect();
            let mut entry = format!("at = {}, block = {}", quote(&ranges::print(&at)), quote(&group.name));
            for (part, own) in group.parts.iter().zip(&block.parts) {
                let written = &shape.parts[*part];
                if let (true, Mixer::Ffn(ffn)) = (written.open_width, &own.mixer) {
                    // Writing to a string cannot fail.
                    let _ = write!(entry, ", {}.width = {}", written.name, ffn.width);
                }
            }
            let widths = shape.widths(group, block);
            let name = widths.iter().fold(group.name.clone(), |name, width| with_suffix(&name, width));
            if name != block.name {
                let _ = write!(entry, ", as = {}", quote(&block.name));
            }
            self.line(format!("  {{ {entry} }},"));
        }
        self.line("]");
    }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The shortest text that reads back as the same number.
fn float(value: f64) -> String {
    format!("{value:?}")
}
