//! What came of a run on a GPU: one JSON document, and one table for people.
//!
//! Speeds stand beside what the GPU itself can do and beside PyTorch, measured in the same run.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Least ratios to PyTorch that are wanted: the system, of decoding, of reading prompts.
const GOALS: [(&str, f64, f64); 2] =
    [("nemotron-nano-9b-v2", 1.0, 1.0), ("llama-3.1-nemotron-nano-8b-v1", 1.0, 0.8)];

/// What is said of a run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Name of the GPU.
    pub gpu: String,
    /// When it ran.
    pub date: String,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It ended well.
    Ok,
    /// It did not.
    Failed,
    /// It asks for more memory than the GPU has; that is no failure.
    NoRoom,
    /// There was not enough time for it.
    Late,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Step {
    step: String,
    state: State,
    seconds: u64,
    /// The JSON documents that it printed.
    results: Vec<Value>,
}

/// The speed of one system at one shape; `None` for what was not measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Speed {
    system: String,
    seqs: u64,
    prompt: u64,
    state: State,
    prefill_tok_s: Option<f64>,
    prefill_tflop_s: Option<f64>,
    prefill_of_matmul: Option<f64>,
    prefill_of_pytorch: Option<f64>,
    decode_tok_s: Option<f64>,
    decode_gb_s: Option<f64>,
    copy_gb_s: Option<f64>,
    decode_of_copy: Option<f64>,
    decode_of_pytorch: Option<f64>,
}

/// A ratio to PyTorch that is wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Goal {
    what: String,
    least: f64,
    found: Option<f64>,
    /// `None` where nothing was found.
    met: Option<bool>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    header: Header,
    failed: usize,
    torch: Option<String>,
    matmul_bf16_tflop_s: Option<f64>,
    copy_gb_s: Option<f64>,
    speeds: Vec<Speed>,
    goals: Vec<Goal>,
    steps: Vec<Step>,
}

/// Reads `steps.tsv` (name, state, seconds) and the output of each step that it names.
///
/// # Errors
/// What is wrong with the folder, in words.
pub fn gather(folder: &Path, header: &Header) -> Result<Report, String> {
    let file = folder.join("steps.tsv");
    let text = fs::read_to_string(&file).map_err(|error| format!("`{}`: {error}", file.display()))?;
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let step = step(folder, line);
        steps.push(step.map_err(|what| format!("`{}`, line {}: {what}", file.display(), number + 1))?);
    }
    if steps.is_empty() {
        return Err(format!("`{}` names no step", file.display()));
    }
    let field = |name: &str| steps.iter().flat_map(|step| &step.results).find_map(|result| result.get(name));
    let matmul = field("matmul_bf16_tflop_s").and_then(Value::as_f64);
    let copy = field("copy_gb_s").and_then(Value::as_f64);
    let torch = field("torch").and_then(Value::as_str).map(str::to_owned);
    let speeds: Vec<_> = steps.iter().filter_map(|step| speed(step, &steps, (matmul, copy))).collect();
    Ok(Report {
        header: header.clone(),
        failed: steps.iter().filter(|step| matches!(step.state, State::Failed | State::Late)).count(),
        torch,
        matmul_bf16_tflop_s: matmul,
        // What the benches measured by the driver's own copies stands before what torch does.
        copy_gb_s: speeds.iter().find_map(|speed| speed.copy_gb_s).or(copy),
        goals: goals(&speeds),
        speeds,
        steps,
    })
}

fn step(folder: &Path, line: &str) -> Result<Step, String> {
    let [name, state, seconds] = line.split('\t').collect::<Vec<_>>()[..] else {
        return Err(format!("found `{line}`, expected a name, a state and seconds"));
    };
    let state = Value::from(state);
    let state = serde_json::from_value(state).map_err(|error| format!("its state: {error}"))?;
    let seconds = seconds.parse().map_err(|_| format!("found `{seconds}`, expected seconds"))?;
    // A step that was never run has no output, and one that was ended may have the half of a line.
    let output = fs::read_to_string(folder.join(format!("{name}.out"))).unwrap_or_default();
    Ok(Step { step: name.to_owned(), state, seconds, results: documents(&output) })
}

