//! Problems answered by a model under one setting after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::budget;
use super::super::outfile::OutFile;
use super::{CommandError, EvalArgs};
use crate::engine::Engine;
use crate::eval::{Matching, Outcome, Problem, Score, Setting};
use crate::session::{Event, Finish, Request, Sampling, SequenceId, Session, SessionError};
use crate::text::{
    Budget, ChatTemplate, Frame, Parted, Text, TextError, ThinkSwitch, ThinkingBudget, Usage, UsageReader,
    part,
};

/// New tokens of a problem unless told otherwise, beside its budget and where the context has room for them.
const DEFAULT_NEW_TOKENS: u64 = 4096;

/// What all settings have in common.
pub(super) struct Exam<'a> {
    pub(super) args: &'a EvalArgs,
    pub(super) text: Arc<Text>,
    pub(super) template: &'a ChatTemplate,
    /// How the model is told whether to think, if there is a way.
    pub(super) switch: Option<ThinkSwitch>,
    pub(super) problems: &'a [Problem],
    pub(super) sampling: Sampling,
    /// Tokens that end an answer.
    pub(super) end: &'a [u32],
    /// Positions that a sequence may take.
    pub(super) context: u64,
}

/// All problems under one setting, ready to be submitted.
pub(super) struct Paper {
    pub(super) setting: Setting,
    questions: Vec<Question>,
}

/// A problem as the model reads it.
struct Question {
    request: Request,
    /// Whether the prompt opens thoughts.
    opened: bool,
    /// What the budget knows of its thoughts, where there is one.
    usage: Option<UsageReader>,
}

impl Paper {
    /// Positions of the longest prompt with its new tokens.
    pub(super) fn positions(&self) -> u64 {
        let needs = |question: &Question| {
            crate::session::positions(question.request.prompt.len(), question.request.max_new_tokens)
        };
        self.questions.iter().map(needs).max().unwrap_or(0)
    }
}

