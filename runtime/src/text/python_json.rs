//! JSON as Python's `json.dumps` writes it.

use std::io::{Error, Result, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The arguments of `json.dumps` that templates use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Style {
    /// What each level is indented by; all on one line without it.
    pub(super) indent: Option<String>,
    /// Between items, and between a key and its value.
    pub(super) separators: Option<(String, String)>,
    /// Whether other characters than those of ASCII are escaped.
    pub(super) ensure_ascii: bool,
    /// Whether keys are put in order.
    pub(super) sort_keys: bool,
}

/// The JSON of a value.
pub(super) fn dumps(value: &impl Serialize, style: Style) -> Result<String> {
    let mut value = serde_json::to_value(value)?;
    if style.sort_keys {
        value.sort_all_objects();
    }
    let item = if style.indent.is_some() { "," } else { ", " };
    let (item, key) = style.separators.unwrap_or_else(|| (item.to_owned(), ": ".to_owned()));
    let (indent, ensure_ascii) = (style.indent, style.ensure_ascii);
    let layout = Layout { indent, item, key, ensure_ascii, level: 0, filled: false };
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, layout))?;
    String::from_utf8(out).map_err(Error::other)
}

/// A float as Python writes it: an exponent has a sign and two digits.
pub(super) fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text.to_ascii_lowercase(),
    }
}

struct Layout {
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    level: usize,
    /// Whether the list or object that ends next has anything in it.
    filled: bool,
}

impl Layout {
    fn line<W: ?Sized + Write>(&self, out: &mut W) -> Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| out.write_all(indent.as_bytes()))
    }

    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn entry<W: ?Sized + Write>(&self, out: &mut W, first: bool) -> Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.line(out)
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level -= 1;
        if self.filled {
            self.line(out)?;
        }
        out.write_all(bracket)
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, b"[")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.entry(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, b"]")
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, b"{")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.entry(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> Result<()> {
        self.filled = true;
        Ok(())
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, b"}")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> Result<()> {
        if !self.ensure_ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if matches!(c, ' '..='~') {
                out.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_python_writes_it() {
        let value = json!({"b": [1, 2.5, 1e-7, 1e16, []], "a": {"é😀\n": null, "x": {}}});
        let style = Style::default();
        let plain = r#"{"b": [1, 2.5, 1e-07, 1e+16, []], "a": {"é😀\n": null, "x": {}}}"#;
        assert_eq!(dumps(&value, style.clone()).unwrap(), plain);
        let tight = Some((",".to_owned(), ":".to_owned()));
        let tight = Style { separators: tight, ensure_ascii: true, sort_keys: true, ..style.clone() };
        let wanted = r#"{"a":{"x":{},"\u00e9\ud83d\ude00\n":null},"b":[1,2.5,1e-07,1e+16,[]]}"#;
        assert_eq!(dumps(&value, tight).unwrap(), wanted);
        let indented = Style { indent: Some("  ".to_owned()), ..style };
        let wanted = "{\n  \"b\": [\n    1,\n    [],\n    []\n  ]\n}";
        assert_eq!(dumps(&json!({"b": [1, [], []]}), indented).unwrap(), wanted);
    }
}
