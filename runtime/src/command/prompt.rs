//! Where a chat's lines come from: a terminal with a line editor, or whatever standard input is.

use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal};

use rustyline::Editor;
use rustyline::config::{Behavior, Config};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::CommandError;
use crate::chat::{Lines, Typed, Writer};

const PROMPT: &str = "> ";
/// The terminal of a program, whatever its standard input and output are.
const TERMINAL: &str = "/dev/tty";

/// Lines of standard input, and who writes them.
pub(super) fn lines() -> Result<(Box<dyn Lines>, Writer), CommandError> {
    let terminals = Terminals {
        input: io::stdin().is_terminal(),
        output: io::stdout().is_terminal(),
        controlling: OpenOptions::new().read(true).write(true).open(TERMINAL).is_ok(),
    };
    let (source, writer) = choose(terminals);
    let lines: Box<dyn Lines> = match source {
        Source::Plain => Box::new(Plain),
        Source::Edited(behavior) => Box::new(Edited::new(behavior)?),
    };
    Ok((lines, writer))
}

/// What is a terminal.
#[derive(Debug, Clone, Copy)]
struct Terminals {
    /// Standard input.
    input: bool,
    /// Standard output.
    output: bool,
    /// [`TERMINAL`].
    controlling: bool,
}

/// How lines are read.
#[derive(Debug, PartialEq)]
enum Source {
    /// As they are.
    Plain,
    /// With a line editor, which writes its prompt there.
    Edited(Behavior),
}

/// Only standard input says who writes; where answers go elsewhere, the prompt is not to go with them.
fn choose(terminals: Terminals) -> (Source, Writer) {
    match terminals {
        Terminals { input: false, .. } => (Source::Plain, Writer::Script),
        Terminals { output: true, .. } => (Source::Edited(Behavior::Stdio), Writer::Person),
        Terminals { controlling: true, .. } => (Source::Edited(Behavior::PreferTerm), Writer::Person),
        Terminals { controlling: false, .. } => (Source::Plain, Writer::Person),
    }
}

/// Lines from a line editor, which keeps those of this chat.
struct Edited(Editor<(), MemHistory>);

impl Edited {
    fn new(behavior: Behavior) -> Result<Self, CommandError> {
        let config = Config::builder().auto_add_history(true).behavior(behavior).build();
        let history = MemHistory::with_config(&config);
        Editor::with_history(config, history)
            .map(Self)
            .map_err(|error| CommandError::Refused(format!("cannot edit lines on this terminal: {error}")))
    }
}

impl Lines for Edited {
    fn next(&mut self) -> io::Result<Typed> {
        match self.0.readline(PROMPT) {
            Ok(line) => Ok(Typed::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Typed::Abandoned),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Lines as they are.
struct Plain;

impl Lines for Plain {
    fn next(&mut self) -> io::Result<Typed> {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line)?;
        Ok(if read == 0 { Typed::End } else { Typed::Line(line) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_says_who_writes() {
        let chosen = |input, output, controlling| choose(Terminals { input, output, controlling });
        assert_eq!(chosen(true, true, true), (Source::Edited(Behavior::Stdio), Writer::Person));
        // `nemort chat | tee log`
        assert_eq!(chosen(true, false, true), (Source::Edited(Behavior::PreferTerm), Writer::Person));
        assert_eq!(chosen(true, false, false), (Source::Plain, Writer::Person));
        for (output, controlling) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(chosen(false, output, controlling), (Source::Plain, Writer::Script));
        }
    }
}
