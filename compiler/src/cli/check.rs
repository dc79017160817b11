//! `nemoc check`.

use std::path::PathBuf;

use nemo_ir::plan::Phase;
use nemoc::CompileError;
use nemoc::lower::{LowerOptions, lower};

use super::{CliError, out, source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    #[arg(value_name = "MODEL.toml")]
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let model = source::file(&args.file)?;
    for phase in Phase::ALL {
        lower(&model, phase, LowerOptions::of(&model)).map_err(CompileError::from)?;
    }
    let counts = model.counts();
    out(format!(
        "{}: `{}` is fine: {} layers of {} kinds, {} parameters\n",
        args.file.display(),
        model.name,
        counts.layers,
        model.blocks.len(),
        counts.parameters
    ))
}
