//! `nemort eval`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use nemo_ir::artifact::Artifact;
use nemo_ir::step::PAGE_TOKENS;
use serde_json::{Value, json};

use super::budget;
use super::sampling::SamplingArgs;
use super::{CommandError, RunArgs, Shape, directory, load_engine, output, warn_of_ignored, whole};
use crate::device::Profiling;
use crate::engine::{Engine, choose_target};
use crate::eval::{self, Matching, Outcome, Problem, Saving, Score, Setting, Titles, best_saving};
use crate::session::{Event, Finish, Request, Sampling, SequenceId, Session, SessionError, positions};
use crate::text::{
    Budget, ChatTemplate, Frame, GenerationSettings, Grace, Parted, Text, ThinkSwitch, ThinkingBudget, Usage,
    UsageReader, model_type, part,
};
use crate::weights::checkpoint::check_directory;

/// Points of accuracy that a saving of tokens may cost.
const PRICE: f64 = 1.0;

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint: weights, tokenizer, chat template.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// Problems, one JSON object a line: `messages` or `prompt`, and `answer`; `-` is standard input.
    #[arg(long, value_name = "FILE.JSONL")]
    problems: PathBuf,
    /// Budgets to answer the problems with: tokens of thoughts, `none` for thoughts that end themselves, `off` for no
    /// thoughts. Unless given, `off,none`; `none` alone where the model cannot be told.
    #[arg(long, value_name = "off,8,none", value_delimiter = ',', allow_hyphen_values = true)]
    budgets: Option<Vec<Setting>>,
    /// How far thoughts may go beyond their budget: tokens, or a part of it as `10%`, which it is unless given.
    #[arg(long, value_name = "N|N%", value_parser = budget::grace, allow_negative_numbers = true)]
    think_grace: Option<Grace>,
    /// When an answer is right.
    #[arg(long = "match", value_name = "HOW", value_enum, default_value_t)]
    matching: Matching,
    /// New tokens of a problem, thoughts included, at most.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = whole, allow_negative_numbers = true)]
    max_new_tokens: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Sequences at once; as many as the artifact has unless given.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_seqs: Option<u64>,
    /// Draw accuracy over tokens.
    #[arg(long, value_name = "FILE.SVG")]
    svg: Option<PathBuf>,
    /// Write what became of each problem under each budget, one JSON object a line.
    #[arg(long, value_name = "FILE.JSONL")]
    save: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What all settings of a run have in common.
struct Exam<'a> {
    args: &'a EvalArgs,
    text: Arc<Text>,
    problems: &'a [Problem],
    sampling: Sampling,
    end: &'a [u32],
    /// Positions that a sequence may take.
    context: u64,
}

/// A problem as the model reads it under one setting.
struct Prompt {
    tokens: Vec<u32>,
    opened: bool,
}

pub(super) fn run(args: &EvalArgs) -> Result<(), CommandError> {
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    // Whatever can be refused is refused before any weight is read.
    check_directory(&args.weights)?;
    if args.max_new_tokens == 0 {
        return Err(SessionError::NoNewTokens.into());
    }
    let problems = eval::open(&args.problems, args.matching)?;
    let text = Arc::new(Text::open(&args.weights, limits.vocab)?);
    let generation = GenerationSettings::open(&args.weights)?;
    warn_of_ignored(&generation);
    let sampling = args.sampling.over(generation.sampling);
    sampling.check().map_err(SessionError::from)?;
    let template = ChatTemplate::open(&args.weights)?;
    let switch = ThinkSwitch::find(&template, model_type(&args.weights)?.as_deref());
    let settings = settings(args.budgets.as_deref(), switch)?;
    let exam =
        Exam { args, text, problems: &problems, sampling, end: &generation.end, context: limits.max_context };
    let prompts = exam.prompts(&template, switch, &settings)?;
    for (setting, prompts) in settings.iter().zip(&prompts) {
        exam.requests(*setting, prompts)?;
    }
    let mut save = args.save.as_deref().map(create).transpose()?;
    if let Some(file) = &args.svg {
        create(file)?;
    }

    let longest = prompts.iter().flatten().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let needed = positions(longest, args.max_new_tokens as usize);
    let shape = Shape {
        max_seqs: args.max_seqs.unwrap_or(limits.max_seqs),
        max_context: needed.next_multiple_of(PAGE_TOKENS).min(limits.max_context),
        profiling: Profiling::Off,
    };
    let mut engine = load_engine(&artifact, &args.run, directory(&args.weights), shape)?;
    if !args.json {
        output::line(&format!(
            "{} on {}, {}: {}",
            artifact.manifest().model,
            engine.plan().target,
            engine.describe(),
            exam.describe()
        ))?;
        output::line(HEAD)?;
    }
    let mut scores = Vec::new();
    for (setting, prompts) in settings.iter().zip(&prompts) {
        let score = exam.sit(&mut engine, *setting, prompts, save.as_mut())?;
        if !args.json {
            output::line(&row(&score))?;
        }
        scores.push(score);
    }
    if let (Some(writer), Some(file)) = (&mut save, &args.save) {
        writer.flush().map_err(|source| CommandError::Write { file: file.clone(), source })?;
    }
    if let Some(file) = &args.svg {
        let titles = Titles { model: artifact.manifest().model.clone(), what: exam.describe() };
        let svg = eval::draw(&scores, &titles)?;
        std::fs::write(file, svg).map_err(|source| CommandError::Write { file: file.clone(), source })?;
    }
    let saving = best_saving(&scores, PRICE);
    if args.json {
        return output::json(&json!({
            "model": artifact.manifest().model,
            "target": engine.plan().target,
            "device": engine.describe(),
            "problems": problems.len(),
            "scores": scores.iter().map(score_json).collect::<Vec<_>>(),
            "best_saving": saving.map(|saving| json!({
                "budget": saving.setting.to_string(),
                "tokens_saved": saving.tokens,
                "points_lost": saving.points,
            })),
        }));
    }
    match saving {
        Some(saving) => output::line(&of_saving(saving)),
        None if scores.iter().any(|score| score.setting == Setting::Free) && scores.len() > 1 => {
            output::line(&format!("no budget saves tokens for {PRICE} point of accuracy or less"))
        }
        None => Ok(()),
    }
}

