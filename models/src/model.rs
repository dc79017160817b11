//! The model description: what a checkpoint computes, block by block, and how its tensors are called.
//!
//! A [`Model`] is plain data. It comes from a TOML file ([`Model::parse_toml`]), from the built-in files
//! ([`Model::builtin`]) or from a Hugging Face configuration ([`crate::import_hf`]), and is checked on the way in:
//! whoever holds one from these sources may rely on every dimension being positive, on `kv_heads` dividing `heads`,
//! on `groups` dividing the heads of a Mamba-2 mixer, and on sizes that cannot overflow 64-bit element counts of one
//! tensor.

/// How the weights are stored, and the number format of the residual stream between blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// bfloat16: what every released system uses.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// The name used in model files: `bf16` or `f32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// One model: an embedding, a list of layers that refer to distinct blocks, and a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Short name, such as `nemotron-nano-9b-v2`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Stored dtype of the weights and dtype of the residual stream.
    pub dtype: Dtype,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Rows of the embedding and of the head.
    pub vocab: u64,
    /// Positions the model was made for.
    pub max_context: u64,
    /// Token that starts a text, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text or a turn.
    pub eos: Vec<u32>,
    /// The token embedding.
    pub embedding: Embedding,
    /// The final norm and the projection to the vocabulary.
    pub head: Head,
    /// Prefix of a layer's tensors, with `{layer}` standing for the index in the layer list, for instance
    /// `backbone.layers.{layer}.`; empty slots keep their index.
    pub layer_prefix: String,
    /// A checkpoint may spell the first prefix as the second: `("backbone.", "model.")`.
    pub root_aliases: Vec<(String, String)>,
    /// The distinct blocks that the layers use, in order of first use.
    pub blocks: Vec<Block>,
    /// One entry per layer slot: an index into `blocks`.
    pub layers: Vec<usize>,
}

/// The token embedding, `[vocab, hidden]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Full tensor name.
    pub tensor: String,
}

/// The end of the model: norm, then the product with the vocabulary matrix, logits in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The final norm; its tensor name is a full one.
    pub norm: Norm,
    /// Full name of the `[vocab, hidden]` tensor; `None` when it is tied to the embedding.
    pub tensor: Option<String>,
}

/// A layer body: parts that each add to the residual stream, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Unique name made of `[a-z0-9_]`.
    pub name: String,
    /// The parts in order; empty for a slot that does nothing.
    pub parts: Vec<Part>,
}

/// One residual step: `x = x + mixer(norm(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The pre-norm.
    pub norm: Norm,
    /// What mixes the normed stream.
    pub mixer: Mixer,
}

/// An RMSNorm with a weight: computed in f32, multiplied by the weight in f32, rounded once.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Added to the mean square.
    pub eps: f64,
    /// Name of the weight; relative to the layer prefix, except in the head.
    pub tensor: String,
}

/// The kinds of mixers. Tensor names in them are relative to the layer prefix.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Causal attention with grouped key and value heads.
    Attention(Attention),
    /// The Mamba-2 selective state space mixer.
    Mamba2(Mamba2),
    /// A feed-forward network.
    Ffn(Ffn),
    /// One square matrix in the place of a mixer.
    Linear(Linear),
}

/// Causal softmax attention with scale `head_dim^-0.5`; query head `h` reads kv head `h / (heads / kv_heads)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u64,
    /// Width of one head. The query width `heads * head_dim` need not be the hidden size.
    pub head_dim: u64,
    /// Rotary position embedding; `None` for no position encoding at all.
    pub rope: Option<Rope>,
    /// RMSNorm over each head of q and k, before the rotation.
    pub qk_norm: Option<QkNorm>,
    /// Attend only to the last so many positions, the current one included.
    pub window: Option<u64>,
    /// Query projection, `[heads * head_dim, hidden]`.
    pub q: String,
    /// Key projection, `[kv_heads * head_dim, hidden]`.
    pub k: String,
    /// Value projection, `[kv_heads * head_dim, hidden]`.
    pub v: String,
    /// Output projection, `[hidden, heads * head_dim]`.
    pub o: String,
}

