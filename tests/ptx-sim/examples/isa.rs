//! Writes the cases of the instruction set as files, for a program that runs them on a card:
//! `cargo run -p ptx-sim --example isa -- --out DIR`.

use clap::Parser;
use ptx_sim::isa::dump::{DumpArgs, DumpError};

/// Writes kernels of single instructions with the bytes that they must produce.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: DumpArgs,
}

fn main() -> Result<(), DumpError> {
    let written = Command::parse().args.run()?;
    println!("{written} cases");
    Ok(())
}