/// The settings asked for, or those that the model can be put to.
fn settings(asked: Option<&[Setting]>, switch: Option<ThinkSwitch>) -> Result<Vec<Setting>, CommandError> {
    let Some(asked) = asked else {
        let off = switch.map(|_| Setting::Off);
        return Ok(off.into_iter().chain([Setting::Free]).collect());
    };
    if let (Some(_), None) = (asked.iter().find(|setting| **setting == Setting::Off), switch) {
        let sought = ThinkSwitch::SOUGHT;
        return Err(CommandError::Refused(format!("the model cannot be told not to think: {sought}")));
    }
    if let Some((n, setting)) = asked.iter().enumerate().find(|(n, setting)| asked[..*n].contains(setting)) {
        return Err(CommandError::Refused(format!(
            "--budgets names `{setting}` twice, the second time as number {}",
            n + 1
        )));
    }
    Ok(asked.to_vec())
}

/// Opens a file for writing before the work begins, so that it is not lost at the end.
fn create(file: &Path) -> Result<BufWriter<File>, CommandError> {
    let opened =
        File::create(file).map_err(|source| CommandError::Write { file: file.to_owned(), source })?;
    Ok(BufWriter::new(opened))
}

impl Exam<'_> {
    /// "500 problems, greedy, exact answers".
    fn describe(&self) -> String {
        let problems = if self.problems.len() == 1 { "problem" } else { "problems" };
        let drawn = match self.sampling.temperature {
            0.0 => "greedy".to_owned(),
            temperature => format!("temperature {temperature}"),
        };
        let answers = match self.args.matching {
            Matching::Exact => "exact answers",
            Matching::Number => "the last number counts",
        };
        format!("{} {problems}, {drawn}, {answers}", self.problems.len())
    }

    /// The prompts of each setting.
    fn prompts(
        &self,
        template: &ChatTemplate,
        switch: Option<ThinkSwitch>,
        settings: &[Setting],
    ) -> Result<Vec<Vec<Prompt>>, CommandError> {
        let prompts = |setting: &Setting| {
            self.problems
                .iter()
                .map(|problem| {
                    let mut conversation = problem.conversation.clone();
                    if let Some(switch) = switch {
                        switch
                            .set(setting.thinks(), &mut conversation)
                            .map_err(|what| self.of_line(problem, what))?;
                    }
                    let rendered =
                        template.render(&conversation).map_err(|error| self.of_line(problem, error))?;
                    let tokens = self.text.encode(&rendered, Frame::Written)?;
                    let opened = self.text.opens_thinking(&tokens)?;
                    Ok(Prompt { tokens, opened })
                })
                .collect()
        };
        settings.iter().map(prompts).collect()
    }

    /// What is wrong with a problem.
    fn of_line(&self, problem: &Problem, what: impl std::fmt::Display) -> CommandError {
        CommandError::Refused(format!("`{}`, line {}: {what}", self.args.problems.display(), problem.line))
    }

    /// The requests of a setting, and what is to be known of their thoughts.
    fn requests(
        &self,
        setting: Setting,
        prompts: &[Prompt],
    ) -> Result<Vec<(Request, Option<UsageReader>)>, CommandError> {
        let grace = self.args.think_grace.unwrap_or_default();
        let request = |(problem, prompt): (&Problem, &Prompt)| {
            let room = (self.context + 1).saturating_sub(prompt.tokens.len() as u64);
            let new_tokens = self.args.max_new_tokens.min(room.max(1)) as usize;
            let mut request = Request::new(prompt.tokens.clone(), new_tokens);
            request.sampling = self.sampling;
            request.end = self.end.to_vec();
            let budget = setting.budget().map(|tokens| {
                let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
                budget::hook(
                    &self.text,
                    &self.args.weights,
                    (&prompt.tokens, self.context),
                    Budget { tokens, grace },
                )
            });
            let budget = budget.transpose().map_err(|error| self.of_line(problem, error))?;
            let usage = budget.as_ref().map(ThinkingBudget::usage);
            if let Some(budget) = budget {
                request.hooks.push(Box::new(budget));
            }
            request.check(u64::MAX, self.context).map_err(|error| self.of_line(problem, error))?;
            Ok((request, usage))
        };
        self.problems.iter().zip(prompts).map(request).collect()
    }

    /// Answers every problem under one setting.
    fn sit(
        &self,
        engine: &mut Engine,
        setting: Setting,
        prompts: &[Prompt],
        mut save: Option<&mut BufWriter<File>>,
    ) -> Result<Score, CommandError> {
        let mut usages = Vec::new();
        let mut session = Session::new(engine);
        let mut ids = Vec::new();
        for (request, usage) in self.requests(setting, prompts)? {
            ids.push(session.submit(request)?);
            usages.push(usage);
        }
        let started = Instant::now();
        let mut written: BTreeMap<SequenceId, (Vec<u32>, Option<Finish>)> = BTreeMap::new();
        while !session.is_idle() {
            for event in session.advance()? {
                event.check().map_err(SessionError::from)?;
                let Event { sequence, token, finish } = event;
                let (tokens, end) = written.entry(*sequence).or_default();
                tokens.extend(token);
                *end = finish.clone();
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut outcomes = Vec::new();
        for (((id, usage), prompt), problem) in ids.iter().zip(usages).zip(prompts).zip(self.problems) {
            let (tokens, finish) = written.remove(id).unwrap_or_default();
            let Parted { answer, usage: counted, .. } = part(&self.text, &tokens, prompt.opened)?;
            let Usage { thinking_tokens, answer_tokens, budget_hit, .. } =
                usage.map_or(counted, |usage| usage.get());
            let outcome = Outcome {
                right: self.args.matching.is_right(&answer, &problem.answer),
                new_tokens: tokens.len(),
                thinking_tokens,
                answer_tokens,
                budget_hit,
                cut: finish == Some(Finish::Length),
            };
            if let (Some(writer), Some(file)) = (save.as_deref_mut(), &self.args.save) {
                let line = json!({
                    "line": problem.line,
                    "budget": setting.to_string(),
                    "prompt": prompt.tokens,
                    "tokens": tokens,
                    "text": self.text.decode(&tokens)?,
                    "answer": answer.trim(),
                    "expected": problem.answer,
                    "right": outcome.right,
                    "thinking_tokens": thinking_tokens,
                    "answer_tokens": answer_tokens,
                    "budget_hit": budget_hit,
                    "stopped_by": finish.as_ref().map(Finish::name),
                });
                writeln!(writer, "{line}")
                    .map_err(|source| CommandError::Write { file: file.clone(), source })?;
            }
            outcomes.push(outcome);
        }
        Ok(Score::of(setting, &outcomes, seconds))
    }
}

const HEAD: &str =
    "thinking    right           95 %      new tokens   thoughts   closed      cut   s a problem";

/// A line of the table.
fn row(score: &Score) -> String {
    let percent = |part: usize| 100.0 * part as f64 / score.problems.max(1) as f64;
    let (low, high) = score.interval();
    format!(
        "{:<8} {:6.1} %   {:5.1}..{:5.1} %   {:10.1} {:10.1} {:6.0} % {:6.0} % {:13.4}",
        score.setting,
        score.accuracy() * 100.0,
        low * 100.0,
        high * 100.0,
        score.new_tokens,
        score.thinking_tokens,
        percent(score.budget_hits),
        percent(score.cut),
        score.seconds / score.problems.max(1) as f64,
    )
}

fn score_json(score: &Score) -> Value {
    let (low, high) = score.interval();
    json!({
        "thinking": if score.setting.thinks() { "on" } else { "off" },
        "budget": score.setting.budget(),
        "problems": score.problems,
        "right": score.right,
        "accuracy": score.accuracy(),
        "interval": [low, high],
        "new_tokens": score.new_tokens,
        "thinking_tokens": score.thinking_tokens,
        "answer_tokens": score.answer_tokens,
        "budget_hits": score.budget_hits,
        "cut": score.cut,
        "seconds": score.seconds,
    })
}

/// What a budget saves, in a sentence.
fn of_saving(saving: Saving) -> String {
    let Saving { setting, tokens, points } = saving;
    let named = match setting {
        Setting::Budget(budget) => format!("a budget of {budget}"),
        Setting::Off | Setting::Free => "thinking off".to_owned(),
    };
    let points = if points > 0.0 {
        format!("costs {points:.1} points")
    } else {
        format!("gains {:.1} points", -points)
    };
    format!("{named} saves {:.0} % of the tokens and {points} of accuracy", tokens * 100.0)
}
