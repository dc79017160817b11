//! JSON as configuration files have it: with the bare words that Python writes for special numbers.

use serde_json::{Map, Value};

use super::ImportError;

/// The words, the longest first where one begins another.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses an object. The bare words become strings of the same letters.
pub(super) fn parse(text: &str, file: &str) -> Result<Map<String, Value>, ImportError> {
    let value = serde_json::from_str(&quote_words(text)).map_err(|error| ImportError::Json {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: reason(&error),
    })?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(ImportError::NotAnObject { file: file.to_owned() }),
    }
}

/// The parser's message without the place, which stands in front of the sentence already.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn quote_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|word| rest.starts_with(**word)).filter(|_| !in_string);
        let length = match (c, word) {
            (_, Some(word)) => {
                out.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            // The escaped character may be a quote.
            ('\\', None) if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        in_string ^= c == '"';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// A number, or one of the ways to write infinity.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(word) => match word.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Value::Object(map) if map.len() == 1 => {
            map.get("__float__").filter(|v| v.is_string()).and_then(number)
        }
        _ => None,
    }
}

/// A value on one line, cut when long.
pub(super) fn show(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= SHOWN {
        return text;
    }
    format!("{}…", text.chars().take(SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_read_outside_strings_only() {
        let map = parse(r#"{"a": [0.0, Infinity], "b": "x\" Infinity", "c": -Infinity}"#, "f").unwrap();
        assert_eq!(number(&map["a"][1]), Some(f64::INFINITY));
        assert_eq!(map["b"], "x\" Infinity");
        assert_eq!(number(&map["c"]), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn a_tagged_float_is_a_number() {
        let map =
            parse(r#"{"a": {"__float__": "Infinity"}, "b": {"__float__": {"__float__": "Infinity"}}}"#, "f");
        let map = map.unwrap();
        assert_eq!(number(&map["a"]), Some(f64::INFINITY));
        assert_eq!(number(&map["b"]), None);
    }
}
