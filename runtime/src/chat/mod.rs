//! A chat: lines come in, answers go out, and the template renders the whole dialogue for every turn.
//!
//! Nothing here knows of a terminal or an engine: lines come from [`Lines`], answers from [`Model`].

mod dialogue;
mod line;
mod show;
mod thoughts;

use std::io::{self, Write};
use std::ops::ControlFlow;

use thiserror::Error;

pub use dialogue::Dialogue;

use self::line::{Command, Line};
use self::show::Show;
use crate::session::SessionError;
use crate::text::{ChatTemplate, TextError};

/// What `/help` says.
pub const HELP: &str = "\
/think         let the model think before it answers
/no_think      let it answer at once
/budget N      let it think for N tokens, and a little longer to end a sentence; with `none`, as long as it likes
/system TEXT   set the system text; without a text there is none
/clear         forget the conversation, but not the system text
/help          show this
/quit          leave, as Ctrl-D does
A message that begins with a slash is written with two. Ctrl-C stops an answer.";

/// Where lines come from.
pub trait Lines {
    /// The next line, once somebody has written it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn next(&mut self) -> io::Result<Typed>;
}

/// What somebody did at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(String),
    /// A line that was begun and given up.
    Abandoned,
    /// The end of all lines.
    End,
}

/// What continues prompts.
pub trait Model {
    /// Whether a prompt ends inside of thoughts that it has opened.
    ///
    /// # Errors
    /// [`ChatError::Text`] where it cannot be read.
    fn opens_thinking(&self, prompt: &str) -> Result<bool, ChatError>;

    /// Looks at a budget before it holds; a warning, where one is due.
    ///
    /// # Errors
    /// [`ChatError::Turn`] where no conversation has room for it.
    fn check_budget(&self, budget: u64) -> Result<Option<String>, ChatError>;

    /// As much of a budget as there is room for after a prompt.
    ///
    /// # Errors
    /// [`ChatError::Full`] where the prompt itself has no room.
    fn fit(&self, prompt: &str, budget: Option<u64>) -> Result<Option<u64>, ChatError>;

    /// Continues a prompt and hands the text over as it comes, until `each` wants no more. `budget` limits the tokens of
    /// its thoughts.
    ///
    /// # Errors
    /// [`ChatError::Turn`] where this prompt cannot be continued and others can.
    fn answer(
        &mut self,
        prompt: &str,
        budget: Option<u64>,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Ended, ChatError>;
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The model had said everything.
    Whole,
    /// It was to have no more tokens.
    Cut,
    /// There was no room for more.
    Full,
    /// Somebody stopped it.
    Stopped,
}

/// Why a chat, or one of its turns, cannot go on.
#[derive(Debug, Error)]
pub enum ChatError {
    /// A line that asks for what cannot be done; the chat itself can go on.
    #[error("{0}")]
    Turn(String),
    /// A prompt that is longer than the context.
    #[error("the conversation has {tokens} tokens, and the context {context}")]
    Full {
        /// Tokens of the prompt.
        tokens: u64,
        /// Positions of the context.
        context: u64,
        /// How one comes by a larger context.
        larger: &'static str,
    },
    /// A template or a tokenizer that does not work.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An engine that does not work.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Lines that cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// Nobody to read what is written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Who writes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A person, who is told what went wrong and goes on.
    Person,
    /// A script, which ends at the first thing that goes wrong.
    Script,
}

/// How a chat is shown.
pub struct Screen<'w> {
    /// Answers.
    pub answers: &'w mut dyn Write,
    /// Everything else that is said.
    pub notes: &'w mut dyn Write,
    /// Whether thoughts are dimmed, as a terminal can.
    pub dim: bool,
}

impl Screen<'_> {
    /// Says something that is no answer.
    fn note(&mut self, text: &str) {
        // Nobody is left to tell when this fails.
        let _ = writeln!(self.notes, "{text}");
    }
}

