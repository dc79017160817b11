//! Sizes of a model: parameters, and what a token and a sequence take in the caches.

use crate::model::{Block, Mixer, Model};

/// Bytes of a bf16 element; the caches of attention and convolution are bf16.
const BF16: u64 = 2;
/// Bytes of an f32 element; the state of the scan is kept in f32, since quality suffers otherwise.
const F32: u64 = 4;

/// Sizes of a model. They saturate instead of overflowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Elements of all tensors in the checkpoint.
    pub parameters: u64,
    /// Bytes of the checkpoint in the model's dtype.
    pub bytes: u64,
    /// Bytes of keys and values per token of context, in bf16.
    pub kv_bytes_per_token: u64,
    /// Bytes of scan state per sequence, in f32.
    pub ssm_state_bytes: u64,
    /// Bytes of convolution state per sequence, in bf16: one column less than the convolution has taps.
    pub conv_state_bytes: u64,
    /// Layer slots.
    pub layers: usize,
    /// Slots with attention.
    pub attention_layers: usize,
    /// Slots with a Mamba-2 mixer.
    pub mamba_layers: usize,
    /// Slots with a feed-forward network.
    pub ffn_layers: usize,
    /// Slots with a linear mixer.
    pub linear_layers: usize,
    /// Slots with nothing.
    pub empty_layers: usize,
}

impl Model {
    /// Counts parameters, cache bytes and layers.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { layers: self.layers.len(), ..Counts::default() };
        for tensor in self.tensors() {
            counts.parameters = counts.parameters.saturating_add(tensor.elements());
        }
        counts.bytes = counts.parameters.saturating_mul(self.dtype.bytes());
        for block in self.layers.iter().filter_map(|block| self.blocks.get(*block)) {
            counts.add_layer(block);
        }
        counts
    }
}

impl Counts {
    fn add_layer(&mut self, block: &Block) {
        let has = |kind: fn(&Mixer) -> bool| usize::from(block.parts.iter().any(|part| kind(&part.mixer)));
        self.attention_layers += has(|mixer| matches!(mixer, Mixer::Attention(_)));
        self.mamba_layers += has(|mixer| matches!(mixer, Mixer::Mamba2(_)));
        self.ffn_layers += has(|mixer| matches!(mixer, Mixer::Ffn(_)));
        self.linear_layers += has(|mixer| matches!(mixer, Mixer::Linear(_)));
        self.empty_layers += usize::from(block.parts.is_empty());
        for part in &block.parts {
            match &part.mixer {
                Mixer::Attention(a) => add(&mut self.kv_bytes_per_token, &[2, a.kv_width(), BF16]),
                Mixer::Mamba2(m) => {
                    add(&mut self.ssm_state_bytes, &[m.d_inner(), m.state, F32]);
                    add(&mut self.conv_state_bytes, &[m.conv_dim(), m.conv.saturating_sub(1), BF16]);
                }
                Mixer::Ffn(_) | Mixer::Linear(_) => {}
            }
        }
    }
}

fn add(sum: &mut u64, factors: &[u64]) {
    let product = factors.iter().fold(1u64, |product, factor| product.saturating_mul(*factor));
    *sum = sum.saturating_add(product);
}
