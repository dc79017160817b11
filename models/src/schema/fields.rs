//! Typed access to the keys of one TOML table, with a place for every complaint.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::diagnostic::{Sink, Span, near, suggest};
use crate::validate::Problem;

/// A value with its place.
pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

/// What a value of the source can be read as.
pub(crate) trait Read<'a>: Sized {
    /// What was expected, with its article.
    const EXPECTED: &'static str;
    /// `None` when the value is of another kind.
    fn read(value: &'a Value<'a>) -> Option<Self>;
}

impl<'a> Read<'a> for u64 {
    const EXPECTED: &'static str = "a natural number";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Integer(number) => Self::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for f64 {
    const EXPECTED: &'static str = "a number";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(_) => u64::read(value).map(|number| number as Self),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for &'a str {
    const EXPECTED: &'static str = "a string";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for &'a DeTable<'a> {
    const EXPECTED: &'static str = "a table";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for &'a DeArray<'a> {
    const EXPECTED: &'static str = "an array";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl<'a> Read<'a> for &'a Value<'a> {
    const EXPECTED: &'static str = "a value";
    fn read(value: &'a Value<'a>) -> Option<Self> {
        Some(value)
    }
}

/// Reads a value or reports what it should have been.
pub(crate) fn read<'a, T: Read<'a>>(sink: &mut Sink<'_>, key: &str, value: &'a Value<'a>) -> Option<T> {
    let read = T::read(value);
    if read.is_none() {
        let found = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            other => format!("this {}", other.type_str()),
        };
        sink.error(&value.span(), format!("`{key}` must be {}, not {found}", T::EXPECTED));
    }
    read
}

/// One entry of a table.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    pub(crate) key_span: Span,
    pub(crate) value: &'a Value<'a>,
}

/// The entries of a table in the order of the source.
pub(crate) fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut list: Vec<Entry<'a>> = table
        .iter()
        .map(|(key, value)| Entry { key: key.get_ref().as_ref(), key_span: key.span(), value })
        .collect();
    list.sort_by_key(|entry| entry.key_span.start);
    list
}

/// A table being read: each key that is asked for counts as known, and `finish` reports the others.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    /// How to call the table in a message, for instance "part `mlp`".
    pub(crate) what: String,
    /// Where to report a missing key.
    pub(crate) header: Span,
    pub(crate) entries: Vec<Entry<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: impl Into<String>, header: Span, table: &'a DeTable<'a>) -> Self {
        Self { what: what.into(), header, entries: entries(table), asked: Vec::new() }
    }

    /// Makes a key a known one without reading it.
    pub(crate) fn know(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    fn entry(&mut self, key: &'static str) -> Option<&Entry<'a>> {
        self.know(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// An optional key.
    pub(crate) fn get<T: Read<'a>>(&mut self, sink: &mut Sink<'_>, key: &'static str) -> Option<T> {
        let value = self.entry(key)?.value;
        read(sink, key, value)
    }

    /// A key that must be there.
    pub(crate) fn need<T: Read<'a>>(&mut self, sink: &mut Sink<'_>, key: &'static str) -> Option<T> {
        self.need_as(sink, key, T::EXPECTED)
    }

    /// A key that must be there, with words of its own for what it holds.
    pub(crate) fn need_as<T: Read<'a>>(
        &mut self,
        sink: &mut Sink<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<T> {
        match self.entry(key).map(|entry| entry.value) {
            Some(value) => read(sink, key, value),
            None => {
                self.missing(sink, key, expected);
                None
            }
        }
    }

    /// Reports a missing key; a key that is nearly the same is then an error of its own, with a suggestion.
    pub(crate) fn missing(&self, sink: &mut Sink<'_>, key: &str, expected: &str) {
        sink.error(&self.header, format!("{} lacks `{key}`, {expected}", self.what));
    }

    /// A nested table, if it is there.
    pub(crate) fn table(&mut self, sink: &mut Sink<'_>, key: &'static str) -> Option<Fields<'a>> {
        let entry = self.entry(key)?.clone();
        let table = read(sink, key, entry.value)?;
        let what = match self.what.as_str() {
            "the model" => format!("`{key}`"),
            other => format!("`{key}` of {other}"),
        };
        Some(Fields::new(what, entry.key_span, table))
    }

    /// A nested table that must be there.
    pub(crate) fn need_table(&mut self, sink: &mut Sink<'_>, key: &'static str) -> Option<Fields<'a>> {
        if self.entry(key).is_none() {
            self.missing(sink, key, "a table");
            return None;
        }
        self.table(sink, key)
    }

    /// Where a key's value stands, or the table when the key was left out.
    pub(crate) fn span(&self, key: &str) -> Span {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(self.header.clone(), |entry| entry.value.span())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Reports broken rules. A key that is not written here has its value from elsewhere, where it was judged.
    pub(crate) fn report(&self, sink: &mut Sink<'_>, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems.into_iter().filter(|problem| self.has(problem.key)) {
            sink.error_with_help(&self.span(problem.key), problem.message, problem.help);
        }
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self, sink: &mut Sink<'_>) {
        for entry in &self.entries {
            if !self.asked.contains(&entry.key) {
                let message = format!("unknown key `{}` in {}", entry.key, self.what);
                let free = self.asked.iter().copied().filter(|known| !self.has(known));
                let help = near(entry.key, self.asked.iter().copied()).or_else(|| suggest(entry.key, free));
                sink.error_with_help(&entry.key_span, message, help);
            }
        }
    }
}

/// The span of some bytes inside a string value, when the source spells the string without escapes.
pub(crate) fn inside(sink: &Sink<'_>, value: &Value<'_>, text: &str, range: Span) -> Span {
    let span = value.span();
    let start = span.start + 1;
    if sink.text(&(start..start + text.len())) == text && span.len() == text.len() + 2 {
        start + range.start..start + range.end
    } else {
        span
    }
}
