//! `nemort generate`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nemo_ir::artifact::Artifact;
use nemo_ir::step::PAGE_TOKENS;
use serde_json::json;

use super::budget::{self, BudgetArgs};
use super::sampling::SamplingArgs;
use super::{CommandError, RunArgs, Shape, directory, load_engine, output, token, warn_of_ignored, whole};
use crate::device::Profiling;
use crate::engine::{EngineError, choose_target};
use crate::session::{Deadline, Hook, Request, Session, SessionError, TotalTokens, positions};
use crate::text::{
    ChatTemplate, Conversation, Frame, GenerationSettings, Parted, StopFilter, StopText, Text, TextError,
    TextStream, ThinkSwitch, ThinkingBudget, Usage, model_type, part, part_text,
};
use crate::weights::checkpoint::check_directory;

/// New tokens unless told otherwise, where the context has room for them.
const DEFAULT_NEW_TOKENS: u64 = 1024;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["prompt", "chat", "tokens"]))]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint: weights, tokenizer, chat template.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// One user message, put through the checkpoint's chat template.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// JSON file with a list of messages, or with `messages`, `tools` and variables of the template; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    chat: Option<PathBuf>,
    /// Token ids.
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', value_parser = token, allow_negative_numbers = true)]
    tokens: Option<Vec<u32>>,
    /// Take the prompt as it is, without the chat template.
    #[arg(long, requires = "prompt", conflicts_with_all = ["chat", "tokens"])]
    raw: bool,
    /// New tokens, at most.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_new_tokens: Option<u64>,
    /// Tell the model whether to think, in its family's way; it does as its template says unless given.
    #[arg(long, value_name = "on|off", value_enum, conflicts_with_all = ["raw", "tokens"])]
    think: Option<Think>,
    #[command(flatten)]
    budget: BudgetArgs,
    /// Tokens of prompt and answer together, at most.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    total_tokens: Option<u64>,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after end-of-text tokens.
    #[arg(long)]
    ignore_eos: bool,
    /// Stop when this time has passed: `2s`, `500ms`, `1m`.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Sequences that the engine holds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole, allow_negative_numbers = true)]
    max_seqs: u64,
    /// Positions of a sequence; as many as needed unless given.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_context: Option<u64>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Whether a model is to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Think {
    On,
    Off,
}

/// A number and a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    parsed.ok_or_else(|| "a time is a number with ms, s, m or h after it".to_owned())
}

