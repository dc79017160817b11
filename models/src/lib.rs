//! Declarative descriptions of language models.
//!
//! A [`Model`] says what a checkpoint computes and how its tensors are called. It is read from a model file, of which
//! thirteen are built in, or from a checkpoint's `config.json`; it is checked on the way in, counted, and written back.
//! Nothing here knows about the compiler, devices or weights. The README beside this crate describes the files.
//!
//! ```
//! use nemo_models::Model;
//!
//! let nano = Model::builtin("nemotron-nano-9b-v2").unwrap();
//! assert_eq!(nano.counts().parameters, 8_888_227_328);
//! assert_eq!(nano.blocks[nano.layers[14]].name, "attention");
//! assert_eq!(nano.tensors()[1].name, "backbone.layers.0.norm.weight");
//!
//! let problems = Model::parse_toml("hiden = 4480", "mine.toml").unwrap_err();
//! assert!(problems.to_string().contains("did you mean `hidden`?"));
//! ```

mod builtin;
mod counts;
mod diagnostic;
mod import;
mod model;
mod print;
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
