//! PTX to machine code, by NVIDIA's assembler where the machine has one.
//!
//! Nothing needs this: a driver compiles PTX itself. It saves the driver's time at the first start, and it tells what a
//! kernel takes of a card.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nemo_kernels::nvptx;
use nemo_kernels::target::Sm;
use serde::Serialize;
use thiserror::Error;

/// Machine code of a module, and what its kernels take.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The machine code.
    pub cubin: Vec<u8>,
    /// By symbol.
    pub resources: BTreeMap<String, Resources>,
}

/// What a kernel takes, as the assembler says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's stack.
    pub stack: u32,
    /// Bytes stored to it and loaded from it for want of registers.
    pub spilled: u32,
    /// Bytes of static shared memory of a CTA.
    pub shared: u32,
}

/// Why PTX could not be assembled.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// No assembler.
    #[error(
        "there is no `ptxas` on PATH, which --cubin needs; the PyPI package nvidia-cuda-nvcc-cu12 has one"
    )]
    NoAssembler,
    /// An assembler that cannot be run, or a file that it cannot be given.
    #[error("cannot run `{}`: {source}", program.display())]
    Run {
        /// The assembler.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An assembler that refused: a mistake in a generator, or an assembler that is too old.
    #[error("`{}` refused the kernels for {sm}: {message}", program.display())]
    Refused {
        /// The assembler.
        program: PathBuf,
        /// The target.
        sm: &'static str,
        /// The first line of what it said.
        message: String,
    },
}

/// The `ptxas` on PATH.
///
/// # Errors
/// [`AssembleError::NoAssembler`].
pub fn find() -> Result<PathBuf, AssembleError> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join("ptxas")).find(|path| path.is_file());
    found.ok_or(AssembleError::NoAssembler)
}

/// Assembles a module.
///
/// # Errors
/// [`AssembleError::Run`] and [`AssembleError::Refused`].
pub fn assemble(program: &Path, sm: Sm, ptx: &str) -> Result<Assembled, AssembleError> {
    let run = |source| AssembleError::Run { program: program.to_owned(), source };
    let room = tempfile::tempdir().map_err(run)?;
    let (source, target) = (room.path().join("kernels.ptx"), room.path().join("kernels.cubin"));
    std::fs::write(&source, ptx).map_err(run)?;
    let arch = format!("-arch={}", nvptx::arch(sm));
    let output =
        Command::new(program).args(["-v", &arch, "-o"]).arg(&target).arg(&source).output().map_err(run)?;
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let message = lines.next().unwrap_or("it says nothing").to_owned();
        return Err(AssembleError::Refused { program: program.to_owned(), sm: sm.name(), message });
    }
    Ok(Assembled { cubin: std::fs::read(&target).map_err(run)?, resources: resources(&said) })
}

/// Reads what `ptxas -v` says: a line that names the kernel, then lines about it.
fn resources(said: &str) -> BTreeMap<String, Resources> {
    let mut all = BTreeMap::new();
    let mut kernel = String::new();
    for line in said.lines() {
        if let Some(rest) = line.split("Function properties for ").nth(1) {
            kernel = rest.trim().to_owned();
            continue;
        }
        let before = |what: &str| number_before(line, what);
        let of: &mut Resources = match (kernel.is_empty(), before(" bytes stack frame"), before(" registers"))
        {
            (true, ..) | (_, None, None) => continue,
            _ => all.entry(kernel.clone()).or_default(),
        };
        if let Some(stack) = before(" bytes stack frame") {
            of.stack = stack;
            of.spilled =
                before(" bytes spill stores").unwrap_or(0) + before(" bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = before(" registers") {
            of.registers = registers;
            of.shared = before(" bytes smem").unwrap_or(0);
        }
    }
    all
}

/// The number that ends where `what` begins.
fn number_before(line: &str, what: &str) -> Option<u32> {
    let (before, _) = line.split_once(what)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assembler_says_is_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
                    ptxas info    : Compiling entry function 'embed_0' for 'sm_86'\n\
                    ptxas info    : Function properties for embed_0\n    \
                    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n\
                    ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 1024 bytes smem, \
                    400 bytes cmem[0]\n\
                    ptxas info    : Function properties for add_0\n    \
                    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                    ptxas info    : Used 8 registers, used 0 barriers, 400 bytes cmem[0]\n";
        let found = resources(said);
        assert_eq!(found["embed_0"], Resources { registers: 40, stack: 16, spilled: 12, shared: 1024 });
        assert_eq!(found["add_0"], Resources { registers: 8, ..Resources::default() });
        assert_eq!(found.len(), 2);
    }
}