impl Exam<'_> {
    /// "500 problems, greedy, exact answers".
    pub(super) fn describe(&self) -> String {
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

    /// The problems under a setting.
    pub(super) fn paper(&self, setting: Setting) -> Result<Paper, CommandError> {
        let numbered = self.problems.iter().enumerate();
        let questions =
            numbered.map(|(n, problem)| self.question(setting, n, problem)).collect::<Result<_, _>>()?;
        Ok(Paper { setting, questions })
    }

    fn question(&self, setting: Setting, n: usize, problem: &Problem) -> Result<Question, CommandError> {
        let mut conversation = problem.conversation.clone();
        if let Some(switch) = self.switch {
            switch.set(setting.thinks(), &mut conversation).map_err(|what| self.of_line(problem, what))?;
        }
        let rendered = self.template.render(&conversation).map_err(|error| match error {
            // The problem has no part in this.
            error @ TextError::WrongTemplate { .. } => error.into(),
            error => self.of_line(problem, error),
        })?;
        let tokens = self.text.encode(&rendered, Frame::Written)?;
        let opened = self.text.opens_thinking(&tokens)?;
        let budget = setting.budget().map(|tokens| Budget {
            tokens: usize::try_from(tokens).unwrap_or(usize::MAX),
            grace: self.args.think_grace.unwrap_or_default(),
        });
        let hook = budget
            .map(|budget| budget::hook(&self.text, &self.args.weights, (&tokens, self.context), budget));
        let hook = hook.transpose().map_err(|error| match self.text.template_has_tags() {
            Ok(true) => self.of_line(problem, format!("{error}; compile with a larger --max-context")),
            _ => error,
        })?;
        let wanted = DEFAULT_NEW_TOKENS.saturating_add(setting.budget().unwrap_or(0));
        // The last new token is never read, so it needs no room.
        let room = (self.context + 1).saturating_sub(tokens.len() as u64).max(1);
        let new_tokens = self.args.max_new_tokens.unwrap_or(wanted.min(room));
        let mut request = Request::new(tokens, usize::try_from(new_tokens).unwrap_or(usize::MAX));
        // Draws of one problem say nothing of those of another.
        request.sampling = Sampling { seed: self.sampling.seed.wrapping_add(n as u64), ..self.sampling };
        request.end = self.end.to_vec();
        request.check(u64::MAX, self.context).map_err(|error| {
            let shorter = if new_tokens > 1 { "lower --max-new-tokens, or " } else { "" };
            self.of_line(problem, format!("{error}: {shorter}compile with a larger --max-context"))
        })?;
        let usage = hook.as_ref().map(ThinkingBudget::usage);
        if let Some(hook) = hook {
            request.hooks.push(Box::new(hook));
        }
        Ok(Question { request, opened, usage })
    }

    /// What is wrong with a problem.
    fn of_line(&self, problem: &Problem, what: impl fmt::Display) -> CommandError {
        CommandError::Refused(format!("`{}`, line {}: {what}", self.args.problems.display(), problem.line))
    }

    /// Answers every problem of a paper; each outcome is saved when it is known.
    pub(super) fn sit(
        &self,
        engine: &mut Engine,
        paper: Paper,
        mut save: Option<&mut OutFile>,
    ) -> Result<Score, CommandError> {
        let Paper { setting, questions } = paper;
        let mut session = Session::new(engine);
        let mut open: BTreeMap<SequenceId, Sheet<'_>> = BTreeMap::new();
        for (Question { request, opened, usage }, problem) in questions.into_iter().zip(self.problems) {
            let prompt = request.prompt.clone();
            let sheet = Sheet { problem, prompt, opened, usage, tokens: Vec::new() };
            open.insert(session.submit(request)?, sheet);
        }
        let bar = bar(setting, open.len());
        let started = Instant::now();
        let mut outcomes = Vec::new();
        while !session.is_idle() {
            for event in session.advance()? {
                event.check().map_err(SessionError::from)?;
                let Event { sequence, token, finish } = event;
                let Some(sheet) = open.get_mut(sequence) else { continue };
                sheet.tokens.extend(token);
                if let Some(finish) = finish {
                    outcomes.push(self.mark(setting, sheet, finish, save.as_deref_mut())?);
                    open.remove(sequence);
                    bar.inc(1);
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        Ok(Score::of(setting, &outcomes, seconds))
    }

    /// What became of a problem.
    fn mark(
        &self,
        setting: Setting,
        sheet: &Sheet<'_>,
        finish: &Finish,
        save: Option<&mut OutFile>,
    ) -> Result<Outcome, CommandError> {
        let Sheet { problem, prompt, opened, usage, tokens } = sheet;
        let Parted { answer, usage: counted, .. } = part(&self.text, tokens, *opened)?;
        let usage = usage.as_ref().map_or(counted, UsageReader::get);
        let Usage { thinking_tokens, answer_tokens, tag_tokens, budget_hit } = usage;
        let outcome = Outcome {
            right: self.args.matching.is_right(&answer, &problem.answer),
            new_tokens: tokens.len(),
            thinking_tokens,
            answer_tokens,
            tag_tokens,
            budget_hit,
            cut: *finish == Finish::Length,
        };
        if let Some(save) = save {
            let line = json!({
                "line": problem.line,
                "thinking": self.thinking(setting),
                "budget": setting.budget(),
                "prompt": prompt,
                "tokens": tokens,
                "text": self.text.decode(tokens)?,
                "answer": answer.trim(),
                "expected": problem.answer,
                "right": outcome.right,
                "thinking_tokens": thinking_tokens,
                "answer_tokens": answer_tokens,
                "tag_tokens": tag_tokens,
                "budget_hit": budget_hit,
                "stopped_by": finish.name(),
            });
            save.write(&format!("{line}\n"))?;
        }
        Ok(outcome)
    }

    /// What the model was told: `on`, `off`, or nothing where nobody knows how to tell it.
    pub(super) fn thinking(&self, setting: Setting) -> Option<&'static str> {
        self.switch.map(|_| if setting.thinks() { "on" } else { "off" })
    }
}

/// A problem that is being answered.
struct Sheet<'a> {
    problem: &'a Problem,
    prompt: Vec<u32>,
    opened: bool,
    usage: Option<UsageReader>,
    /// The answer so far.
    tokens: Vec<u32>,
}

/// How far the problems of a setting are, on a terminal.
fn bar(setting: Setting, problems: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:8} [{bar:40}] {pos} of {len} problems, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(problems as u64).with_style(style);
    bar.with_prefix(setting.to_string())
}