pub(super) fn run(args: &GenerateArgs) -> Result<(), CommandError> {
    let started = Instant::now();
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    // Whatever can be refused is refused before any weight is read.
    check_directory(&args.weights)?;
    let compiled = limits.max_context;
    if let Some(wanted) = args.max_context.filter(|wanted| !(1..=compiled).contains(wanted)) {
        let file = artifact.file().to_owned();
        return Err(EngineError::Limit { what: "--max-context", wanted, most: compiled, file }.into());
    }
    let text = open_text(args, limits.vocab)?;
    let settings = GenerationSettings::open(&args.weights)?;
    warn_of_ignored(&settings);
    let (prompt, opened) = prompt(args, text.as_ref())?;
    let most = args.max_context.unwrap_or(compiled);
    // The last new token is never read, so it needs no room.
    let room = (most + 1).saturating_sub(prompt.len() as u64);
    let wanted = DEFAULT_NEW_TOKENS.saturating_add(args.budget.tokens());
    let new_tokens = args.max_new_tokens.unwrap_or(wanted.min(room.max(1))) as usize;
    budget::warn_of_no_answer(args.budget.given(), args.max_new_tokens);
    let budget = args.budget.hook(text.as_ref(), &args.weights, &prompt, most)?;
    let mut request = Request::new(prompt, new_tokens);
    request.sampling = args.sampling.over(settings.sampling);
    if !args.ignore_eos {
        request.end = settings.end;
    }
    request.hooks = stop_hook(args, text.as_ref())?;
    if let Some(most) = args.total_tokens {
        request.hooks.push(Box::new(TotalTokens::new(usize::try_from(most).unwrap_or(usize::MAX))));
    }
    let budgeted = budget.as_ref().map(ThinkingBudget::usage);
    if let Some(budget) = budget {
        request.hooks.push(Box::new(budget));
    }
    request.check(limits.vocab, most).map_err(|error| match error {
        source @ SessionError::Context { new, .. } => {
            CommandError::NoRoom { source, advice: advice(new, most, compiled) }
        }
        error => error.into(),
    })?;
    let needed = positions(request.prompt.len(), new_tokens);
    let max_context = args.max_context.unwrap_or(needed.next_multiple_of(PAGE_TOKENS).min(most));
    let shape = Shape { max_seqs: args.max_seqs, max_context, profiling: Profiling::Off };
    let mut engine = load_engine(&artifact, &args.run, directory(&args.weights), shape)?;
    let load = started.elapsed();

    // Its time begins here.
    if let Some(limit) = args.deadline {
        request.hooks.push(Box::new(Deadline::after(limit)));
    }
    let prompt_tokens = request.prompt.len();
    let mut printer = Printer::new(args, text.as_ref());
    let begun = Instant::now();
    let mut first = None;
    let (tokens, finish) = Session::new(&mut engine).generate(request, |token| {
        first.get_or_insert_with(|| begun.elapsed());
        printer.token(token)
    })?;
    let total = begun.elapsed();
    let prefill = first.unwrap_or(total);
    printer.finish()?;
    let decode = total.saturating_sub(prefill);
    let parted = text.as_ref().map(|text| part(text, &tokens, opened)).transpose()?;
    // Without a tokenizer nobody can tell thoughts from an answer.
    let unread = Usage { answer_tokens: tokens.len(), ..Usage::default() };
    let Parted { thinking, answer, usage } =
        parted.unwrap_or_else(|| Parted { usage: unread, ..Parted::default() });
    let usage = budgeted.map_or(usage, |usage| usage.get());
    if args.json {
        let whole = text.as_ref().map(|text| text.decode(&tokens)).transpose()?.unwrap_or_default();
        let written = StopFilter::new(args.stop.clone()).cut(&whole);
        // What stands before a stop text may be parted otherwise than the whole, whose tokens are counted.
        let (thinking, answer) =
            if written == whole { (thinking, answer) } else { part_text(&written, opened) };
        return output::json(&json!({
            "text": written,
            "tokens": tokens,
            "prompt_tokens": prompt_tokens,
            "thinking": thinking,
            "answer": answer,
            "thinking_tokens": usage.thinking_tokens,
            "answer_tokens": usage.answer_tokens,
            "tag_tokens": usage.tag_tokens,
            "budget_hit": usage.budget_hit,
            "stopped_by": finish.name(),
            "seconds": {
                "load": load.as_secs_f64(),
                "prefill": prefill.as_secs_f64(),
                "decode": decode.as_secs_f64(),
            },
        }));
    }
    let speed = (tokens.len().saturating_sub(1)) as f64 / decode.as_secs_f64().max(1e-9);
    output::note(&format!(
        "{prompt_tokens} prompt tokens in {:.2} s, {} new ones{} at {speed:.1} a second, stopped by {}",
        prefill.as_secs_f64(),
        tokens.len(),
        of_thoughts(usage),
        finish.name(),
    ));
    Ok(())
}

/// What is said of thoughts, where there are any.
fn of_thoughts(usage: Usage) -> String {
    let Usage { thinking_tokens, answer_tokens, budget_hit, .. } = usage;
    match (thinking_tokens, budget_hit) {
        (0, false) => String::new(),
        (_, false) => format!(" ({thinking_tokens} of thoughts, {answer_tokens} of the answer)"),
        (_, true) => {
            format!(" ({thinking_tokens} of thoughts, closed by the budget, {answer_tokens} of the answer)")
        }
    }
}

