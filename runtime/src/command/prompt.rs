//! Where a chat's lines come from: a terminal with a line editor, or whatever standard input is.

use std::io::{self, BufRead, IsTerminal};

use rustyline::Editor;
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::CommandError;
use crate::chat::{Lines, Typed, Writer};

const PROMPT: &str = "> ";

/// Lines of standard input, and who writes them.
pub(super) fn lines() -> Result<(Box<dyn Lines>, Writer), CommandError> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let editor = Editor::with_history(config, history)
            .map_err(|error| CommandError::Refused(format!("cannot edit lines on this terminal: {error}")))?;
        Ok((Box::new(Edited(editor)), Writer::Person))
    } else {
        Ok((Box::new(Plain), Writer::Script))
    }
}

/// Lines from a line editor, which keeps those of this chat.
struct Edited(Editor<(), MemHistory>);

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
