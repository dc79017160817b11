//! How the thoughts of a run are set.

use std::fmt;
use std::str::FromStr;

/// Whether a model thinks, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// It is told not to.
    Off,
    /// It is told to, and its thoughts are closed after this many tokens and the grace.
    Budget(u64),
    /// It is told to, and ends its thoughts itself.
    Free,
}

impl Setting {
    /// Whether the model is told to think.
    pub fn thinks(self) -> bool {
        self != Self::Off
    }

    /// The budget, if there is one.
    pub fn budget(self) -> Option<u64> {
        match self {
            Self::Budget(tokens) => Some(tokens),
            Self::Off | Self::Free => None,
        }
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(Self::Off),
            "none" => Ok(Self::Free),
            digits => match digits.parse() {
                Ok(tokens) if !digits.starts_with('+') => Ok(Self::Budget(tokens)),
                _ => Err("a budget is a number of tokens, `none`, or `off` for no thinking".to_owned()),
            },
        }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.pad("off"),
            Self::Budget(tokens) => f.pad(&tokens.to_string()),
            Self::Free => f.pad("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        for setting in [Setting::Off, Setting::Budget(0), Setting::Budget(u64::MAX), Setting::Free] {
            assert_eq!(setting.to_string().parse(), Ok(setting));
            assert_eq!(format!(" {setting}").parse(), Ok(setting));
        }
        for bad in ["", "-1", "on", "1.5", "99999999999999999999", "+8", "8 9"] {
            assert!(bad.parse::<Setting>().unwrap_err().contains("`none`"), "{bad}");
        }
    }
}
