//! The tensors of a checkpoint: every name and shape that a model expects.

use std::collections::HashSet;

use crate::model::{Mixer, Model, Part};

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Full name, in the model's own spelling.
    pub name: String,
    /// Dimensions, the slowest first.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, dim| product.saturating_mul(*dim))
    }
}

impl Model {
    /// The full name of a layer's tensor.
    #[must_use]
    pub fn layer_tensor(&self, layer: usize, name: &str) -> String {
        format!("{}{name}", self.layer_prefix.replace("{layer}", &layer.to_string()))
    }

    /// Every tensor of the checkpoint: embedding, layers in order, final norm, head.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let spec = |name: &str, shape: &[u64]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
        let mut list = vec![spec(&self.embedding.tensor, &[self.vocab, self.hidden])];
        for (layer, block) in self.layers.iter().enumerate() {
            let parts = self.blocks.get(*block).map_or(&[][..], |block| &block.parts);
            for part in parts {
                let tensors = part.tensors(self.hidden).into_iter();
                list.extend(
                    tensors.map(|(name, shape)| TensorSpec { name: self.layer_tensor(layer, name), shape }),
                );
            }
        }
        list.push(spec(&self.head.norm.tensor, &[self.hidden]));
        list.extend(self.head.tensor.as_deref().map(|name| spec(name, &[self.vocab, self.hidden])));
        list
    }

    /// A tensor name that two weights claim.
    pub(crate) fn repeated_tensor(&self) -> Option<String> {
        let mut seen = HashSet::new();
        self.tensors().into_iter().map(|tensor| tensor.name).find(|name| !seen.insert(name.clone()))
    }
}

impl Part {
    /// Names, relative to the layer prefix, and shapes of the part's tensors in a model of the given width.
    #[must_use]
    pub fn tensors(&self, hidden: u64) -> Vec<(&str, Vec<u64>)> {
        let mut list: Vec<(&str, Vec<u64>)> = vec![(&self.norm.tensor, vec![hidden])];
        match &self.mixer {
            Mixer::Attention(a) => {
                list.push((&a.q, vec![a.q_width(), hidden]));
                list.push((&a.k, vec![a.kv_width(), hidden]));
                list.push((&a.v, vec![a.kv_width(), hidden]));
                list.push((&a.o, vec![hidden, a.q_width()]));
                if let Some(norm) = &a.qk_norm {
                    list.push((&norm.q_tensor, vec![a.head_dim]));
                    list.push((&norm.k_tensor, vec![a.head_dim]));
                }
            }
            Mixer::Mamba2(m) => {
                list.push((&m.in_proj, vec![m.in_proj_rows(), hidden]));
                list.push((&m.conv_weight, vec![m.conv_dim(), 1, m.conv]));
                if m.conv_bias {
                    list.push((&m.conv_bias_tensor, vec![m.conv_dim()]));
                }
                list.push((&m.dt_bias, vec![m.heads]));
                list.push((&m.a_log, vec![m.heads]));
                list.push((&m.d, vec![m.heads]));
                list.push((&m.norm, vec![m.d_inner()]));
                list.push((&m.out_proj, vec![hidden, m.d_inner()]));
            }
            Mixer::Ffn(f) => {
                list.extend(f.gate.as_deref().map(|gate| (gate, vec![f.width, hidden])));
                list.push((&f.up, vec![f.width, hidden]));
                list.push((&f.down, vec![hidden, f.width]));
            }
            Mixer::Linear(l) => list.push((&l.tensor, vec![hidden, hidden])),
        }
        list
    }
}
