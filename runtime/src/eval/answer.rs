//! When an answer is right.

/// How an answer is held against the one expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Matching {
    /// The same text, but for white space around it.
    #[default]
    Exact,
    /// The same last number, whatever stands around it; `1,234.50` and `1234.5` are the same.
    Number,
}

impl Matching {
    /// Whether an answer is right.
    pub fn is_right(self, answer: &str, expected: &str) -> bool {
        match self {
            Self::Exact => answer.trim() == expected.trim(),
            Self::Number => match (last_number(answer), last_number(expected)) {
                (Some(answer), Some(expected)) => answer == expected,
                _ => false,
            },
        }
    }

    /// `exact` or `number`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Number => "number",
        }
    }

    /// What an expected answer lacks, if it can never be given.
    pub(super) fn fault(self, expected: &str) -> Option<&'static str> {
        match self {
            _ if expected.trim().is_empty() => Some("has an empty `answer`"),
            Self::Number if last_number(expected).is_none() => Some("has an `answer` without a number"),
            Self::Exact | Self::Number => None,
        }
    }
}

/// The last number of a text, as digits without a thousands' comma, leading zeros or an empty fraction.
fn last_number(text: &str) -> Option<String> {
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let before = &text[..end];
    let is_part = |c: char| c.is_ascii_digit() || c == ',' || c == '.';
    let start = before
        .rfind(|c: char| !is_part(c))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let digits = before[start..].trim_start_matches([',', '.']);
    let signed = before[..end - digits.len()].ends_with(['-', '\u{2212}']);
    // A sign stands at a word's beginning; `5-3` ends with a 3.
    let sign = signed
        && !before[..end - digits.len()]
            .trim_end_matches(['-', '\u{2212}'])
            .ends_with(|c: char| c.is_alphanumeric());
    let plain = digits.replace(',', "");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let zero = whole == "0" && fraction.is_empty();
    let sign = if sign && !zero { "-" } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text() {
        let right = |answer, expected| Matching::Exact.is_right(answer, expected);
        assert!(right("\n\n1251\n", "1251"));
        assert!(!right("1251.", "1251") && !right("", "1251") && !right("01251", "1251"));
    }

    #[test]
    fn the_same_number() {
        let right = |answer, expected| Matching::Number.is_right(answer, expected);
        assert!(right("The sum of 3 and 4 is **7**.", "7"));
        assert!(right("= $1,234.50", "1234.5") && right("It is 007", "7") && right("x = -3", "-3"));
        assert!(right("\u{2212}3 \u{b0}C", "-3") && right("-0", "0") && right("合計は12です", "12"));
        assert!(right("5-3", "3") && right("in 1999, 2.", "2"));
        assert!(!right("3", "-3") && !right("no idea", "3") && !right("7.25", "7"));
        assert_eq!(Matching::Number.fault("seven"), Some("has an `answer` without a number"));
        assert_eq!((Matching::Number.fault("7"), Matching::Exact.fault("seven")), (None, None));
        assert_eq!(Matching::Exact.fault(" "), Some("has an empty `answer`"));
    }
}
