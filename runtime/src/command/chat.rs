//! `nemort chat`.

use std::io::{IsTerminal, stderr, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nemo_ir::artifact::Artifact;

use super::budget::{self, ChatBudgetArgs};
use super::interrupt::Interrupt;
use super::sampling::SamplingArgs;
use super::{CommandError, RunArgs, Shape, directory, load_engine, output, prompt, warn_of_ignored, whole};
use crate::chat::{self, ChatError, Dialogue, Ended, Model, Screen, Writer};
use crate::device::Profiling;
use crate::engine::{EngineError, choose_target};
use crate::session::{Finish, Request, Sampling, Session, SessionError};
use crate::text::{
    Budget, ChatTemplate, Conversation, Frame, GenerationSettings, Text, TextError, TextStream, ThinkSwitch,
    model_type,
};
use crate::weights::checkpoint::check_directory;

/// What `--help` says of the signal.
const CTRL_C: &str = "\
Lines come from the terminal, or from a file or a pipe where standard input is one. Ctrl-C stops an answer; with lines \
from a file or a pipe, a second one within the same answer, or one while no answer is being given, ends the program \
with exit code 130.";

#[derive(Debug, Args)]
#[command(after_help = CTRL_C)]
pub(super) struct ChatArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint: weights, tokenizer, chat template.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// New tokens of an answer, at most; as many as there is room for unless given.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_new_tokens: Option<u64>,
    #[command(flatten)]
    budget: ChatBudgetArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Positions that the conversation may take; as many as the artifact has unless given.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_context: Option<u64>,
}

pub(super) fn run(args: &ChatArgs) -> Result<(), CommandError> {
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    // Whatever can be refused is refused before any weight is read.
    check_directory(&args.weights)?;
    let context = context(args.max_context, limits.max_context, &artifact)?;
    if args.max_new_tokens == Some(0) {
        return Err(SessionError::NoNewTokens.into());
    }
    if let Some(tokens) = args.budget.given() {
        budget::check(args.budget.budget(tokens), context)?;
    }
    budget::warn_of_no_answer(args.budget.given(), args.max_new_tokens);
    let text = Arc::new(Text::open(&args.weights, limits.vocab)?);
    let settings = GenerationSettings::open(&args.weights)?;
    warn_of_ignored(&settings);
    let sampling = args.sampling.over(settings.sampling);
    sampling.check().map_err(SessionError::from)?;
    let template = ChatTemplate::open(&args.weights)?;
    check_template(&template)?;
    let switch = ThinkSwitch::find(&template, model_type(&args.weights)?.as_deref());
    let (mut lines, writer) = prompt::lines()?;

    let shape = Shape { max_seqs: 1, max_context: context, profiling: Profiling::Off };
    let mut engine = load_engine(&artifact, &args.run, directory(&args.weights), shape)?;
    if writer == Writer::Person {
        output::line_of_note(
            "write to the model; /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends",
        );
    }
    let mut dialogue = Dialogue::new(switch);
    dialogue.set_budget(args.budget.given());
    let mut speaker = Speaker {
        checkpoint: &args.weights,
        budget: &args.budget,
        session: Session::new(&mut engine),
        text,
        sampling,
        end: settings.end,
        context,
        compiled: limits.max_context,
        max_new_tokens: args.max_new_tokens,
        interrupt: Interrupt::new(writer)
            .map_err(|error| CommandError::Refused(format!("cannot listen for Ctrl-C: {error}")))?,
    };
    let dim = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen { answers: &mut stdout(), notes: &mut stderr(), dim };
    chat::run(&template, dialogue, &mut speaker, &mut *lines, writer, &mut screen)?;
    Ok(())
}

impl From<ChatError> for CommandError {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Output(error) => Self::Output(error),
            ChatError::Text(error) => Self::Text(error),
            ChatError::Session(error) => Self::Session(error),
            error => Self::Chat(error),
        }
    }
}

