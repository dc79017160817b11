//! `nemoc calibrate`.

use std::path::PathBuf;

use nemoc::calibrate::calibrate;

use super::{CliError, check_writable, out, whole, write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Threads to measure with; as many as this process may run at once when absent
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    threads: Option<u64>,
    /// Write what is printed to a file too, which `--device` reads
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if let Some(path) = &args.write {
        check_writable(path)?;
    }
    let calibration = calibrate(args.threads)?;
    if let Some(path) = &args.write {
        write(path, &calibration.toml)?;
    }
    out(&calibration.toml)
}
