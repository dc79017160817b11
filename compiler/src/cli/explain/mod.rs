//! `nemoc explain`.

mod block;
mod options;
mod summary;
mod what;

use std::path::{Path, PathBuf};

use nemoc::explain::{Replay, block_names, html, only};
use nemoc::fuse::Explanation;

use self::options::ModelOptions;
use super::table::bytes;
use super::{CliError, check_writable, out, out_json, write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An artifact, or a model: the path of a model file, a built-in name or a checkpoint directory
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only this block, with its kernels
    #[arg(value_name = "BLOCK")]
    block: Option<String>,
    /// Of an artifact one of its targets, the first when absent; of a model any target, sm_86 and sm_90 too, this
    /// machine when absent
    #[arg(long, value_name = "T")]
    target: Option<String>,
    /// One JSON document: the explanation as artifacts have it
    #[arg(long)]
    json: bool,
    /// Write a page with pictures of the blocks before and after
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if let Some(file) = &args.html {
        check_writable(file)?;
    }
    let replay = what::replay(args)?;
    let explanation = &replay.explanation;
    let kept = match &args.block {
        None => None,
        Some(block) => Some(only(explanation, block).ok_or_else(|| no_block(explanation, block))?),
    };
    let shown = Replay { explanation: kept.unwrap_or_else(|| explanation.clone()), ..replay };
    if let Some(file) = &args.html {
        write_page(file, &shown)?;
    }
    match &args.block {
        _ if args.json => out_json(&shown.explanation),
        // Who asks for a page wants no table beside it.
        _ if args.html.is_some() => Ok(()),
        None => out(summary::summary(&shown.explanation)),
        Some(block) => out(block::block(&shown.explanation, block)),
    }
}

fn write_page(file: &Path, shown: &Replay) -> Result<(), CliError> {
    let page = html::page(shown);
    write(file, &page)?;
    eprintln!("wrote {}: {}", file.display(), bytes(page.len() as u64));
    Ok(())
}

fn no_block(explanation: &Explanation, block: &str) -> CliError {
    let names: Vec<String> = block_names(explanation).iter().map(|name| format!("`{name}`")).collect();
    CliError::NoBlock { block: block.to_owned(), model: explanation.model.clone(), has: names.join(", ") }
}
