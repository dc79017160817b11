//! The text of a plan, for people: `nemoc compile --emit plan`.

use std::fmt::{self, Display, Formatter};

use nemo_ir::plan::{Arg, Placement, Plan, Program, StateUnit};
use nemo_ir::rope::RopeTable;

/// A plan as text: kernels, weights, states and tables by index, then each program's blocks and calls.
pub fn print(plan: &Plan) -> String {
    PlanText(plan).to_string()
}

struct PlanText<'a>(&'a Plan);

impl Display for PlanText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let limits = plan.limits;
        writeln!(
            f,
            "plan {} {{vocab: {}, max_context: {}, max_seqs: {}, chunk: {}}}",
            plan.target, limits.vocab, limits.max_context, limits.max_seqs, limits.chunk
        )?;
        writeln!(f, "\nkernels")?;
        for kernel in &plan.kernels {
            writeln!(f, "  {}: {}", kernel.symbol, kernel.what)?;
        }
        writeln!(f, "\nweights")?;
        for (index, weight) in plan.weights.iter().enumerate() {
            let placement = match weight.placement {
                Placement::InPlace(dtype) => format!("{dtype} in place"),
                Placement::WidenedToF32 => "widened to f32".to_owned(),
            };
            writeln!(f, "  {index}: {} {:?} {placement}", weight.names.join(" | "), weight.shape)?;
        }
        writeln!(f, "\nstates")?;
        for (index, state) in plan.states.iter().enumerate() {
            let per = match state.per {
                StateUnit::Slot => "slot",
                StateUnit::Page => "page",
            };
            writeln!(f, "  {index}: {} {}{:?} per {per}", state.name, state.dtype, state.shape)?;
        }
        writeln!(f, "\ntables")?;
        for (index, table) in plan.tables.iter().enumerate() {
            writeln!(f, "  {index}: {}", table_text(table))?;
        }
        for program in &plan.programs {
            write_program(f, plan, program)?;
        }
        Ok(())
    }
}

fn table_text(table: &RopeTable) -> String {
    let RopeTable { theta, head_dim, positions, scaling } = table;
    let scaling = scaling.map_or_else(String::new, |s| {
        format!(
            ", llama3: {:?} low {:?} high {:?} original {}",
            s.factor, s.low_freq_factor, s.high_freq_factor, s.original_context
        )
    });
    format!("rope {{theta: {theta:?}, head_dim: {head_dim}, positions: {positions}{scaling}}}")
}

fn write_program(f: &mut Formatter<'_>, plan: &Plan, program: &Program) -> fmt::Result {
    let Program { max_seqs, arena_bytes, .. } = program;
    writeln!(
        f,
        "\nprogram {} {{tokens: {:?}, max_seqs: {max_seqs}, arena_bytes: {arena_bytes}}}",
        program.phase.name(),
        program.tokens()
    )?;
    for block in &program.blocks {
        writeln!(f, "  block {}", block.name)?;
        for launch in &block.launches {
            let symbol = plan.kernels.get(launch.kernel).map_or("?", |kernel| kernel.symbol.as_str());
            let args: Vec<_> = launch.args.iter().map(arg_text).collect();
            writeln!(f, "    {symbol}({})", args.join(", "))?;
        }
    }
    for call in &program.calls {
        let name = program.blocks.get(call.block).map_or("?", |block| block.name.as_str());
        let layer = call.layer.map_or_else(String::new, |layer| format!(" layer {layer}"));
        writeln!(f, "  call {name}{layer} weights {:?} states {:?}", call.weights, call.states)?;
    }
    Ok(())
}

fn arg_text(arg: &Arg) -> String {
    match arg {
        Arg::Arena(offset) => format!("arena+{offset}"),
        Arg::Weight(n) => format!("weight {n}"),
        Arg::State(n) => format!("state {n}"),
        Arg::Table(n) => format!("table {n}"),
        Arg::Step(input) => format!("${}", input.name()),
        Arg::Logits => "logits".to_owned(),
        Arg::Next => "next".to_owned(),
    }
}
