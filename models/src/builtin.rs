//! The model files that come with the compiler.

use crate::model::Model;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../", $name, ".toml")))),*]
    };
}

/// Name and source of each file.
const FILES: &[(&str, &str)] = files![
    "nemotron-nano-9b-v2",
    "nemotron-nano-9b-v2-base",
    "nemotron-nano-12b-v2",
    "nemotron-nano-12b-v2-base",
    "nemotron-h-8b",
    "nemotron-h-47b",
    "nemotron-h-56b",
    "llama-3.1-nemotron-nano-8b-v1",
    "llama-3.1-nemotron-nano-4b-v1.1",
    "llama-3.3-nemotron-super-49b-v1",
    "llama-3.3-nemotron-super-49b-v1.5",
    "llama-3.1-nemotron-ultra-253b-v1",
    "qwen3-8b",
];

/// The names of the built-in models.
#[must_use]
pub fn builtin_names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// The TOML text of a built-in model.
#[must_use]
pub fn builtin_source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// The built-in name that is nearest to a misspelt one, if any is near.
#[must_use]
pub fn nearest_builtin(name: &str) -> Option<&'static str> {
    let near = |known: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    builtin_names().into_iter().min_by_key(near).filter(|known| near(known) <= known.len() / 4)
}

impl Model {
    /// A built-in model by name; `None` when there is none of this name. That every built-in file parses is held by a
    /// test.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        Self::parse_toml(builtin_source(name)?, &format!("{name}.toml")).ok()
    }
}
