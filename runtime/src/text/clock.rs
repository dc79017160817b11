//! `strftime_now`: the present in local time, as far as chat templates format it.

#![allow(unsafe_code, reason = "the system knows the time zone")]

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, as a calendar and a clock on the wall show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    year: i32,
    /// From 0.
    month: usize,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
    /// From Sunday.
    weekday: usize,
    /// From 1.
    day_of_year: i32,
}

/// The present, formatted.
///
/// # Errors
/// What is wrong with the format.
pub(super) fn now(format: &str) -> Result<String, String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, local(seconds))
}

/// A time in seconds since 1970 in the system's time zone.
fn local(seconds: u64) -> Moment {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    // SAFETY: all zero is a valid `tm`, whose only pointer may be null.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of this frame. A year too large leaves `broken` as it is.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut broken) };
    Moment {
        year: broken.tm_year + 1900,
        month: broken.tm_mon.clamp(0, 11) as usize,
        day: broken.tm_mday,
        hour: broken.tm_hour,
        minute: broken.tm_min,
        second: broken.tm_sec,
        weekday: broken.tm_wday.clamp(0, 6) as usize,
        day_of_year: broken.tm_yday + 1,
    }
}

/// A moment, formatted as Python formats one without a time zone.
fn strftime(format: &str, moment: Moment) -> Result<String, String> {
    let Moment { year, month, day, hour, minute, second, weekday, day_of_year } = moment;
    let twelve = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year.rem_euclid(100))),
            Some('m') => out.push_str(&format!("{:02}", month + 1)),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('j') => out.push_str(&format!("{day_of_year:03}")),
            Some('B') => out.push_str(MONTHS[month]),
            Some('b') => out.push_str(&MONTHS[month][..3]),
            Some('A') => out.push_str(DAYS[weekday]),
            Some('a') => out.push_str(&DAYS[weekday][..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{twelve:02}")),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('F') => out.push_str(&format!("{year}-{:02}-{day:02}", month + 1)),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            // The time that transformers formats has no zone, and these are empty.
            Some('Z' | 'z') => {}
            Some('%') => out.push('%'),
            Some(other) => return Err(format!("`strftime_now` does not know `%{other}`")),
            None => return Err("a format of `strftime_now` ends with `%`".to_owned()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAP: Moment =
        Moment { year: 2000, month: 1, day: 9, hour: 0, minute: 5, second: 7, weekday: 3, day_of_year: 40 };

    #[test]
    fn each_code_is_pythons() {
        // As `datetime(2000, 2, 9, 0, 5, 7).strftime` writes it.
        let written = strftime("%A %a, %d %e %j %B %b %Y %y %m|%H:%M:%S %I %p|%F %T|%Z%z|%%", LEAP);
        let wanted = "Wednesday Wed, 09  9 040 February Feb 2000 00 02|00:05:07 12 AM|2000-02-09 00:05:07||%";
        assert_eq!(written.unwrap(), wanted);
        let hours = [(1, "01 AM"), (11, "11 AM"), (12, "12 PM"), (13, "01 PM"), (23, "11 PM")];
        for (hour, wanted) in hours {
            assert_eq!(strftime("%I %p", Moment { hour, ..LEAP }).unwrap(), wanted);
        }
    }

    #[test]
    fn other_codes_are_named() {
        assert_eq!(strftime("%d %Q", LEAP).unwrap_err(), "`strftime_now` does not know `%Q`");
        assert_eq!(strftime("%d %", LEAP).unwrap_err(), "a format of `strftime_now` ends with `%`");
    }

    #[test]
    fn a_moment_is_within_a_day_of_universal_time() {
        // 2000-02-29 12:34:56 in UTC, and no zone is further away than 14 hours.
        let moment = local(951_827_696);
        assert_eq!((moment.year, moment.second), (2000, 56));
        assert!(matches!((moment.month, moment.day), (1, 28 | 29) | (2, 1)), "{moment:?}");
        let day_of_year = moment.day_of_year - [0, 31, 60][moment.month];
        assert_eq!(day_of_year, moment.day);
        assert_eq!(moment.weekday as i32, (moment.day_of_year + 5) % 7);
    }
}
