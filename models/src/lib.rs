//! Declarative descriptions of language models.

mod builtin;
mod counts;
mod diagnostic;
mod import;
mod model;
mod print;
mod rope;
mod schema;
mod tensors;
mod validate;

pub use builtin::{builtin_names, builtin_source, nearest_builtin};
pub use counts::Counts;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use import::{ImportError, import_hf};
pub use model::{
    Activation, Attention, Block, Dtype, Embedding, Ffn, Head, Linear, Llama3Scaling, Mamba2, Mixer, Model,
    Norm, Part, QkNorm, Rope,
};
pub use tensors::TensorSpec;
