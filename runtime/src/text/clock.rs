//! `strftime_now`: the present in local time, formatted as Python formats a time without a zone.

use jiff::civil::DateTime;
use jiff::fmt::strtime;

/// The present, formatted.
///
/// # Errors
/// What is wrong with the format.
pub(super) fn now(format: &str) -> Result<String, String> {
    strftime(format, jiff::ZonedDateTime::now().datetime())
}

fn strftime(format: &str, moment: DateTime) -> Result<String, String> {
    strtime::format(without_zone(format), moment)
        .map_err(|error| format!("`strftime_now` cannot write `{format}`: {error}"))
}

/// A format without the zone's codes: the time that transformers formats has none, and they are empty.
fn without_zone(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('%', Some('Z' | 'z')) => {
                chars.next();
            }
            ('%', Some('%')) => {
                chars.next();
                out.push_str("%%");
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn each_code_is_pythons() {
        // As `datetime(2000, 2, 9, 0, 5, 7).strftime` writes it.
        let moment = date(2000, 2, 9).at(0, 5, 7, 0);
        let written = strftime("%A %a, %d %e %j %B %b %Y %y %m|%H:%M:%S %I %p|%F %T|%Z%z|%%Z %%|%-d", moment);
        let wanted =
            "Wednesday Wed, 09  9 040 February Feb 2000 00 02|00:05:07 12 AM|2000-02-09 00:05:07||%Z %|9";
        assert_eq!(written.unwrap(), wanted);
        let hours = [(1, "01 AM"), (11, "11 AM"), (12, "12 PM"), (13, "01 PM"), (23, "11 PM")];
        for (hour, wanted) in hours {
            assert_eq!(strftime("%I %p", date(2000, 2, 9).at(hour, 0, 0, 0)).unwrap(), wanted);
        }
    }

    #[test]
    fn other_codes_are_named() {
        let said = |format| strftime(format, date(2000, 2, 9).at(0, 0, 0, 0)).unwrap_err();
        insta::assert_snapshot!(format!("{}\n{}", said("%d %!"), said("%d %")));
    }

    #[test]
    fn the_present_has_this_century() {
        let year: u32 = now("%Y").unwrap().parse().unwrap();
        assert!((2025..2200).contains(&year), "{year}");
    }
}
