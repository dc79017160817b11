//! What fusion did to a model and what it bought, for people: words and numbers, and a page with pictures.
//!
//! Everything here reads an [`Explanation`] and the graphs before and after; nothing decides anything.

mod drawing;
pub mod html;
mod layout;
mod svg;
mod trace;
pub mod words;

use nemo_ir::graph::{Block, Program};
use nemo_ir::plan::Phase;
use thiserror::Error;

use crate::fuse::{Explanation, ProgramReport};
use crate::saturate::BlockReport;

pub use trace::replaced;

/// An explanation with the graphs that it is about.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What was done and why.
    pub explanation: Explanation,
    /// The graphs as the model was lowered, one a phase.
    pub lowered: Vec<Program>,
    /// The fused graphs, one per program of the explanation and in its order.
    pub fused: Vec<Program>,
}

/// Why graphs and explanation do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// A program too many or too few.
    #[error("the explanation has {reports} programs, and there are {graphs} fused graphs")]
    Programs {
        /// Programs explained.
        reports: usize,
        /// Fused graphs.
        graphs: usize,
    },
    /// A block that one of them lacks.
    #[error("block `{block}` of program {program} is explained, but the {graph} graph does not have it")]
    Block {
        /// Name of the block.
        block: String,
        /// Label of the program.
        program: String,
        /// `lowered` or `fused`.
        graph: &'static str,
    },
}

impl Replay {
    /// Puts them together.
    ///
    /// # Errors
    /// [`ReplayError`] where they disagree about programs or blocks.
    pub fn new(
        explanation: Explanation,
        lowered: Vec<Program>,
        fused: Vec<Program>,
    ) -> Result<Self, ReplayError> {
        let (reports, graphs) = (explanation.programs.len(), fused.len());
        if reports != graphs {
            return Err(ReplayError::Programs { reports, graphs });
        }
        let replay = Self { explanation, lowered, fused };
        for (report, after) in replay.explanation.programs.iter().zip(&replay.fused) {
            for (_, block) in &report.blocks {
                let absent =
                    |graph| ReplayError::Block { block: block.name.clone(), program: report.label(), graph };
                replay.before(report.phase, &block.name).ok_or_else(|| absent("lowered"))?;
                find(after, &block.name).ok_or_else(|| absent("fused"))?;
            }
        }
        Ok(replay)
    }

    /// A block as it was lowered.
    fn before(&self, phase: Phase, name: &str) -> Option<&Block> {
        self.lowered.iter().filter(|program| program.phase == phase).find_map(|program| find(program, name))
    }
}

fn find<'a>(program: &'a Program, name: &str) -> Option<&'a Block> {
    program.blocks.iter().find(|block| block.name == name)
}

/// The explanation of one block alone; `None` when no program has it.
pub fn only(explanation: &Explanation, block: &str) -> Option<Explanation> {
    let mut kept = explanation.clone();
    for program in &mut kept.programs {
        program.blocks.retain(|(_, report)| report.name == block);
    }
    let any = kept.programs.iter().any(|program| !program.blocks.is_empty());
    any.then_some(kept)
}

/// Names of the blocks of all programs, in order of first use.
pub fn block_names(explanation: &Explanation) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, block) in explanation.programs.iter().flat_map(|program| &program.blocks) {
        if !names.contains(&block.name.as_str()) {
            names.push(&block.name);
        }
    }
    names
}

/// The program before the `index`-th in which a block has the form that it has there, where its form there is not new.
pub fn same_form<'a>(explanation: &'a Explanation, index: usize, block: &str) -> Option<&'a ProgramReport> {
    let report = |program: &'a ProgramReport| {
        program.blocks.iter().map(|(_, report)| report).find(|report| report.name == block)
    };
    let here = report(explanation.programs.get(index)?)?;
    let before = explanation.programs.get(index.checked_sub(1)?)?;
    report(before).filter(|there| form(there) == form(here)).map(|_| before)
}

/// What makes two forms of a block the same: kernels that do the same, are built alike, and came about in the same way.
fn form(report: &BlockReport) -> Vec<(String, &[String], &[String])> {
    let kernels = report.kernels.iter();
    kernels.map(|kernel| (kernel.title(), &kernel.replaces[..], &kernel.laws[..])).collect()
}