impl Attention {
    /// Width of all query heads together.
    #[must_use]
    pub fn q_width(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_width(&self) -> u64 {
        self.kv_heads * self.head_dim
    }
}

/// RMSNorm over the `head_dim` elements of each query and key head.
#[derive(Debug, Clone, PartialEq)]
pub struct QkNorm {
    /// Added to the mean square.
    pub eps: f64,
    /// Weight for q, `[head_dim]`.
    pub q_tensor: String,
    /// Weight for k, `[head_dim]`.
    pub k_tensor: String,
}

/// Rotary position embedding in the half-split layout: element `i` pairs with `i + head_dim / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// The Llama 3 rule for long contexts.
    pub scaling: Option<Llama3Scaling>,
}

/// Llama 3 frequency scaling: long wavelengths are slowed by `factor`, short ones kept, those between blended.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama3Scaling {
    /// Slow-down of the long wavelengths.
    pub factor: f64,
    /// Wavelengths above `original_context / low_freq_factor` are long.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_context / high_freq_factor` are short.
    pub high_freq_factor: f64,
    /// Context of the training before the extension.
    pub original_context: u64,
}

/// The Mamba-2 mixer. The rows of its input projection are z, x, B, C, dt, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2 {
    /// Heads of the state space.
    pub heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// State columns per channel.
    pub state: u64,
    /// Groups of heads that share B and C, and groups of the gated norm; divides `heads`.
    pub groups: u64,
    /// Taps of the causal depthwise convolution over x, B and C.
    pub conv: u64,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Lower clamp of dt after the softplus; 0 for none.
    pub dt_min: f64,
    /// Upper clamp of dt after the softplus; infinity for none.
    pub dt_max: f64,
    /// Epsilon of the gated group norm.
    pub norm_eps: f64,
    /// Input projection, `[in_proj_rows, hidden]`.
    pub in_proj: String,
    /// Convolution weight, `[conv_dim, 1, conv]`; the last tap multiplies the current token.
    pub conv_weight: String,
    /// Convolution bias, `[conv_dim]`; empty when `conv_bias` is false.
    pub conv_bias_tensor: String,
    /// Added to dt before the softplus, `[heads]`.
    pub dt_bias: String,
    /// Logarithm of the decay rate, `[heads]`.
    pub a_log: String,
    /// Skip weight, `[heads]`.
    pub d: String,
    /// Weight of the gated group norm, `[d_inner]`.
    pub norm: String,
    /// Output projection, `[hidden, d_inner]`.
    pub out_proj: String,
}

impl Mamba2 {
    /// Width of x, z and the output: `heads * head_dim`.
    #[must_use]
    pub fn d_inner(&self) -> u64 {
        self.heads * self.head_dim
    }

    /// Channels of the convolution: x, B and C.
    #[must_use]
    pub fn conv_dim(&self) -> u64 {
        self.d_inner() + 2 * self.groups * self.state
    }

    /// Rows of the input projection: z, then x, B and C, then one dt per head.
    #[must_use]
    pub fn in_proj_rows(&self) -> u64 {
        self.d_inner() + self.conv_dim() + self.heads
    }
}

/// A feed-forward network: `down(act(up(x)))`, or `down(act(gate(x)) * up(x))` when gated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ffn {
    /// Inner width.
    pub width: u64,
    /// The activation.
    pub activation: Activation,
    /// Gate projection, `[width, hidden]`; present exactly when the activation is gated.
    pub gate: Option<String>,
    /// Up projection, `[width, hidden]`.
    pub up: String,
    /// Down projection, `[hidden, width]`.
    pub down: String,
}

/// Activations of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)^2`, not gated.
    Relu2,
    /// `silu(gate) * up`.
    SwiGlu,
}

impl Activation {
    /// Whether a gate projection belongs to it.
    #[must_use]
    pub fn gated(self) -> bool {
        matches!(self, Self::SwiGlu)
    }

    /// The name used in model files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu2 => "relu2",
            Self::SwiGlu => "swiglu",
        }
    }
}

/// One `[hidden, hidden]` matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// Tensor name.
    pub tensor: String,
}
