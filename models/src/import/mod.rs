//! Reading the `config.json` of a checkpoint.
//!
//! Only what the file says and what its architecture documents as a default is used. A key that could change the
//! mathematics and is not understood stops the import: it is never ignored.

mod config;
mod json;
mod llama;
mod nas;
mod nemotron_h;

use crate::model::{Block, Dtype, Embedding, Head, Model, Norm};
use crate::validate;
use config::Config;

/// Why a configuration was not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is not JSON.
    #[error("{file}:{line}:{column}: this is not JSON: {reason}")]
    Json {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// The file is JSON, but not an object.
    #[error("{file}: a model configuration is a JSON object, but this file has another value")]
    NotAnObject {
        /// The file.
        file: String,
    },
    /// No importer for this kind of model.
    #[error("{file}: `{key}` is {value}, which is not supported; supported are {supported}")]
    Architecture {
        /// The file.
        file: String,
        /// `model_type` or `architectures`.
        key: String,
        /// What the file has.
        value: String,
        /// What would be understood.
        supported: String,
    },
    /// A key is not there.
    #[error("{file}: `{key}` is missing; it should be {expected}")]
    Missing {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it should hold.
        expected: String,
    },
    /// A key has a value of another kind.
    #[error("{file}: `{key}` is {value}; it must be {expected}")]
    Kind {
        /// The file.
        file: String,
        /// The key, with the path to it.
        key: String,
        /// What the file has.
        value: String,
        /// What it should hold.
        expected: String,
    },
    /// A key that is understood has a value that is not.
    #[error("{file}: `{key}` is {value}; supported is {supported}")]
    Unsupported {
        /// The file.
        file: String,
        /// The key, with the path to it.
        key: String,
        /// What the file has.
        value: String,
        /// What would be understood.
        supported: String,
    },
    /// A key that is not known at all.
    #[error("{file}: the key `{key}` (here {value}) is unknown, and ignoring it could change the results")]
    Unknown {
        /// The file.
        file: String,
        /// The key, with the path to it.
        key: String,
        /// What the file has.
        value: String,
    },
    /// The values do not make a model.
    #[error("{file}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// What does not fit.
        problem: String,
    },
}

/// Reads the configuration of one kind of model.
type Importer = fn(&mut Config<'_>) -> Result<Model, ImportError>;

/// Imports a checkpoint's `config.json`. `file` is its name in errors, `name` becomes the name of the model.
///
/// Understood are the model types `nemotron_h`, `nemotron-nas`, `llama` and `qwen3`. The bare words `Infinity` and
/// `NaN`, which some released files have, are accepted although strict JSON has none.
///
/// # Errors
///
/// One sentence that names the file, the key, its value and what is supported.
pub fn import_hf(config_json: &str, file: &str, name: &str) -> Result<Model, ImportError> {
    let map = json::parse(config_json, file)?;
    let mut config = Config::new(file, &map);
    let kind = config.need_str("model_type")?;
    let (architecture, import): (_, Importer) = match kind {
        "nemotron_h" => ("NemotronHForCausalLM", nemotron_h::import),
        "nemotron-nas" => ("DeciLMForCausalLM", nas::import),
        "llama" => ("LlamaForCausalLM", llama::import),
        "qwen3" => ("Qwen3ForCausalLM", llama::import_qwen3),
        _ => {
            return Err(ImportError::Architecture {
                file: file.to_owned(),
                key: "model_type".to_owned(),
                value: format!("`{}`", kind.escape_debug()),
                supported: "`nemotron_h`, `nemotron-nas`, `llama` and `qwen3`".to_owned(),
            });
        }
    };
    config.architecture(architecture)?;
    config.nothing("quantization_config", "a checkpoint that is not quantized")?;
    config.nothing("compression_config", "a checkpoint that is not quantized")?;
    let mut model = import(&mut config)?;
    config.finish()?;
    model.name = clean(name);
    model.description = format!("Imported from a {kind} configuration");
    if let Some(problem) = validate::model(&model).into_iter().next() {
        return Err(ImportError::Invalid { file: file.to_owned(), problem: problem.message });
    }
    Ok(model)
}

/// A name that can stand in a model file and in file names.
fn clean(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    match name.chars().map(keep).collect::<String>() {
        empty if empty.is_empty() => "model".to_owned(),
        name => name,
    }
}

/// The names around the layers that a family of checkpoints uses.
struct Names {
    embedding: &'static str,
    norm: &'static str,
    layers: &'static str,
    aliases: &'static [(&'static str, &'static str)],
}

/// The Llama spelling, which `nemotron-nas` and Qwen3 share.
const LLAMA_NAMES: Names = Names {
    embedding: "model.embed_tokens.weight",
    norm: "model.norm.weight",
    layers: "model.layers.{layer}.",
    aliases: &[],
};

/// Reads what all architectures have in common. The layers are added by the caller, the name by [`import_hf`].
fn frame(config: &mut Config<'_>, eps: f64, names: &Names) -> Result<Model, ImportError> {
    config.inert(&[
        "_name_or_path",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "attention_dropout",
        "attn_implementation",
        "auto_map",
        "id2label",
        "initializer_range",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
        "return_dict",
        "tokenizer_class",
        "torchscript",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    ]);
    let dtype = match config.either_str("dtype", "torch_dtype")? {
        (_, "bfloat16") => Dtype::Bf16,
        (_, "float32") => Dtype::F32,
        (key, _) => return Err(config.unsupported(key, "\"bfloat16\" or \"float32\"")),
    };
    let tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(false);
    Ok(Model {
        name: String::new(),
        description: String::new(),
        dtype,
        hidden: config.need_u64("hidden_size")?,
        vocab: config.need_u64("vocab_size")?,
        max_context: config.need_u64("max_position_embeddings")?,
        bos: config.opt_token("bos_token_id")?,
        eos: config.tokens("eos_token_id")?,
        embedding: Embedding { tensor: names.embedding.to_owned() },
        head: Head {
            norm: Norm { eps, tensor: names.norm.to_owned() },
            tensor: (!tied).then(|| "lm_head.weight".to_owned()),
        },
        layer_prefix: names.layers.to_owned(),
        root_aliases: names.aliases.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        blocks: Vec::new(),
        layers: Vec::new(),
    })
}

/// Appends a layer, sharing the block with an earlier equal one.
fn push_layer(model: &mut Model, block: Block) {
    let known = model.blocks.iter().position(|other| *other == block);
    let index = known.unwrap_or_else(|| {
        model.blocks.push(block);
        model.blocks.len() - 1
    });
    model.layers.push(index);
}
