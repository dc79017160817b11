//! WHAT is explained: an artifact, which brings its explanation, or a model, which is compiled up to its plan.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nemo_ir::artifact::{Artifact, ArtifactError, TargetManifest};
use nemo_ir::text::parse_program;
use nemo_ir::verify::verify_program;
use nemo_kernels::target::Target;
use nemo_models::Model;
use nemoc::explain::Replay;
use nemoc::fuse::Explanation;
use nemoc::lower::LowerOptions;
use nemoc::{lower_phases, plan_for};

use super::super::{CliError, source};
use super::Args;

/// The explanation, and the graphs that it is about.
pub(super) fn replay(args: &Args) -> Result<Replay, CliError> {
    let path = Path::new(&args.what);
    if Model::builtin(&args.what).is_some() || !is_artifact(path) {
        return of_model(args);
    }
    if let [first, ..] = args.model.given().as_slice() {
        return Err(CliError::ChosenAlready { option: first, artifact: path.to_owned() });
    }
    of_artifact(&Artifact::open(path)?, args.target.as_deref())
}

/// A file that begins like a zip, or that can only be meant as one.
fn is_artifact(path: &Path) -> bool {
    if path.is_dir() {
        return false;
    }
    let mut start = [0; 2];
    let begins = File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    (begins && start == *b"PK") || path.extension().is_some_and(|extension| extension == "nemo")
}

fn of_model(args: &Args) -> Result<Replay, CliError> {
    let target = Target::parse(args.target.as_deref().unwrap_or("host"))?;
    let model = source::model(&args.what).map_err(|error| match error {
        CliError::NoText(path) => CliError::Neither(path),
        error => error,
    })?;
    let planned = plan_for(&model, &args.model.options(target)?, &mut |_| {})?;
    let mut targets = planned.targets.into_iter();
    let target = targets.next().ok_or(CliError::EmptyTarget)?;
    let fused = target.programs.into_iter().map(|ranged| ranged.program).collect();
    Ok(Replay::new(target.explanation, planned.programs, fused)?)
}

fn of_artifact(artifact: &Artifact, wanted: Option<&str>) -> Result<Replay, CliError> {
    let target = target(artifact, wanted)?;
    let Some(entry) = &target.explain else {
        return Err(CliError::NoExplanation {
            artifact: artifact.file().to_owned(),
            target: target.name.clone(),
        });
    };
    let malformed = |entry: &str, what: String| ArtifactError::Malformed {
        file: artifact.file().to_owned(),
        entry: entry.to_owned(),
        what,
    };
    let explanation: Explanation = serde_json::from_slice(artifact.entry(entry)?)
        .map_err(|error| malformed(entry, error.to_string()))?;
    let fused = explanation.programs.iter().map(|program| {
        let entry = format!("fused/{}/{}.txt", target.name, program.label());
        let text = std::str::from_utf8(artifact.entry(&entry)?)
            .map_err(|error| malformed(&entry, error.to_string()))?;
        let program = parse_program(text).map_err(|error| malformed(&entry, error.to_string()))?;
        verify_program(&program).map_err(|errors| {
            malformed(&entry, errors.first().map_or_else(String::new, ToString::to_string))
        })?;
        Ok::<_, CliError>(program)
    });
    let fused = fused.collect::<Result<Vec<_>, _>>()?;
    let toml = artifact.model_toml()?;
    // The graph before is not kept: it is what the artifact's own model is lowered to.
    let model = Model::parse_toml(toml, "model.toml").map_err(CliError::Diagnostics)?;
    let options =
        LowerOptions { activations: artifact.manifest().activations, max_context: target.limits.max_context };
    let replay = Replay::new(explanation, lower_phases(&model, options)?, fused);
    Ok(replay.map_err(|error| malformed(entry, error.to_string()))?)
}

/// The target of that name, `host` being this machine's; the first where none is named.
fn target<'a>(artifact: &'a Artifact, wanted: Option<&str>) -> Result<&'a TargetManifest, CliError> {
    let targets = &artifact.manifest().targets;
    let wanted = match wanted {
        Some("host") => Target::parse("host")?.to_string(),
        Some(name) => name.to_owned(),
        None => targets.first().map(|target| target.name.clone()).unwrap_or_default(),
    };
    let found = targets.iter().find(|target| target.name == wanted);
    found.ok_or_else(|| CliError::Artifact(artifact.missing_target(&wanted)))
}