/// The positions that a conversation has.
fn context(wanted: Option<u64>, compiled: u64, artifact: &Artifact) -> Result<u64, CommandError> {
    match wanted {
        Some(wanted) if !(1..=compiled).contains(&wanted) => {
            let file = artifact.file().to_owned();
            Err(EngineError::Limit { what: "--max-context", wanted, most: compiled, file }.into())
        }
        wanted => Ok(wanted.unwrap_or(compiled)),
    }
}

/// Whether a template can render anything, as far as one question shows; one that refuses it may take others.
fn check_template(template: &ChatTemplate) -> Result<(), TextError> {
    match template.render(&Conversation::prompt("What is a river?")) {
        Err(error @ TextError::WrongTemplate { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// The model of a chat, on an engine.
struct Speaker<'e> {
    checkpoint: &'e Path,
    /// Options of the thinking budget.
    budget: &'e ChatBudgetArgs,
    session: Session<'e>,
    text: Arc<Text>,
    sampling: Sampling,
    end: Vec<u32>,
    /// Positions of the conversation.
    context: u64,
    /// Positions that the artifact has.
    compiled: u64,
    /// New tokens of an answer, at most.
    max_new_tokens: Option<u64>,
    interrupt: Interrupt,
}

impl Speaker<'_> {
    /// New tokens that there is room for after a prompt.
    fn room(&self, prompt: &[u32]) -> Result<u64, ChatError> {
        let (tokens, context) = (prompt.len() as u64, self.context);
        // The last new token is never read, so it needs no room.
        match (context + 1).saturating_sub(tokens) {
            0 => {
                let raised = context < self.compiled;
                let larger =
                    if raised { "raise --max-context" } else { "compile with a larger --max-context" };
                Err(ChatError::Full { tokens, context, larger })
            }
            room => Ok(room),
        }
    }

    /// As much of a budget as fits.
    fn fitted(&self, tokens: u64, room: u64) -> Budget {
        budget::fit(self.budget.budget(tokens), room)
    }
}

impl Model for Speaker<'_> {
    fn opens_thinking(&self, prompt: &str) -> Result<bool, ChatError> {
        Ok(self.text.opens_thinking(&self.text.encode(prompt, Frame::Written)?)?)
    }

    fn check_budget(&self, budget: u64) -> Result<Option<String>, ChatError> {
        let checked = budget::check(self.budget.budget(budget), self.context);
        checked.map_err(|error| ChatError::Turn(error.to_string()))?;
        Ok(budget::no_answer(Some(budget), self.max_new_tokens))
    }

    fn fit(&self, prompt: &str, budget: Option<u64>) -> Result<Option<u64>, ChatError> {
        let room = self.room(&self.text.encode(prompt, Frame::Written)?)?;
        Ok(budget.map(|budget| self.fitted(budget, room).tokens as u64))
    }

    fn answer(
        &mut self,
        prompt: &str,
        budget: Option<u64>,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Ended, ChatError> {
        let tokens = self.text.encode(prompt, Frame::Written)?;
        let room = self.room(&tokens)?;
        let budget = budget.map(|budget| {
            budget::hook(&self.text, self.checkpoint, (&tokens, self.context), self.fitted(budget, room))
        });
        let budget = budget.transpose().map_err(|error| ChatError::Turn(error.to_string()))?;
        let most = self.max_new_tokens.unwrap_or(u64::MAX);
        let mut request = Request::new(tokens, most.min(room) as usize);
        if let Some(budget) = budget {
            request.hooks.push(Box::new(budget));
        }
        request.sampling = self.sampling;
        request.end.clone_from(&self.end);
        request.hooks.push(self.interrupt.hook());
        let mut stream = TextStream::new(Arc::clone(&self.text));
        let mut failed = None;
        let session = &mut self.session;
        let (_, finish) = self.interrupt.during(|| {
            session.generate(request, |token| match stream.push(token) {
                Ok(piece) => each(&piece),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            })
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Where nobody listens any more, that is known.
        let _ = each(&stream.finish()?);
        Ok(match finish {
            Finish::Length if room < most => Ended::Full,
            Finish::Length => Ended::Cut,
            Finish::Hook(_) => Ended::Stopped,
            Finish::EndOfText | Finish::Caller | Finish::Failed(_) => Ended::Whole,
        })
    }
}
