//! `nemoc inspect`.

use std::path::PathBuf;

use nemo_ir::artifact::{Artifact, ArtifactError, Manifest};
use nemo_ir::plan::Phase;

use super::table::{bytes, table};
use super::{CliError, out};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The artifact
    #[arg(value_name = "out.nemo")]
    artifact: PathBuf,
    /// Print the bytes of this entry instead of the summary
    #[arg(value_name = "ENTRY")]
    entry: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let artifact = Artifact::open(&args.artifact)?;
    if let Some(entry) = &args.entry {
        return out(artifact.entry(entry)?);
    }
    let mut text = summary(&artifact);
    let mut rows = vec![vec!["entry".to_owned(), "size".to_owned(), "blake3".to_owned()]];
    for (name, size) in artifact.entries() {
        let digest = artifact.manifest().digests.get(name).map_or("-", |digest| digest.as_str());
        rows.push(vec![name.to_owned(), bytes(size as u64), digest.chars().take(16).collect()]);
    }
    text.push('\n');
    text.push_str(&table(&rows));
    out(text)
}

fn summary(artifact: &Artifact) -> String {
    let manifest = artifact.manifest();
    let Manifest { model, compiler, format, weights, activations, .. } = manifest;
    let mut rows = vec![
        vec!["model".to_owned(), model.clone()],
        vec!["compiler".to_owned(), compiler.clone()],
        vec!["format".to_owned(), format.to_string()],
        vec!["weights".to_owned(), weights.to_string()],
        vec!["activations".to_owned(), activations.to_string()],
    ];
    for target in &manifest.targets {
        let limits = target.limits;
        rows.push(vec!["target".to_owned(), target.name.clone()]);
        rows.push(vec!["  needs".to_owned(), target.needs.to_string()]);
        rows.push(vec![
            "  limits".to_owned(),
            format!(
                "context {}, {} sequences a step, {} tokens a prefill step",
                limits.max_context, limits.max_seqs, limits.chunk
            ),
        ]);
        // What is wrong with a plan is for `nemort verify` to refuse; here the rest is still worth seeing.
        let kernels = kernels_a_token(artifact, &target.name);
        let kernels = kernels.map_or_else(
            |error| format!("unknown: {error}"),
            |count| format!("{count} a token in decode of 1 sequence"),
        );
        rows.push(vec!["  kernels".to_owned(), kernels]);
    }
    table(&rows)
}

/// Launches of a decode step of one sequence.
fn kernels_a_token(artifact: &Artifact, target: &str) -> Result<usize, ArtifactError> {
    let plan = artifact.target(target)?.plan;
    let program = plan.program_for(Phase::Decode, 1).and_then(|index| plan.programs.get(index));
    let launches = |program: &nemo_ir::plan::Program| {
        program.calls.iter().map(|call| program.blocks[call.block].launches.len()).sum()
    };
    Ok(program.map_or(0, launches))
}
