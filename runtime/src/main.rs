//! The `nemort` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    nemort::command::main()
}
