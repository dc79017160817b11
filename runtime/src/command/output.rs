//! Writing to standard output without panicking when nobody reads it.

use std::io::{IsTerminal, Write};

use super::CommandError;

/// Writes text as it is, at once.
pub(super) fn write(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::Output)
}

/// Writes a line.
pub(super) fn line(text: &str) -> Result<(), CommandError> {
    write(&format!("{text}\n"))
}

/// Writes a JSON document and nothing else.
pub(super) fn json(document: &serde_json::Value) -> Result<(), CommandError> {
    line(&format!("{document:#}"))
}

/// A warning on standard error.
pub(super) fn warning(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr().lock(), "nemort: warning: {text}");
}

/// Something worth knowing on standard error, whoever reads it.
pub(super) fn line_of_note(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr().lock(), "nemort: {text}");
}

/// A note on standard error, for people only.
pub(super) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // Nobody is left to tell when this fails.
        let _ = writeln!(err, "{text}");
    }
}
