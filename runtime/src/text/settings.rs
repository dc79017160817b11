//! What a checkpoint says about generating: end-of-text ids and sampling defaults.

use std::path::Path;

use serde_json::Value;

use super::{TextError, read_json};
use crate::session::Sampling;

/// Keys of `generation_config.json` that change which tokens come, which nothing here does: the value at
/// which each is off, beside being absent, `null`, `false` or empty.
const UNSUPPORTED: [(&str, f64); 19] = [
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("diversity_penalty", 0.0),
    ("penalty_alpha", 0.0),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("bad_words_ids", 0.0),
    ("sequence_bias", 0.0),
    ("forced_bos_token_id", -1.0),
    ("forced_eos_token_id", -1.0),
    ("suppress_tokens", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("exponential_decay_length_penalty", 0.0),
    ("stop_strings", 0.0),
];

/// The same for those that only a model that samples reads.
const UNSUPPORTED_SAMPLING: [(&str, f64); 3] =
    [("typical_p", 1.0), ("epsilon_cutoff", 0.0), ("eta_cutoff", 0.0)];

/// `generation_config.json`, with `config.json` behind it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationSettings {
    /// Tokens that end a sequence.
    pub end: Vec<u32>,
    /// Sampling defaults; greedy unless the file says that the model samples.
    pub sampling: Sampling,
    /// Keys that ask for something that is not done.
    pub ignored: Vec<&'static str>,
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
            let malformed = |what: String| TextError::Malformed { file: file.clone(), what };
            if end.is_none() {
                end = end_ids(&json).map_err(|what| malformed(what.to_owned()))?;
            }
            if name == "generation_config.json" {
                let samples =
                    of_type(&json, "do_sample", "true or false", Value::as_bool).map_err(malformed)?;
                let samples = samples.unwrap_or(false);
                // Also checked where nothing is sampled: what the file says is wrong all the same.
                let sampling = sampling(&json).map_err(malformed)?;
                if samples {
                    sampling.check().map_err(|error| malformed(error.to_string()))?;
                    settings.sampling = sampling;
                }
                settings.ignored = ignored(&json, samples);
            }
        }
        settings.end = end.unwrap_or_default();
        Ok(settings)
    }
}

/// What kind of model a checkpoint's `config.json` says it is: `nemotron_h`, `llama`, ...
///
/// # Errors
/// [`TextError`] when the file cannot be read.
pub fn model_type(directory: &Path) -> Result<Option<String>, TextError> {
    let config = read_json(&directory.join("config.json"))?;
    Ok(config.and_then(|config| config.get("model_type")?.as_str().map(str::to_owned)))
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

/// The value of a key; nothing where the file says nothing.
fn of_type<T>(
    json: &Value,
    name: &str,
    wanted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, String> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("`{name}` is {value}, but must be {wanted}")),
        },
    }
}

/// What a model that samples wants.
///
/// Absent keys are as in transformers, but for `top_k`: transformers then takes the 50 most probable
/// tokens, which the file does not say and few who wrote it meant; here it is off, as 0 is.
fn sampling(json: &Value) -> Result<Sampling, String> {
    let number = |name, default: f32| -> Result<f32, String> {
        Ok(of_type(json, name, "a number", Value::as_f64)?.map_or(default, |value| value as f32))
    };
    let count = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    let off = Sampling::default();
    Ok(Sampling {
        temperature: number("temperature", 1.0)?,
        top_k: of_type(json, "top_k", "a whole number that is at least 0", count)?.unwrap_or(off.top_k),
        top_p: number("top_p", off.top_p)?,
        min_p: number("min_p", off.min_p)?,
        seed: off.seed,
    })
}

/// The unsupported keys that are on.
fn ignored(json: &Value, samples: bool) -> Vec<&'static str> {
    let is_on = |(name, off): &&(&'static str, f64)| match json.get(*name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(value) => value.as_f64() != Some(*off),
    };
    let when_sampling = UNSUPPORTED_SAMPLING.iter().filter(|_| samples);
    UNSUPPORTED.iter().chain(when_sampling).filter(is_on).map(|(name, _)| *name).collect()
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
        assert_eq!(open().unwrap(), GenerationSettings { end: vec![2, 3], ..Default::default() });
        write("generation_config.json", r#"{"eos_token_id": [2, "x"]}"#);
        assert!(open().unwrap_err().to_string().contains("`eos_token_id` is neither"));
        write("generation_config.json", r#"{"do_sample": true, "top_p": 7}"#);
        assert!(open().unwrap_err().to_string().contains("top-p is 7, but must be"));
        write("generation_config.json", "{");
        assert!(open().unwrap_err().to_string().contains("generation_config.json`: EOF"));
    }

    /// What the file gives.
    fn open(json: &str) -> Result<GenerationSettings, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), json).unwrap();
        GenerationSettings::open(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for (json, wanted) in [
            (r#"{"temperature": "0.6"}"#, r#"`temperature` is "0.6", but must be a number"#),
            (r#"{"do_sample": true, "top_p": [1]}"#, "`top_p` is [1], but must be a number"),
            (r#"{"do_sample": "yes"}"#, r#"`do_sample` is "yes", but must be true or false"#),
            (r#"{"top_k": 50.0}"#, "`top_k` is 50.0, but must be a whole number that is at least 0"),
            (r#"{"top_k": -1}"#, "`top_k` is -1, but must be a whole number that is at least 0"),
        ] {
            let message = open(json).unwrap_err();
            assert!(message.ends_with(wanted), "{message}");
        }
        let settings =
            open(r#"{"do_sample": true, "temperature": null, "top_k": null, "top_p": 1}"#).unwrap();
        assert_eq!(settings.sampling, Sampling { temperature: 1.0, ..Sampling::default() });
    }

    #[test]
    fn what_is_not_done_is_named() {
        let named = |json| open(json).unwrap().ignored;
        let off = r#"{"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1, "typical_p": 0.9,
                      "bad_words_ids": [], "suppress_tokens": null, "min_length": 0, "max_length": 4096}"#;
        assert!(named(off).is_empty());
        let on = r#"{"do_sample": true, "repetition_penalty": 1.05, "num_beams": 4, "typical_p": 0.9,
                     "bad_words_ids": [[1]], "forced_eos_token_id": 2}"#;
        let wanted = ["repetition_penalty", "num_beams", "bad_words_ids", "forced_eos_token_id", "typical_p"];
        assert_eq!(named(on), wanted);
    }
}
