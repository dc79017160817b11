//! `--emit`: the texts of the stages, as files.

use std::path::{Path, PathBuf};

use nemoc::{Compiled, plan};

use super::{CliError, write};

/// A stage that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Graph,
    Plan,
    Llvm,
    Asm,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Graph, Self::Plan, Self::Llvm, Self::Asm];

    fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Plan => "plan",
            Self::Llvm => "llvm",
            Self::Asm => "asm",
        }
    }
}

/// Which stages to print, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Emit {
    pub(super) stages: Vec<Stage>,
    dir: PathBuf,
}

impl Emit {
    /// Reads `graph,plan=DIR`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let names = || Stage::ALL.map(Stage::name).join(", ");
        let (stages, dir) = text.split_once('=').ok_or("expected STAGE[,STAGE]=DIR")?;
        if dir.is_empty() {
            return Err("the directory after `=` is empty".to_owned());
        }
        let stage = |word: &str| {
            Stage::ALL
                .into_iter()
                .find(|stage| stage.name() == word)
                .ok_or_else(|| format!("there is no stage `{word}`; there are {}", names()))
        };
        Ok(Self { stages: stages.split(',').map(stage).collect::<Result<_, _>>()?, dir: PathBuf::from(dir) })
    }

    /// Whether a stage was asked for.
    pub(super) fn wants(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }

    /// Writes `graph/<phase>.txt`, `plan/<target>.txt`, `llvm/<target>.ll` and `asm/<target>.s`.
    pub(super) fn write(&self, compiled: &Compiled) -> Result<(), CliError> {
        if self.wants(Stage::Graph) {
            let dir = self.create(Stage::Graph)?;
            for program in &compiled.programs {
                write(&dir.join(format!("{}.txt", program.phase.name())), program.to_string())?;
            }
        }
        for stage in [Stage::Plan, Stage::Llvm, Stage::Asm].into_iter().filter(|stage| self.wants(*stage)) {
            let dir = self.create(stage)?;
            for target in &compiled.targets {
                let name = &target.target;
                match stage {
                    Stage::Plan => write(&dir.join(format!("{name}.txt")), plan::print(&target.planned.plan))?,
                    Stage::Llvm => write_listing(&dir.join(format!("{name}.ll")), target.object.llvm.as_deref())?,
                    Stage::Asm => write_listing(&dir.join(format!("{name}.s")), target.object.asm.as_deref())?,
                    Stage::Graph => {}
                }
            }
        }
        Ok(())
    }

    fn create(&self, stage: Stage) -> Result<PathBuf, CliError> {
        let dir = self.dir.join(stage.name());
        std::fs::create_dir_all(&dir)
            .map_err(|source| CliError::Io { action: "create directory", path: dir.clone(), source })?;
        Ok(dir)
    }
}

fn write_listing(path: &Path, listing: Option<&str>) -> Result<(), CliError> {
    write(path, listing.unwrap_or_default())
}
