//! `nemort eval`.

mod exam;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nemo_ir::artifact::Artifact;
use nemo_ir::step::PAGE_TOKENS;
use serde_json::json;

use self::exam::Exam;
use super::outfile::OutFile;
use super::sampling::SamplingArgs;
use super::{CommandError, RunArgs, Shape, budget, directory, load_engine, output, warn_of_ignored, whole};
use crate::device::Profiling;
use crate::engine::choose_target;
use crate::eval::{self, Matching, Setting, Titles, best_saving};
use crate::session::SessionError;
use crate::text::{ChatTemplate, GenerationSettings, Grace, Text, ThinkSwitch, model_type};
use crate::weights::checkpoint::check_directory;

/// Points of accuracy that a saving of tokens may cost.
const PRICE: f64 = 1.0;

/// What `--help` says of seeds and files.
const NOTES: &str = "\
With a temperature every problem is drawn with a seed of its own: --seed for the first, and one more for each further one. Files \
get their names when they are whole; until then they are NAME.partial.";

#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Directory of the checkpoint: weights, tokenizer, chat template.
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// Problems, one JSON object a line: `messages`, or one question as `prompt`; `answer`; perhaps `tools`, and variables of the
    /// template. `-` is standard input.
    #[arg(long, value_name = "FILE.JSONL")]
    problems: PathBuf,
    /// Budgets to answer the problems with: tokens of thoughts, `none` for thoughts that end themselves, `off` for no
    /// thoughts. Unless given, `off,none`; `none` alone where the model cannot be told.
    #[arg(long, value_name = "off,8,none", value_delimiter = ',', allow_hyphen_values = true)]
    budgets: Option<Vec<Setting>>,
    /// How far thoughts may go beyond their budget: tokens, or a part of it as `10%`, which it is unless given.
    #[arg(long, value_name = "N|N%", value_parser = budget::grace, allow_negative_numbers = true, requires = "budgets")]
    think_grace: Option<Grace>,
    /// When an answer is right.
    #[arg(long = "match", value_name = "HOW", value_enum, default_value_t)]
    matching: Matching,
    /// New tokens of a problem, thoughts included, at most; 4096 beside the budget unless given, where the context has room.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_new_tokens: Option<u64>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Sequences at once; as many as the artifact has unless given.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    max_seqs: Option<u64>,
    /// Draw accuracy over tokens.
    #[arg(long, value_name = "FILE.SVG")]
    svg: Option<PathBuf>,
    /// Write what became of each problem under each budget, one JSON object a line, in the order in which they end.
    #[arg(long, value_name = "FILE.JSONL")]
    save: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &EvalArgs) -> Result<(), CommandError> {
    let artifact = Artifact::open(&args.run.artifact)?;
    let limits = choose_target(&artifact, args.run.target.as_deref(), &args.run.device())?.target.limits;
    // Whatever can be refused is refused before any weight is read.
    check_directory(&args.weights)?;
    if args.max_new_tokens == Some(0) {
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
    let budgets = || settings.iter().filter_map(|setting| setting.budget());
    if args.think_grace.is_some() && budgets().next().is_none() {
        return Err(CommandError::Refused("--think-grace needs a number of tokens in --budgets".to_owned()));
    }
    budget::warn_of_no_answer(budgets().max(), args.max_new_tokens);
    let context = limits.max_context;
    let exam = Exam {
        args,
        text,
        template: &template,
        switch,
        problems: &problems,
        sampling,
        end: &generation.end,
        context,
    };
    let papers = settings.iter().map(|setting| exam.paper(*setting)).collect::<Result<Vec<_>, _>>()?;
    let needed = papers.iter().map(exam::Paper::positions).max().unwrap_or(0);
    let shape = Shape {
        max_seqs: args.max_seqs.unwrap_or(limits.max_seqs),
        max_context: needed.min(context).next_multiple_of(PAGE_TOKENS).min(context),
        profiling: Profiling::Off,
    };
    let [mut save, svg] = files(args)?;

    let mut engine = load_engine(&artifact, &args.run, directory(&args.weights), shape)?;
    let (model, device) = (artifact.manifest().model.clone(), engine.describe());
    let target = engine.plan().target.clone();
    let print = |text: &str| match output::line(text) {
        // Nobody reads the table any more, but the files are wanted.
        Err(CommandError::Output(error))
            if error.kind() == std::io::ErrorKind::BrokenPipe
                && (args.save.is_some() || args.svg.is_some()) =>
        {
            Ok(())
        }
        printed => printed,
    };
    if !args.json {
        print(&format!("{model} on {target}, {device}: {}", exam.describe()))?;
        print(report::HEAD)?;
    }
    let mut scores = Vec::new();
    for paper in papers {
        let score = exam.sit(&mut engine, paper, save.as_mut())?;
        if !args.json {
            print(&report::row(&score))?;
        }
        scores.push(score);
    }
    if let Some(save) = save {
        save.finish()?;
    }
    if let Some(mut svg) = svg {
        svg.write(&eval::draw(&scores, &Titles { model: model.clone(), what: exam.describe() })?)?;
        svg.finish()?;
    }
    let saving = best_saving(&scores, PRICE);
    if args.json {
        return output::json(&json!({
            "model": model,
            "target": target,
            "device": device,
            "problems": problems.len(),
            "match": args.matching.name(),
            "sampling": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "seed": sampling.seed,
            },
            "max_new_tokens": args.max_new_tokens,
            "scores": scores.iter().map(|score| report::score(score, exam.thinking(score.setting))).collect::<Vec<_>>(),
            "best_saving": saving.map(|saving| json!({
                "thinking": exam.thinking(saving.setting),
                "budget": saving.setting.budget(),
                "tokens_saved": saving.tokens,
                "points_lost": saving.points,
                "points_allowed": PRICE,
            })),
        }));
    }
    match saving {
        Some(saving) => print(&report::saving(saving)),
        None if scores.iter().any(|score| score.setting == Setting::Free) && scores.len() > 1 => {
            print(&format!("no budget saves tokens for {PRICE} point of accuracy or less"))
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
    if asked.contains(&Setting::Off) && switch.is_none() {
        let sought = ThinkSwitch::SOUGHT;
        return Err(CommandError::Refused(format!("the model cannot be told not to think: {sought}")));
    }
    match asked.iter().enumerate().find(|(n, setting)| asked[..*n].contains(setting)) {
        Some((_, setting)) => Err(CommandError::Refused(format!("--budgets names `{setting}` twice"))),
        None => Ok(asked.to_vec()),
    }
}

/// The files to write, begun, so that a name that cannot be written is refused before the work and not after it.
fn files(args: &EvalArgs) -> Result<[Option<OutFile>; 2], CommandError> {
    let inputs = [args.problems.as_path(), &args.run.artifact, &args.weights];
    let place = |file: &Path| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (folder.canonicalize().ok(), file.file_name().map(ToOwned::to_owned))
    };
    if let (Some(save), Some(svg)) = (&args.save, &args.svg)
        && place(save) == place(svg)
    {
        return Err(CommandError::Refused(format!(
            "--save and --svg name the same file `{}`",
            save.display()
        )));
    }
    let begin =
        |file: &Option<PathBuf>| file.as_deref().map(|file| OutFile::create(file, &inputs)).transpose();
    Ok([begin(&args.save)?, begin(&args.svg)?])
}