/// Runs a chat until there are no more lines.
///
/// # Errors
/// [`ChatError`] where the chat cannot go on, and with a script for what a single line asks.
pub fn run(
    template: &ChatTemplate,
    mut dialogue: Dialogue,
    model: &mut dyn Model,
    lines: &mut dyn Lines,
    writer: Writer,
    screen: &mut Screen<'_>,
) -> Result<(), ChatError> {
    loop {
        let text = match lines.next().map_err(ChatError::Input)? {
            Typed::Line(text) => text,
            Typed::Abandoned => continue,
            Typed::End => return Ok(()),
        };
        match obey(template, &mut dialogue, model, &text, screen) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(ChatError::Turn(what)) if writer == Writer::Person => {
                screen.note(&format!("error: {what}"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Does what one line says; breaks when it says that this is the end.
fn obey(
    template: &ChatTemplate,
    dialogue: &mut Dialogue,
    model: &mut dyn Model,
    text: &str,
    screen: &mut Screen<'_>,
) -> Result<ControlFlow<()>, ChatError> {
    match Line::parse(text).map_err(ChatError::Turn)? {
        Line::Empty => {}
        Line::Message(message) => {
            // A turn that fails leaves the dialogue as it was.
            let mut asked = dialogue.clone();
            asked.ask(&message);
            let (answer, ended) = turn(template, &mut asked, model, screen)?;
            asked.answered(&answer);
            *dialogue = asked;
            match ended {
                Ended::Whole => {}
                Ended::Cut => screen.note("[cut: an answer may have no more tokens]"),
                Ended::Full => screen.note("[cut: the context is full; /clear begins a new conversation]"),
                Ended::Stopped => screen.note("[stopped]"),
            }
        }
        Line::Command(Command::Think(on)) => {
            dialogue.think(on).map_err(ChatError::Turn)?;
            screen.note(if on { "[thinking is on]" } else { "[thinking is off]" });
        }
        Line::Command(Command::Budget(tokens)) => {
            let warning = tokens.map(|tokens| model.check_budget(tokens)).transpose()?.flatten();
            dialogue.set_budget(tokens);
            match tokens {
                Some(tokens) => screen.note(&format!("[thoughts have a budget of {tokens} tokens]")),
                None => screen.note("[thoughts have no budget]"),
            }
            if let Some(warning) = warning {
                screen.note(&format!("warning: {warning}"));
            }
        }
        Line::Command(Command::System(system)) => {
            dialogue.system = system;
            let none = dialogue.system.is_empty();
            screen.note(if none { "[there is no system text]" } else { "[the system text is set]" });
        }
        Line::Command(Command::Clear) => {
            dialogue.clear();
            screen.note("[the conversation is forgotten]");
        }
        Line::Command(Command::Help) => screen.note(HELP),
        Line::Command(Command::Quit) => return Ok(ControlFlow::Break(())),
    }
    Ok(ControlFlow::Continue(()))
}

/// Shows the answer to a dialogue that ends with a question, and gives it.
fn turn(
    template: &ChatTemplate,
    dialogue: &mut Dialogue,
    model: &mut dyn Model,
    screen: &mut Screen<'_>,
) -> Result<(String, Ended), ChatError> {
    let prompt = render(template, dialogue)?;
    let budget = match model.fit(&prompt, dialogue.budget()) {
        Err(full @ ChatError::Full { larger, .. }) => {
            let advice = advice(template, dialogue, model, larger)?;
            return Err(ChatError::Turn(format!("{full}; {advice}")));
        }
        fitted => fitted?,
    };
    if let Some(budget) = budget
        && dialogue.shorten(budget)
    {
        screen.note(&format!(
            "[thoughts have a budget of {budget} tokens now, as the context has no room for more]"
        ));
    }
    let mut show = Show::new(&mut *screen.answers, screen.dim);
    // Thoughts that the prompt has opened belong to what is shown and kept.
    let mut opening = model.opens_thinking(&prompt)?.then_some("<think>\n");
    let mut answer = String::new();
    let mut failed = None;
    let mut each = |piece: &str| {
        let piece = opening.take().unwrap_or_default().to_owned() + piece;
        answer.push_str(&piece);
        match show.push(&piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let ended = model.answer(&prompt, budget, &mut each);
    if let Some(error) = failed {
        return Err(error.into());
    }
    show.finish()?;
    Ok((answer, ended?))
}

/// The prompt of a dialogue that ends with a question.
fn render(template: &ChatTemplate, dialogue: &Dialogue) -> Result<String, ChatError> {
    match template.render(&dialogue.conversation()) {
        Err(error @ TextError::Template { .. }) => Err(ChatError::Turn(error.to_string())),
        rendered => Ok(rendered?),
    }
}

/// What helps where a dialogue is longer than the context.
fn advice(
    template: &ChatTemplate,
    dialogue: &Dialogue,
    model: &dyn Model,
    larger: &str,
) -> Result<String, ChatError> {
    let system = if dialogue.system.is_empty() { "" } else { " or the system text" };
    match model.fit(&render(template, &dialogue.last_question())?, None) {
        Ok(_) => Ok("/clear begins a new one".to_owned()),
        Err(ChatError::Full { .. }) => Ok(format!("shorten the question{system}, or {larger}")),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
