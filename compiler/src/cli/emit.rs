//! `--emit`: the texts of the stages, as files.

use std::path::PathBuf;

use nemo_ir::graph::Program;
use nemoc::{Code, CompiledTarget, plan};

use super::{CliError, write};

/// A stage that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Graph,
    Fused,
    Plan,
    Llvm,
    Ptx,
    Asm,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Graph, Self::Fused, Self::Plan, Self::Llvm, Self::Ptx, Self::Asm];

    fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Fused => "fused",
            Self::Plan => "plan",
            Self::Llvm => "llvm",
            Self::Ptx => "ptx",
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

    /// Writes `graph/<phase>.txt`, `fused/<target>-<phase>-<first>-<last>.txt`, `plan/<target>.txt`,
    /// `llvm/<target>.ll`; of GPUs `ptx/<target>.ptx`, and of CPUs `asm/<target>.s`.
    pub(super) fn write(&self, programs: &[Program], targets: &[CompiledTarget]) -> Result<(), CliError> {
        for stage in Stage::ALL.into_iter().filter(|stage| self.wants(*stage)) {
            let dir = self.dir.join(stage.name());
            std::fs::create_dir_all(&dir).map_err(|source| CliError::Io {
                action: "create directory",
                path: dir.clone(),
                source,
            })?;
            for (file, text) in texts(stage, programs, targets) {
                write(&dir.join(file), text)?;
            }
        }
        Ok(())
    }
}

/// File names and texts of a stage.
fn texts(stage: Stage, programs: &[Program], targets: &[CompiledTarget]) -> Vec<(String, String)> {
    let targets = targets.iter();
    let file = |target: &CompiledTarget, extension: &str, text: Option<String>| {
        text.map(|text| (format!("{}.{extension}", target.target), text))
    };
    match stage {
        Stage::Graph => programs.iter().map(|p| (format!("{}.txt", p.phase.name()), p.to_string())).collect(),
        Stage::Fused => targets
            .flat_map(|t| {
                let file = move |label: String| format!("{}-{label}.txt", t.target);
                t.programs.iter().map(move |ranged| (file(ranged.label()), ranged.program.to_string()))
            })
            .collect(),
        Stage::Plan => targets.map(|t| (format!("{}.txt", t.target), plan::print(&t.planned.plan))).collect(),
        Stage::Llvm => targets
            .filter_map(|t| {
                let text = match t.code.as_ref()? {
                    Code::Host(object) => object.llvm.clone(),
                    Code::Gpu(module, _) => module.llvm.clone(),
                };
                file(t, "ll", text)
            })
            .collect(),
        Stage::Ptx => targets
            .filter_map(|t| match t.code.as_ref()? {
                Code::Host(_) => None,
                Code::Gpu(module, _) => file(t, "ptx", Some(module.ptx.clone())),
            })
            .collect(),
        Stage::Asm => targets
            .filter_map(|t| match t.code.as_ref()? {
                Code::Host(object) => file(t, "s", object.asm.clone()),
                Code::Gpu(..) => None,
            })
            .collect(),
    }
}
