//! Jinja as transformers sets it up: Python's methods, Python's JSON, Python's way of writing values.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use serde_json::Value as Json;

use super::{clock, python_json};

/// Marks what a template itself raises: that sentence is for people, and its line is not.
#[derive(Debug, thiserror::Error)]
#[error("the template refuses")]
pub(super) struct Refusal;

/// An environment for one template.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(write);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Refusal))
    });
    environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
        clock::now(&format).map_err(|what| Error::new(ErrorKind::InvalidOperation, what))
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: Value| str(&value));
    environment.add_filter("join", join);
    environment
}

/// A template's text without the tags of transformers that mark what a model has generated: `{% generation %}` renders its
/// body, whose variables are its own.
pub(super) fn without_generation(source: &str) -> String {
    let ends = |rest: &str| rest.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at + 2);
        let name = block.trim_start_matches(['-', '+']).trim_start();
        out.push_str(before);
        out.push_str(&block[..block.len() - name.len()]);
        rest = name;
        for (tag, same) in [("generation", "with"), ("endgeneration", "endwith")] {
            if let Some(end) = name.strip_prefix(tag).filter(|end| ends(end)) {
                out.push_str(same);
                rest = end;
            }
        }
    }
    out + rest
}

/// What minijinja says is wrong, where it has words of its own for what Python could do.
pub(super) fn explained(what: String) -> String {
    if what.starts_with("tried to use % operator on unsupported types string") {
        "`%` does not fill in a text here as in `'%s' % x`; `~` and the filter `format` do".to_owned()
    } else {
        what
    }
}

/// A JSON value for templates; lists and dictionaries are written as Python writes them wherever they become text.
pub(super) fn value(json: Json) -> Value {
    match json {
        Json::Array(items) => Value::from_object(List(items.into_iter().map(value).collect())),
        Json::Object(entries) => Value::from_object(Dictionary(
            entries.into_iter().map(|(key, item)| (key, value(item))).collect(),
        )),
        other => Value::from_serialize(other),
    }
}

#[derive(Debug)]
struct List(Vec<Value>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(self.0.iter().cloned()))
    }
}

#[derive(Debug)]
struct Dictionary(Vec<(String, Value)>);

impl Object for Dictionary {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(known, _)| known == key).map(|(_, item)| item.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(key, _)| key.as_str().into()).collect())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dictionary(self.0.iter().map(|(key, item)| (key.as_str().into(), item.clone()))))
    }
}

/// Items, or one attribute of each, as texts with a text between them.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja's filters have")]
fn join(value: Value, between: Option<String>, options: Kwargs) -> Result<String, Error> {
    let between = between.or(options.get("d")?).unwrap_or_default();
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let mut texts = Vec::new();
    for item in value.try_iter()? {
        let path = attribute.iter().flat_map(|path| path.split('.'));
        let item = path.into_iter().try_fold(item, |item, name| item.get_attr(name))?;
        texts.push(str(&item));
    }
    Ok(texts.join(&between))
}

/// Methods of texts that templates call and `pycompat` does not have.
fn method(state: &State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, arguments);
    };
    let list = |parts: &[&str]| parts.iter().map(|part| Value::from(*part)).collect::<Value>();
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            Ok(match text.split_once(separator) {
                Some((before, after)) => list(&[before, separator, after]),
                None => list(&[text, "", ""]),
            })
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            Ok(match text.rsplit_once(separator) {
                Some((before, after)) => list(&[before, separator, after]),
                None => list(&["", "", text]),
            })
        }
        "find" | "rfind" => {
            let (part,): (&str,) = from_args(arguments)?;
            let found = if name == "find" { text.find(part) } else { text.rfind(part) };
            // Python counts characters, as slices do.
            let place = found.map_or(-1, |byte| text[..byte].chars().count() as i64);
            Ok(place.into())
        }
        "rsplit" => {
            let (separator, most): (&str, Option<usize>) = from_args(arguments)?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<_> = text.rsplitn(most, separator).collect();
            parts.reverse();
            Ok(list(&parts))
        }
        _ => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's `json.dumps` with the defaults of transformers; the built-in filter escapes HTML.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja's filters have")]
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let bad = |what: String| Error::new(ErrorKind::BadSerialization, what);
    if value.is_undefined() {
        return Err(bad("what is undefined cannot be written as JSON".to_owned()));
    }
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(count) => Some(" ".repeat(usize::try_from(count)?.min(64))),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = match separators.as_deref() {
        None => None,
        Some([item, key]) => Some((item.clone(), key.clone())),
        Some(_) => return Err(bad("`separators` are two texts".to_owned())),
    };
    let style = python_json::Style {
        indent,
        separators,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    python_json::dumps(&value, style).map_err(|error| bad(error.to_string()))
}

/// Writes a value where `{{ }}` stands, as Python's `str` does.
fn write(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None
        | ValueKind::Bool
        | ValueKind::Number
        | ValueKind::Seq
        | ValueKind::Iterable
        | ValueKind::Map => out.write_str(&repr(value)).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A value as Python's `str` writes it; what is undefined is nothing, as in Jinja.
fn str(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// A value as Python's `repr` writes it.
fn repr(value: &Value) -> String {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), python_json::float)
        }
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => list(items()),
        // Slices are such, and generators, which must not be used up.
        ValueKind::Iterable if value.len().is_some() => list(items()),
        ValueKind::Map => {
            dictionary(items().map(|key| (key.clone(), value.get_item(&key).unwrap_or_default())))
        }
        _ => value.to_string(),
    }
}

fn list(items: impl Iterator<Item = Value>) -> String {
    let items: Vec<_> = items.map(|item| repr(&item)).collect();
    format!("[{}]", items.join(", "))
}

fn dictionary(entries: impl Iterator<Item = (Value, Value)>) -> String {
    let entries: Vec<_> = entries.map(|(key, item)| format!("{}: {}", repr(&key), repr(&item))).collect();
    format!("{{{}}}", entries.join(", "))
}

/// A text in Python's quotes: single ones, unless only those occur in it.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
