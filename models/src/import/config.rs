//! Access to the keys of a configuration that remembers which were understood.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::ImportError;
use super::json::{number, show};

/// A JSON object being read.
pub(super) struct Config<'a> {
    file: &'a str,
    /// The path to the object, ending in a dot unless empty.
    path: String,
    map: &'a Map<String, Value>,
    understood: HashSet<&'static str>,
}

impl<'a> Config<'a> {
    pub(super) fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        Self { file, path: String::new(), map, understood: HashSet::new() }
    }

    /// The value of a key that is neither absent nor null.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.understood.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Keys that do not change what the model computes, whatever their value.
    pub(super) fn inert(&mut self, keys: &[&'static str]) {
        self.understood.extend(keys);
    }

    fn path(&self, key: &str) -> String {
        format!("{}{}", self.path, key.escape_debug())
    }

    pub(super) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ImportError {
        ImportError::Unsupported {
            file: self.file.to_owned(),
            key: self.path(key),
            value: show(self.map.get(key).unwrap_or(&Value::Null)),
            supported: supported.into(),
        }
    }

    fn kind(&self, key: &str, expected: &str) -> ImportError {
        ImportError::Kind {
            file: self.file.to_owned(),
            key: self.path(key),
            value: show(self.map.get(key).unwrap_or(&Value::Null)),
            expected: expected.to_owned(),
        }
    }

    pub(super) fn invalid(&self, problem: String) -> ImportError {
        ImportError::Invalid { file: self.file.to_owned(), problem }
    }

    fn missing(&self, key: &str, expected: &str) -> ImportError {
        ImportError::Missing {
            file: self.file.to_owned(),
            key: self.path(key),
            expected: expected.to_owned(),
        }
    }

    fn opt<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ImportError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.kind(key, expected))
    }

    fn need<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, ImportError> {
        self.opt(key, expected, read)?.ok_or_else(|| self.missing(key, expected))
    }

    pub(super) fn opt_u64(&mut self, key: &'static str) -> Result<Option<u64>, ImportError> {
        self.opt(key, "a natural number", Value::as_u64)
    }

    pub(super) fn need_u64(&mut self, key: &'static str) -> Result<u64, ImportError> {
        self.need(key, "a natural number", Value::as_u64)
    }

    pub(super) fn opt_f64(&mut self, key: &'static str) -> Result<Option<f64>, ImportError> {
        self.opt(key, "a number", number)
    }

    pub(super) fn need_f64(&mut self, key: &'static str) -> Result<f64, ImportError> {
        self.need(key, "a number", number)
    }

    pub(super) fn opt_bool(&mut self, key: &'static str) -> Result<Option<bool>, ImportError> {
        self.opt(key, "true or false", Value::as_bool)
    }

    pub(super) fn opt_str(&mut self, key: &'static str) -> Result<Option<&'a str>, ImportError> {
        self.opt(key, "a string", Value::as_str)
    }

    pub(super) fn need_str(&mut self, key: &'static str) -> Result<&'a str, ImportError> {
        self.need(key, "a string", Value::as_str)
    }

    /// A string under either of two keys, the first preferred.
    pub(super) fn either_str(
        &mut self,
        new: &'static str,
        old: &'static str,
    ) -> Result<(&'static str, &'a str), ImportError> {
        let (found, other) = (self.opt_str(new)?, self.opt_str(old)?);
        if found.is_some() && other.is_some() && found != other {
            return Err(self.unsupported(old, format!("the value of `{new}`")));
        }
        match (found, other) {
            (Some(value), _) => Ok((new, value)),
            (None, Some(value)) => Ok((old, value)),
            (None, None) => Err(self.missing(new, "a string")),
        }
    }

    /// A number under either of two keys, which must agree.
    pub(super) fn either_u64(
        &mut self,
        one: &'static str,
        other: &'static str,
    ) -> Result<Option<u64>, ImportError> {
        let (first, second) = (self.opt_u64(one)?, self.opt_u64(other)?);
        if first.is_some() && second.is_some() && first != second {
            return Err(self.unsupported(other, format!("the value of `{one}`")));
        }
        Ok(first.or(second))
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<&'a Vec<Value>>, ImportError> {
        self.opt(key, "a list", Value::as_array)
    }

    /// A nested object.
    pub(super) fn object(&mut self, key: &'static str) -> Result<Option<Config<'a>>, ImportError> {
        let map = self.opt(key, "an object", Value::as_object)?;
        Ok(map.map(|map| self.nested(&format!("{key}."), map)))
    }

    /// An object at a path below this one; the path ends in a dot.
    pub(super) fn nested(&self, path: &str, map: &'a Map<String, Value>) -> Config<'a> {
        Config { path: format!("{}{path}", self.path), ..Config::new(self.file, map) }
    }

    pub(super) fn opt_token(&mut self, key: &'static str) -> Result<Option<u32>, ImportError> {
        self.opt(key, "a token id", token)
    }

    /// One token or a list of them.
    pub(super) fn tokens(&mut self, key: &'static str) -> Result<Vec<u32>, ImportError> {
        let read = |value: &Value| match value {
            Value::Array(list) => list.iter().map(token).collect(),
            one => token(one).map(|token| vec![token]),
        };
        self.need(key, "a token id or a list of them", read)
    }

    /// A flag that must not be set.
    pub(super) fn off(&mut self, key: &'static str) -> Result<(), ImportError> {
        match self.value(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(self.unsupported(key, "false")),
        }
    }

    /// A key that must be absent, null, false, zero or empty; `supported` says what that means.
    pub(super) fn nothing(&mut self, key: &'static str, supported: &str) -> Result<(), ImportError> {
        let idle = match self.value(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if idle { Ok(()) } else { Err(self.unsupported(key, supported)) }
    }

    /// A string that, where it is given, must be this one.
    pub(super) fn only(&mut self, key: &'static str, word: &str) -> Result<(), ImportError> {
        match self.value(key) {
            None => Ok(()),
            Some(value) if value.as_str() == Some(word) => Ok(()),
            Some(_) => Err(self.unsupported(key, format!("\"{word}\""))),
        }
    }

    /// A number that, where it is given, must be this one.
    pub(super) fn only_number(&mut self, key: &'static str, wanted: f64) -> Result<(), ImportError> {
        match self.opt_f64(key)? {
            Some(found) if found != wanted => Err(self.unsupported(key, format!("{wanted:?}"))),
            _ => Ok(()),
        }
    }

    /// Holds that `architectures`, if there, names the expected class.
    pub(super) fn architecture(&mut self, expected: &str) -> Result<(), ImportError> {
        match self.value("architectures") {
            None => Ok(()),
            Some(Value::Array(list)) if list.iter().any(|name| name.as_str() == Some(expected)) => Ok(()),
            Some(value) => Err(ImportError::Architecture {
                file: self.file.to_owned(),
                key: "architectures".to_owned(),
                value: show(value),
                supported: format!("`{expected}` for this model type"),
            }),
        }
    }

    /// Refuses the first key that nothing has understood.
    pub(super) fn finish(&self) -> Result<(), ImportError> {
        match self.map.iter().find(|(key, _)| !self.understood.contains(key.as_str())) {
            None => Ok(()),
            Some((key, value)) => Err(ImportError::Unknown {
                file: self.file.to_owned(),
                key: self.path(key),
                value: show(value),
            }),
        }
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|token| u32::try_from(token).ok())
}
