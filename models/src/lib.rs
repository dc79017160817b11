//! Declarative descriptions of language models.

mod model;
mod rope;

pub use model::{
    Activation, Attention, Block, Dtype, Embedding, Ffn, Head, Linear, Llama3Scaling, Mamba2, Mixer, Model,
    Norm, Part, QkNorm, Rope,
};