/// The tokenizer; only token ids can do without one.
fn open_text(args: &GenerateArgs, vocab: u64) -> Result<Option<Arc<Text>>, CommandError> {
    match Text::open(&args.weights, vocab) {
        Ok(text) => Ok(Some(Arc::new(text))),
        Err(TextError::Read { source, .. })
            if args.tokens.is_some() && source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The prompt's tokens, and whether it opens thoughts.
fn prompt(args: &GenerateArgs, text: Option<&Arc<Text>>) -> Result<(Vec<u32>, bool), CommandError> {
    let (Some(text), None) = (text, &args.tokens) else {
        let tokens = args.tokens.clone().unwrap_or_default();
        let opened = text.map(|text| text.opens_thinking(&tokens)).transpose()?;
        return Ok((tokens, opened.unwrap_or(false)));
    };
    let (written, frame) = match (&args.chat, &args.prompt) {
        (None, Some(prompt)) if args.raw => (prompt.clone(), Frame::Added),
        (chat, prompt) => {
            let mut conversation = match chat {
                Some(file) => Conversation::open(file)?,
                None => Conversation::prompt(prompt.as_deref().unwrap_or_default()),
            };
            let template = ChatTemplate::open(&args.weights)?;
            if let Some(think) = args.think {
                tell(think, &args.weights, &template, &mut conversation)?;
            }
            (template.render(&conversation)?, Frame::Written)
        }
    };
    let tokens = text.encode(&written, frame)?;
    let opened = text.opens_thinking(&tokens)?;
    Ok((tokens, opened))
}

/// Tells the model whether to think.
fn tell(
    think: Think,
    checkpoint: &Path,
    template: &ChatTemplate,
    conversation: &mut Conversation,
) -> Result<(), CommandError> {
    let refused =
        |what: String| CommandError::Refused(format!("--think cannot be said to this model: {what}"));
    let switch = ThinkSwitch::find(template, model_type(checkpoint)?.as_deref())
        .ok_or_else(|| refused(ThinkSwitch::SOUGHT.to_owned()))?;
    switch.set(think == Think::On, conversation).map_err(refused)
}

/// What to do where a prompt and `new` tokens do not fit a context of `most`.
fn advice(new: usize, most: u64, compiled: u64) -> String {
    let more = if most < compiled { "raise --max-context" } else { "compile with a larger --max-context" };
    match new {
        1 => format!("shorten the prompt, or {more}"),
        _ => format!("shorten the prompt, lower --max-new-tokens, or {more}"),
    }
}

fn stop_hook(args: &GenerateArgs, text: Option<&Arc<Text>>) -> Result<Vec<Box<dyn Hook>>, CommandError> {
    if args.stop.is_empty() {
        return Ok(Vec::new());
    }
    let refused = || CommandError::Refused("--stop needs the checkpoint's tokenizer.json".to_owned());
    let text = text.ok_or_else(refused)?;
    Ok(vec![Box::new(StopText::new(Arc::clone(text), args.stop.clone()))])
}

/// Prints text as it comes, where that is wanted.
struct Printer {
    stream: Option<TextStream>,
    filter: StopFilter,
    /// Token ids, where there is no text to print.
    ids: bool,
    /// What went wrong; after it nothing more is printed.
    failed: Option<CommandError>,
}

impl Printer {
    fn new(args: &GenerateArgs, text: Option<&Arc<Text>>) -> Self {
        Self {
            stream: text.filter(|_| !args.json).map(|text| TextStream::new(Arc::clone(text))),
            filter: StopFilter::new(args.stop.clone()),
            ids: !args.json && text.is_none(),
            failed: None,
        }
    }

    /// Breaks when it cannot be printed: nobody reads any more.
    fn token(&mut self, token: u32) -> ControlFlow<()> {
        let printed = match &mut self.stream {
            Some(stream) => stream.push(token).map_err(CommandError::Text).and_then(|piece| {
                let piece = self.filter.push(&piece);
                if piece.is_empty() { Ok(()) } else { output::write(&piece) }
            }),
            None if self.ids => output::write(&format!("{token} ")),
            None => Ok(()),
        };
        self.failed = printed.err();
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(mut self) -> Result<(), CommandError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(stream) = &mut self.stream {
            let last = self.filter.push(&stream.finish()?) + &self.filter.finish();
            return output::line(&last);
        }
        if self.ids { output::line("") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        for bad in ["", "s", "-1s", "2 days", "NaN", "1e300h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