/// The JSON objects of an output: it is one as a whole, or lines of it are.
fn documents(output: &str) -> Vec<Value> {
    if let Ok(whole @ Value::Object(_)) = serde_json::from_str(output) {
        return vec![whole];
    }
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

/// The row of a step `bench-<system>-<seqs>-<prompt>`.
fn speed(step: &Step, steps: &[Step], (matmul, copy): (Option<f64>, Option<f64>)) -> Option<Speed> {
    let shape = step.step.strip_prefix("bench-")?;
    let (rest, prompt) = shape.rsplit_once('-')?;
    let (system, seqs) = rest.rsplit_once('-')?;
    let (seqs, prompt) = (seqs.parse().ok()?, prompt.parse().ok()?);
    let result = step.results.first().filter(|_| step.state == State::Ok);
    let figure = |name: &str| result?.get(name)?.as_f64();
    let peer = |name: &str| {
        let same = |result: &&Value| {
            result["system"] == *system && result["seqs"] == seqs && result["prompt"] == prompt
        };
        let all = steps.iter().flat_map(|step| &step.results).filter(same);
        all.filter_map(|result| result.get(name)?.as_f64()).next()
    };
    let ratio = |of: Option<f64>, to: Option<f64>| Some(of? / to.filter(|to| *to > 0.0)?);
    let (prefill, decode) = (figure("prefill_tok_s"), figure("decode_tok_s"));
    let tflop_s = figure("prefill_gflop_s").map(|rate| rate / 1e3);
    let (gb_s, copied) = (figure("decode_gb_s"), figure("read_bandwidth_gb_s").or(copy));
    Some(Speed {
        system: system.to_owned(),
        seqs,
        prompt,
        state: step.state,
        prefill_tok_s: prefill,
        prefill_tflop_s: tflop_s,
        prefill_of_matmul: ratio(tflop_s, matmul),
        prefill_of_pytorch: ratio(prefill, peer("prefill_tok_s")),
        decode_tok_s: decode,
        decode_gb_s: gb_s,
        copy_gb_s: copied.filter(|_| result.is_some()),
        decode_of_copy: ratio(gb_s, copied),
        decode_of_pytorch: ratio(decode, peer("decode_tok_s")),
    })
}

fn goals(speeds: &[Speed]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |what, found: Option<f64>, least| {
        goals.push(Goal { what, least, found, met: found.map(|found| found >= least) });
    };
    for (system, decode, prefill) in GOALS {
        for speed in speeds.iter().filter(|speed| speed.system == system) {
            let Speed { seqs, prompt, .. } = speed;
            // Long prompts are there for their own sake, and many sequences for decoding.
            if *prompt <= 512 {
                add(format!("{system}, decode of {seqs}"), speed.decode_of_pytorch, decode);
            }
            if *seqs == 1 {
                add(format!("{system}, prompt of {prompt}"), speed.prefill_of_pytorch, prefill);
            }
        }
    }
    goals
}

impl Report {
    /// Steps that failed, or that there was no time for.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The document.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| unreachable!("it has string keys: {error}"))
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!("# {}, {}\n\n", self.header.gpu, self.header.date);
        self.write(&mut text).unwrap_or_else(|error| unreachable!("a string takes all: {error}"));
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let with = |value: Option<f64>, unit: &str, none: &str| {
            value.map_or_else(|| none.to_owned(), |value| format!("{value:.0} {unit}"))
        };
        let torch = self.torch.as_deref().unwrap_or("none");
        let matmul = with(self.matmul_bf16_tflop_s, "TFLOP/s", "not measured: that takes torch");
        let copy = with(self.copy_gb_s, "GB/s", "not measured");
        writeln!(
            text,
            "Product of 8192 x 8192 matrices of bf16: {matmul}. Copy: {copy}. PyTorch: {torch}.\n"
        )?;
        writeln!(
            text,
            "| system | seqs | prompt | prefill tok/s | TFLOP/s | of product | of PyTorch | decode tok/s | GB/s | of copy | of PyTorch |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for speed in &self.speeds {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
            let percent =
                |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{:.0} %", v * 100.0));
            let times = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2} x"));
            let of = match speed.state {
                State::Ok => String::new(),
                State::Failed => " (failed)".to_owned(),
                State::NoRoom => " (no room)".to_owned(),
                State::Late => " (late)".to_owned(),
            };
            let columns = [
                speed.system.clone() + &of,
                speed.seqs.to_string(),
                speed.prompt.to_string(),
                number(speed.prefill_tok_s),
                number(speed.prefill_tflop_s),
                percent(speed.prefill_of_matmul),
                times(speed.prefill_of_pytorch),
                number(speed.decode_tok_s),
                number(speed.decode_gb_s),
                percent(speed.decode_of_copy),
                times(speed.decode_of_pytorch),
            ];
            writeln!(text, "| {} |", columns.join(" | "))?;
        }
        writeln!(text, "\n| wanted of PyTorch | at least | found | |\n|---|---|---|---|")?;
        for Goal { what, least, found, met } in &self.goals {
            let found = found.map_or("-".to_owned(), |found| format!("{found:.2} x"));
            let met = match met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            writeln!(text, "| {what} | {least} x | {found} | {met} |")?;
        }
        writeln!(text)?;
        for step in &self.steps {
            for part in ["kernels", "isa", "random_weights"] {
                for found in step.results.iter().filter_map(|result| result.get(part)) {
                    let (run, failed, skipped) = (&found["run"], &found["failed"], &found["skipped"]);
                    let name = &step.step;
                    writeln!(text, "{name}, {part}: {run} cases run, {failed} failed, {skipped} skipped.")?;
                }
            }
        }
        for step in self.steps.iter().filter(|step| matches!(step.state, State::Failed | State::Late)) {
            let state = if step.state == State::Late { "late" } else { "failed" };
            writeln!(text, "{}: {state} after {} s.", step.step, step.seconds)?;
        }
        write!(text, "{} of {} steps failed.", self.failed, self.steps.len())
    }
}
