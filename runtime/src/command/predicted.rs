//! What the compiler predicted of an artifact's kernels, beside which profiles stand.

use nemo_ir::artifact::Artifact;
use nemo_ir::plan::Phase;
use serde::Deserialize;

use crate::device::LaunchTime;

/// The predictions for one target; none where the artifact has none that this build can read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Predictions {
    programs: Vec<Program>,
}

#[derive(Debug, Deserialize)]
struct Program {
    phase: Phase,
    first_tokens: u64,
    last_tokens: u64,
    /// The T for which the costs are.
    tokens: u64,
    /// Each with how often it is called.
    blocks: Vec<(u64, Block)>,
}

#[derive(Debug, Deserialize)]
struct Block {
    name: String,
    kernels: Vec<Kernel>,
}

#[derive(Debug, Deserialize)]
struct Kernel {
    op: String,
    bytes: f64,
    seconds: f64,
}

/// What one launch of a kernel was predicted to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    /// Tokens of the step that it is for.
    pub tokens: u64,
    /// Bytes moved.
    pub bytes: f64,
    /// Time.
    pub seconds: f64,
}

impl Predictions {
    /// Those that the artifact has for a target. They are for people: where they cannot be read, profiles stand alone.
    pub(super) fn of(artifact: &Artifact, target: &str) -> Self {
        let manifest = artifact.manifest().targets.iter().find(|manifest| manifest.name == target);
        let entry = manifest.and_then(|manifest| artifact.entry(manifest.explain.as_deref()?).ok());
        entry.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
    }

    /// For the kernels of a profile's line, on average where a block has several of an op.
    pub(super) fn get(&self, time: &LaunchTime) -> Option<Prediction> {
        let ours = |program: &&Program| {
            program.phase == time.phase && (program.first_tokens..=program.last_tokens) == time.tokens
        };
        let program = self.programs.iter().find(ours)?;
        let (_, block) = program.blocks.iter().find(|(_, block)| block.name == time.block)?;
        let kernels: Vec<_> = block.kernels.iter().filter(|kernel| kernel.op == time.op).collect();
        let mean = |of: fn(&Kernel) -> f64| {
            kernels.iter().map(|kernel| of(kernel)).sum::<f64>() / kernels.len() as f64
        };
        let bytes = mean(|kernel| kernel.bytes);
        let seconds = mean(|kernel| kernel.seconds);
        (!kernels.is_empty()).then_some(Prediction { tokens: program.tokens, bytes, seconds })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_finds_its_prediction() {
        let json = r#"{"model": "m", "programs": [
            {"phase": "decode", "first_tokens": 2, "last_tokens": 8, "tokens": 4, "blocks": [
                [3, {"name": "layer", "off": {}, "kernels": [
                    {"op": "linear", "bytes": 100, "seconds": 1e-6, "laws": []},
                    {"op": "norm", "bytes": 7, "seconds": 1e-7},
                    {"op": "linear", "bytes": 300, "seconds": 3e-6}]}]]}]}"#;
        let predictions: Predictions = serde_json::from_str(json).unwrap();
        let mut time = LaunchTime {
            phase: Phase::Decode,
            tokens: 2..=8,
            block: "layer".to_owned(),
            calls: 1,
            op: "linear".to_owned(),
            symbol: "linear_0".to_owned(),
            count: 1,
            total: Duration::ZERO,
        };
        assert_eq!(predictions.get(&time), Some(Prediction { tokens: 4, bytes: 200.0, seconds: 2e-6 }));
        time.op = "scan".to_owned();
        assert_eq!(predictions.get(&time), None);
        time.tokens = 1..=1;
        assert_eq!(predictions.get(&time), None);
    }
}
