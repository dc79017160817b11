//! What a checkpoint says about generating: end-of-text ids and sampling defaults.

use std::path::Path;

use serde_json::Value;

use super::{TextError, read_json};
use crate::session::Sampling;

/// `generation_config.json`, with `config.json` behind it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationSettings {
    /// Tokens that end a sequence.
    pub end: Vec<u32>,
    /// Sampling defaults; greedy unless the file says that the model samples.
    pub sampling: Sampling,
}

impl GenerationSettings {
    /// Reads a checkpoint's settings; absent files leave the defaults.
    ///
    /// # Errors
    /// [`TextError`] when a file cannot be read or a setting has no meaning.
    pub fn open(directory: &Path) -> Result<Self, TextError> {
        let mut settings = Self::default();
        let mut end = None;
        for name in ["generation_config.json", "config.json"] {
            let file = directory.join(name);
            let Some(json) = read_json(&file)? else { continue };
            let malformed = |what: &str| TextError::Malformed { file: file.clone(), what: what.to_owned() };
            if end.is_none() {
                end = end_ids(&json).map_err(malformed)?;
            }
            if name == "generation_config.json" {
                settings.sampling = sampling(&json);
                settings.sampling.check().map_err(|error| malformed(&error.to_string()))?;
            }
        }
        settings.end = end.unwrap_or_default();
        Ok(settings)
    }
}

/// One number, a list of numbers, or nothing.
fn end_ids(json: &Value) -> Result<Option<Vec<u32>>, &'static str> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match json.get("eos_token_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(ids)) => ids.iter().map(id).collect::<Option<Vec<_>>>(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    ids.map(Some).ok_or("`eos_token_id` is neither a token id nor a list of them")
}

/// Greedy unless `do_sample` is set, as in transformers.
fn sampling(json: &Value) -> Sampling {
    if json.get("do_sample") != Some(&Value::Bool(true)) {
        return Sampling::default();
    }
    let number = |name: &str, default: f64| json.get(name).and_then(Value::as_f64).unwrap_or(default);
    Sampling {
        temperature: number("temperature", 1.0) as f32,
        top_k: number("top_k", 0.0) as u32,
        top_p: number("top_p", 1.0) as f32,
        min_p: number("min_p", 0.0) as f32,
        seed: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lists_and_what_stands_behind() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let open = || GenerationSettings::open(dir.path());
        assert_eq!(open().unwrap(), GenerationSettings::default());
        write(
            "config.json",
            r#"{"eos_token_id": 12, "note": "a \"NaN\" stays", "limit": [0.0, Infinity, -Infinity]}"#,
        );
        assert_eq!(open().unwrap().end, [12]);
        write("generation_config.json", r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.95}"#);
        let settings = open().unwrap();
        assert_eq!(settings.end, [12]);
        assert_eq!(settings.sampling, Sampling { temperature: 0.6, top_p: 0.95, ..Sampling::default() });
        write("generation_config.json", r#"{"eos_token_id": [2, 3], "temperature": 0.6}"#);
        assert_eq!(open().unwrap(), GenerationSettings { end: vec![2, 3], sampling: Sampling::default() });
        write("generation_config.json", r#"{"eos_token_id": [2, "x"]}"#);
        assert!(open().unwrap_err().to_string().contains("`eos_token_id` is neither"));
        write("generation_config.json", r#"{"do_sample": true, "top_p": 7}"#);
        assert!(open().unwrap_err().to_string().contains("top-p is 7, but must be"));
        write("generation_config.json", "{");
        assert!(open().unwrap_err().to_string().contains("generation_config.json`: EOF"));
    }
}
