//! `nemoc import`.

use std::path::PathBuf;

use super::{CliError, out, source, write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Checkpoint directory with a config.json
    #[arg(value_name = "HF_DIR")]
    dir: PathBuf,
    /// The model file to write; standard output when absent
    #[arg(short, long, value_name = "MODEL.toml")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let toml = source::checkpoint(&args.dir)?.to_toml();
    match &args.output {
        Some(path) => write(path, toml),
        None => out(toml),
    }
}
